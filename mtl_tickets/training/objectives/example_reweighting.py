"""Example reweighting: rows that a model of the bias gets right count less (Schuster et al. 2019,
https://arxiv.org/abs/1908.05267; SRNets, Liu et al. 2022, https://arxiv.org/abs/2210.05211; METHODS 3.3).

    loss = sum_i (1 - beta_i) CE_i / sum_i (1 - beta_i),    beta_i = p_bias of row i's label

The weights are normalised within the batch, as published: under several processes, accumulated batches, or
where memory is short, within each part of it.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def example_reweighting(logits: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Loss of every row, float32 [rows], whose mean over the rows is the loss above. ``logits``: [rows, classes];
    ``labels``: int64 [rows]; ``bias``: log-probabilities [rows, classes]. With equal weights it is the cross-entropy;
    where the bias is sure and right on all rows, 0."""
    weights = 1 - bias.gather(1, labels.unsqueeze(1)).squeeze(1).exp()
    weights = weights.clamp(min=0.0)
    total = weights.sum()
    shares = torch.where(total > 0, weights / total.clamp(min=torch.finfo(weights.dtype).tiny), weights)
    return F.cross_entropy(logits.float(), labels, reduction="none") * shares * len(labels)
