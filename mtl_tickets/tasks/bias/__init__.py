"""Bias models: what can be said of an example's label from a shortcut alone (SRNets, Liu et al. 2022,
https://arxiv.org/abs/2210.05211; METHODS 3.4).

Debiasing objectives look up their log-probabilities for every training row. A new kind is one file in this folder: a
:class:`BiasModel` with a ``log_probs`` method, entered with ``@BIAS_MODELS.register("kind")``.
"""

from mtl_tickets.tasks.bias.base import BIAS_MODELS, BiasModel
from mtl_tickets.tasks.bias.cached import bias_log_probs
from mtl_tickets.tasks.bias.fitted import FittedBias
from mtl_tickets.tasks.bias.report import bias_report

__all__ = ["BIAS_MODELS", "BiasModel", "FittedBias", "bias_log_probs", "bias_report"]
