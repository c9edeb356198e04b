"""Confidence regularisation: a teacher's answer, made less sure where a model of the bias is right (Utama et al. 2020,
https://arxiv.org/abs/2005.00315; SRNets, Liu et al. 2022, https://arxiv.org/abs/2210.05211; METHODS 3.3).

    target_j = p_teacher,j^(1 - beta) / sum_k p_teacher,k^(1 - beta),    beta = p_bias of the row's label
    loss = - sum_j target_j log p_model,j

The label itself has no term of its own. The teacher is the network fine-tuned with the standard loss.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def confidence_regularisation(
    logits: torch.Tensor, labels: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor
) -> torch.Tensor:
    """Loss of every row, float32 [rows]. ``logits``: [rows, classes]; ``labels``: int64 [rows]; ``bias`` and
    ``teacher``: log-probabilities [rows, classes]. Where beta is 0 it is distillation; towards 1 the target is uniform.
    """
    beta = bias.gather(1, labels.unsqueeze(1)).exp()
    target = F.softmax(teacher * (1 - beta), dim=-1)
    return -(target * F.log_softmax(logits.float(), dim=-1)).sum(-1)
