"""The embedded default suite: eight generated tasks over one invented language. No network, no downloads.

Everything follows from a seed and nothing else: not from the process, the platform, hash randomisation or the Python
version. Rows are made fresh at each call; the whole suite takes less than a second.
"""

from mtl_tickets.tasks.playground.generate import EVALUATION_ROWS, SPLITS, generate, passages, text
from mtl_tickets.tasks.playground.source import PlaygroundSource
from mtl_tickets.tasks.playground.suite import SUITE, GeneratedTask, Row

__all__ = [
    "EVALUATION_ROWS",
    "SPLITS",
    "SUITE",
    "GeneratedTask",
    "PlaygroundSource",
    "Row",
    "generate",
    "passages",
    "text",
]
