"""The figures of sub-networks: scores over sparsity, and tickets on other tasks than their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_tickets.report.drawing import DASHES, INK, LINE, MARKERS, MUTED, PAPER, SERIES, Drawing, draw, slug
from mtl_tickets.report.subnetwork_data import GAP, Curve, Moved, Transfer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (3.5, 2.75)
# letters beside each other in a legend of two columns
LEGEND = 44
# between kinds of one size, which would lie on each other, in %
APART = 1.8
# a cell of the matrix, in inches
CELL = (0.58, 0.34)
# the shade of the largest difference: light enough for the number on it
SHADE = 0.42
AS_GOOD = "◆"
LABELS = {"score": "score", "loss": "loss", GAP: "training less dev score"}
BETTER, WORSE = SERIES[0], SERIES[1]


def curve(found: Curve) -> Drawing:
    """Score (or loss, or gap) over the share that is dropped, mean and standard deviation over seeds, beside the full
    model and the band of its deviation. What does not match has a hollow marker."""
    names = [found.names[kind] for kind in found.kinds]
    half = -(-len(names) // 2)
    beside = len(names) > 1 and sum(max(map(len, part)) for part in (names[:half], names[half:])) <= LEGEND
    lines = half if beside else len(names)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(found.mean, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        if found.spread:
            axes.axhspan(found.mean - found.spread, found.mean + found.spread, color=MUTED, alpha=0.16, linewidth=0)
        alone = [kind for kind in found.kinds if len(found.of(kind)) == 1]
        for i, kind in enumerate(found.names):
            if kind in found.kinds:
                aside = APART * (alone.index(kind) - (len(alone) - 1) / 2) if kind in alone else 0.0
                _line(axes, found, kind, i, aside)
        axes.plot([0], [found.mean], marker="*", markersize=9, color=INK, linestyle="none")
        axes.set_title(found.task, loc="left")
        axes.set_xlabel("dropped, % of what can be")
        axes.set_ylabel(LABELS[found.metric])
        axes.set_xlim(left=-4)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower left", ncols=2 if beside else 1, fontsize=7.5,
            handlelength=1.8, handletextpad=0.5, columnspacing=1.0,
        )  # fmt: skip

    section = "overfitting" if found.metric == GAP else "sparsity"
    return draw(f"{section}-{slug(found.task)}", PANEL[0], PANEL[1] + 0.17 * (lines - 1), paint)


def _line(axes: Axes, found: Curve, kind: str, number: int, aside: float) -> None:
    items = found.of(kind)
    color, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    at, means = [item.mean_dropped + aside for item in items], [item.mean for item in items]
    dashes = DASHES[number % len(DASHES)]
    if len(items) > 1:
        axes.plot([0.0, *at], [found.mean, *means], color=color, linestyle=dashes)
    else:  # a line from the full model to a single size would say what was not tried
        dashes = "none"
    for item, x in zip(items, at, strict=True):
        if item.spread:
            axes.plot([x] * 2, [item.mean - item.spread, item.mean + item.spread], color=color, linewidth=0.9)
        inside = PAPER if item.matches is False else color
        axes.plot([x], [item.mean], marker=marker, color=color, linestyle="none", markerfacecolor=inside)
    axes.plot([], [], color=color, linestyle=dashes, marker=marker, label=found.names[kind])


def heat_map(found: Transfer) -> Drawing:
    """Sources by targets: the difference to the full model as number and shade, its square root deep; a sign where it
    is as good as the target's own ticket, whose cells are framed; how many of those signs at the right."""
    rows, targets = found.sources, found.targets
    most = max((abs(cell.mean) for source in rows for cell in source.cells), default=0.0) or 1.0
    counted = any(source.as_good is not None for source in rows)
    width, height = len(targets), len(rows)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        for y, source in enumerate(rows):
            for x, cell in enumerate(source.cells):
                _cell(axes, x, y, cell, SHADE * (abs(cell.mean) / most) ** 0.5)
            if counted:
                axes.text(width - 0.2, y, _count(source.as_good), ha="center", va="center", fontsize=8)
        if counted:
            axes.text(width - 0.2, -0.75, AS_GOOD, ha="center", va="center", fontsize=8)
        first = next((y for y, source in enumerate(rows) if source.control), None)
        if first:
            axes.axhline(first - 0.5, color=MUTED, linewidth=1, xmin=0, xmax=1)
        axes.set_xlim(-0.55, width - 0.45 + 0.6 * counted)
        axes.set_ylim(height - 0.45, -0.55)
        axes.xaxis.tick_top()
        axes.set_xticks(range(width), targets, rotation=35, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(height), [source.name for source in rows])
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)

    longest = max((len(source.name) for source in rows), default=0)
    name = f"transfer-{slug(found.percent)}"
    return draw(name, 0.5 + 0.075 * longest + CELL[0] * (width + 0.8), 1.0 + CELL[1] * height, paint)


def _cell(axes: Axes, x: int, y: int, cell: Moved, shade: float) -> None:
    from matplotlib.patches import Rectangle

    color = BETTER if cell.mean >= 0 else WORSE
    place = ((x - 0.48, y - 0.47), 0.96, 0.94)
    axes.add_patch(Rectangle(*place, facecolor=color, alpha=round(shade, 2), linewidth=0))
    axes.add_patch(
        Rectangle(*place, fill=False, edgecolor=INK if cell.own else LINE, linewidth=1.3 if cell.own else 0.5)
    )
    axes.text(x, y, f"{points(cell.mean)}{AS_GOOD if cell.as_good else ''}", ha="center", va="center", fontsize=7.5)


def points(value: float) -> str:
    """With its sign; never -0.0."""
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def _count(number: int | None) -> str:
    return "–" if number is None else str(number)
