"""How strong a bias is: what its model gets right, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bias_report(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Sanity figures of a bias model, each from 0 to 1. ``log_probs``: [rows, classes], ``labels``: [rows].

    ``accuracy``; ``mean_max_probability``; ``mean_true_probability``, of the true class; and ``argmax_share_<i>``, how
    often class i is the answer. The published model of FEVER has a mean maximum of 0.549 and the shares .356, .270 and
    .374 (METHODS 3.4).
    """
    probabilities, truth = np.exp(log_probs), np.asarray(labels)
    answers = log_probs.argmax(1)
    rows, classes = log_probs.shape
    shares = np.bincount(answers, minlength=classes) / rows
    return {
        "accuracy": float((answers == truth).mean()),
        "mean_max_probability": float(probabilities.max(1).mean()),
        "mean_true_probability": float(probabilities[np.arange(rows), truth].mean()),
        **{f"argmax_share_{i}": float(share) for i, share in enumerate(shares)},
    }
