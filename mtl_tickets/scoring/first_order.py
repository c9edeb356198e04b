"""The importance of Super Tickets (Liang et al., ACL 2021, arXiv 2105.12002; METHODS 1.2).

|sum over a unit's features of gradient x activation| per token, then summed over tokens: the absolute value stands
inside the token sum. With one gate a token, the gate's gradient *is* that sum over features.
"""

import torch

from mtl_tickets.scoring.engine import SCORES, GateScore


def _sum_of_sizes(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.abs().sum(1)


first_order = SCORES.register("first_order")(
    GateScore(per_token=True, reduce=_sum_of_sizes, __doc__="|gradient x activation| per token (Super Tickets)")
)
