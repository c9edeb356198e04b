"""Numbers and lists in words, the same in every section of a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mtl_tickets.report.tables import NOT_APPLICABLE, spread


def mean(values: Sequence[float], decimals: int = 1) -> str:
    """With the standard deviation, where there are several."""
    text, sd = f"{statistics.fmean(values):.{decimals}f}", spread(values)
    return text if sd is None else f"{text} ± {sd:.{decimals}f}"


def p_value(value: float | None) -> str:
    return NOT_APPLICABLE if value is None else "< 0.001" if value < 0.001 else f"{value:.3g}"


def over(seeds: Sequence[int], what: str = "mean ± standard deviation over") -> str:
    """The end of a caption."""
    return f", {what} {count(len(seeds), 'seed')}" if len(seeds) > 1 else ", one seed"


def numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def count(number: int, word: str) -> str:
    """``1 seed``, ``2 seeds``"""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def is_or_are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
