"""The methods of an experiment from the best average to the worst, each beside what tests say of it."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_tickets.report.data import Difference, Judgement, ReportData
from mtl_tickets.report.tables import AVERAGE, NOT_APPLICABLE, REMAINING, Cell
from mtl_tickets.report.words import p_value

HEADINGS = ("method", "average", "kept %", "difference [95 %]", "p (Holm)", "verdict")
NARROW = ("method", "average", "kept %", "difference", "p (Holm)", "verdict")
BASELINE = "baseline"


@dataclass(frozen=True)
class Standing:
    """``average`` over tasks and ``kept`` parameters by seed; ``against``: the baseline, None for itself."""

    heading: str
    average: Cell
    kept: Cell
    against: Difference | None

    @property
    def outcome(self) -> str:
        return self.against.outcome if self.against else BASELINE

    def cells(self, bounds: bool = True) -> tuple[str, str, str, str, str, str]:
        """Under :data:`HEADINGS`, or without the bounds of the interval under :data:`NARROW`."""
        found = self.against
        if found is None:
            return self.heading, str(self.average), str(self.kept), NOT_APPLICABLE, NOT_APPLICABLE, BASELINE
        difference = f"{found.difference:+.2f}"
        if bounds and found.low is not None and found.high is not None:
            difference += f" [{found.low:+.2f}, {found.high:+.2f}]"
        return self.heading, str(self.average), str(self.kept), difference, p_value(found.p), found.outcome


def standings(data: ReportData, judgement: Judgement) -> tuple[Standing, ...]:
    """The baseline of ``judgement`` and all that is held against it; of equal averages the recipe's order."""
    assert data.scores is not None  # there is a judgement, so there are scores
    by_method = {item.method: item for item in judgement.average}
    columns = zip(data.methods, data.scores.lines[AVERAGE], data.scores.lines[REMAINING], strict=True)
    found = [
        Standing(method.heading, average, kept, by_method.get(method.name))
        for method, average, kept in columns
        if not method.stage.startswith("yardstick/") and method.name in (*by_method, judgement.baseline)
    ]
    return tuple(sorted(found, key=lambda item: -item.average.mean))
