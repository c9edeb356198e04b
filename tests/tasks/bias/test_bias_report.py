import numpy as np
import pytest

from mtl_tickets.tasks.bias import bias_report


def test_figures_by_hand() -> None:
    log_probs = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.2, 0.2], [0.4, 0.3, 0.3]])
    found = bias_report(log_probs, [0, 2, 1, 2])
    assert found == pytest.approx(
        {
            "accuracy": 0.5,
            "mean_max_probability": 0.55,
            "mean_true_probability": 0.425,
            "argmax_share_0": 0.75,
            "argmax_share_1": 0.0,
            "argmax_share_2": 0.25,
        }
    )
    assert all(type(value) is float for value in found.values())
