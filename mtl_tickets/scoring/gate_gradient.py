"""The head importance of Michel et al. (NeurIPS 2019, arXiv 1905.10650, equation 2): |d loss / d gate| per example."""

import torch

from mtl_tickets.scoring.engine import SCORES, GateScore

gate_gradient = SCORES.register("gate_gradient")(
    GateScore(per_token=False, reduce=torch.abs, __doc__="|d loss / d gate| per example (Michel et al. 2019)")
)
