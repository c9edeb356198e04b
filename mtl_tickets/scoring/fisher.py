"""The diagonal of the gates' empirical Fisher information (Kwon et al., NeurIPS 2022, arXiv 2204.09656, equation 7)."""

import torch

from mtl_tickets.scoring.engine import SCORES, GateScore

fisher = SCORES.register("fisher")(
    GateScore(per_token=False, reduce=torch.square, __doc__="(d loss / d gate)^2 per example (Kwon et al. 2022)")
)
