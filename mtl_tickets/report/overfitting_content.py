"""What a report says of overfitting: how much better a network is on rows it was trained on than on others."""

from __future__ import annotations

from collections.abc import Iterable

from mtl_tickets.report import subnetwork_figures as figures
from mtl_tickets.report.data import FULL, ReportData
from mtl_tickets.report.document import Block, Figure, Fold, Gallery, Paragraph
from mtl_tickets.report.sparsity_content import over_sizes
from mtl_tickets.report.subnetwork_data import Curve
from mtl_tickets.report.subnetwork_figures import points
from mtl_tickets.report.words import over


def overfitting(data: ReportData) -> Iterable[Block]:
    if not data.overfitting:
        yield Paragraph("No sub-network is trained yet.")
        return
    several = len(data.seeds) > 1
    spread = "mean over seeds, bars and band of one standard deviation" if several else "one seed"
    yield Paragraph(
        "The score on rows of the training set, as many as there are selection rows, less the score on dev, in points: "
        f"the more, the more of what was learned is of those rows alone; {spread}. The star and the dotted line are "
        f"{FULL}. A network that has learned less altogether has less to overfit with: this is to be read beside the "
        "scores."
    )
    yield Gallery(tuple(Figure(figures.curve(item), finding_of_gaps(item), item.task) for item in data.overfitting))
    about = f": training less dev score by sparsity{over(data.seeds)}"
    yield Fold("Numbers of overfitting", tuple(over_sizes(item, about) for item in data.overfitting))


def finding_of_gaps(item: Curve) -> str:
    said = [f"{item.task}, training less dev score in points: {FULL} {points(item.mean)}"]
    for kind in item.kinds:
        numbers = " and ".join(f"{points(one.mean)} at {one.percent} %" for one in item.ends(kind))
        said.append(f"{item.names[kind]} {numbers}")
    return "; ".join(said) + "."
