"""Importance scores: model + batches -> Scores. One small file a score; each registers itself in ``SCORES``.

A score is a :class:`~mtl_tickets.scoring.engine.GateScore` (a function of the gates' gradients, all tasks in one pass
over the examples) or a function of the weights alone.
"""

from mtl_tickets.scoring.engine import SCORES, GateScore, ScoreSettings, score_tasks

__all__ = ["SCORES", "GateScore", "ScoreSettings", "score_tasks"]
