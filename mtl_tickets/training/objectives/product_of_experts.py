"""Product of experts: what a model of the bias says already, the network need not learn (Clark et al. 2019,
https://arxiv.org/abs/1909.03683; SRNets, Liu et al. 2022, https://arxiv.org/abs/2210.05211; METHODS 3.3).

    loss = CE(softmax(log p_model + log p_bias), label)

The bias is fixed and only there in training: predictions are the network's alone.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def product_of_experts(logits: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Loss of every row, float32 [rows]. ``logits``: [rows, classes]; ``labels``: int64 [rows]; ``bias``:
    log-probabilities [rows, classes]. With a uniform bias it is the cross-entropy."""
    return F.cross_entropy(F.log_softmax(logits.float(), dim=-1) + bias, labels, reduction="none")
