"""The figures of a report: values of :class:`ReportData` -> drawings.

Nothing is told by colour alone: lines differ in dashes and markers, squares in area, cells hold their numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mtl_tickets.report.data import Course, Judgement, Ladder, Pair, RuleMask, SharedBy, TaskTicket, Tickets
from mtl_tickets.report.drawing import DASHES, INK, LINE, MARKERS, MUTED, PAPER, SERIES, Drawing, draw, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

PANEL = (3.5, 2.7)
# kind of ticket -> colour, dashes, marker
KINDS = {
    "winning": (SERIES[0], "-", "o"),
    "random": (SERIES[1], "--", "s"),
    "losing": (SERIES[2], ":", "^"),
}
# tasks in sentences of a picture's axis: more are told by the table beside it
NAMES = 24


def differences(judgement: Judgement, of: str = "", title: str = "") -> Drawing:
    """Each method's difference to the baseline on the average, with its interval where there is one. ``of``: what tells
    its file's name from those of other experiments."""
    items = list(reversed(judgement.average))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=1)
        for y, item in enumerate(items):
            shown = item.outcome in ("better", "worse")
            if item.low is not None and item.high is not None:
                axes.plot([item.low, item.high], [y, y], color=SERIES[0], linewidth=2, solid_capstyle="butt")
            axes.plot(
                [item.difference], [y], marker="D" if shown else "o", markersize=7, color=SERIES[0], linestyle="none",
                markerfacecolor=SERIES[0] if shown else PAPER, markeredgewidth=1.6,
            )  # fmt: skip
        axes.set_yticks(range(len(items)), [item.method for item in items])
        axes.set_ylim(-0.6, len(items) - 0.4)
        axes.set_xlabel(f"points above {judgement.baseline}")
        if title:
            axes.set_title(title, loc="left")

    name = "-".join(("differences", *([of] if of else []), slug(judgement.baseline)))
    return draw(name, 4.2, 0.9 + 0.25 * bool(title) + 0.3 * len(items), paint)


def ladder(found: Ladder) -> Drawing:
    """Score over the share of parameters kept, mean and standard deviation over seeds. Rungs that a seed chose are
    ringed, those that some seed has not are hollow."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        dense = found.dense
        axes.axhline(dense.mean, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        for kind in found.kinds:
            color, dashes, marker = KINDS.get(kind, (SERIES[3], "-.", "D"))
            rungs = [dense, *found.of(kind)]
            kept, means = [rung.mean_kept for rung in rungs], [rung.mean for rung in rungs]
            axes.plot(kept, means, color=color, linestyle=dashes, marker=marker, label=kind)
            for rung in rungs:
                if len(rung.seeds) < len(dense.seeds):
                    axes.plot([rung.mean_kept], [rung.mean], marker=marker, color=color, markerfacecolor=PAPER)
                if rung.number and rung.spread:
                    ends = [rung.mean - rung.spread, rung.mean + rung.spread]
                    axes.plot([rung.mean_kept] * 2, ends, color=color, linewidth=0.9)
        _spread_of_dense(axes, found)
        for rung in found.rungs:
            if rung.chosen_by:
                axes.plot(
                    [rung.mean_kept], [rung.mean], marker="o", markersize=11, color=INK, linestyle="none",
                    markerfacecolor="none", markeredgewidth=1.3,
                )  # fmt: skip
        axes.invert_xaxis()
        axes.set_title(found.task, loc="left")
        axes.set_xlabel("parameters kept, %")
        axes.set_ylabel("score")
        if len(found.kinds) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return draw(f"ladder-{slug(found.task)}", *PANEL, paint)


def _spread_of_dense(axes: Axes, found: Ladder) -> None:
    dense = found.dense
    if dense.spread:
        ends = [dense.mean - dense.spread, dense.mean + dense.spread]
        axes.plot([dense.mean_kept] * 2, ends, color=INK, linewidth=0.9)
    axes.plot([dense.mean_kept], [dense.mean], marker="*", markersize=9, color=INK, linestyle="none")


def courses(found: Sequence[Course], what: str) -> Drawing:
    """``what``: loss or selection, over the epochs; the mean over seeds, with their range as a band where there are few
    lines."""

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for i, course in enumerate(found):
            of_seeds = list(zip(*getattr(course, what), strict=True))
            epochs = list(range(1, len(of_seeds) + 1))
            color = INK if course.method == "dense" else SERIES[i % len(SERIES)]
            axes.plot(
                epochs, [statistics.fmean(values) for values in of_seeds], color=color, label=course.method,
                linestyle=DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)],
                markevery=max(1, len(epochs) // 10),
            )  # fmt: skip
            if len(found) <= 4 and len(of_seeds[0]) > 1:
                low, high = [min(values) for values in of_seeds], [max(values) for values in of_seeds]
                axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss" if what == "loss" else "score on held-out training rows")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max(len(course.loss[0]) for course in found) + 0.5)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return draw(f"training-{what}", 4.3, 3.0 + 0.2 * ((len(found) - 1) // 3), paint)


# -- tickets -----------------------------------------------------------------------------------------------------------


def ticket(found: TaskTicket) -> Drawing:
    return _mask(f"ticket-{slug(found.task)}", found.task, found.heads, found.ffn)


def rule_mask(found: RuleMask) -> Drawing:
    return _mask(f"rule-{slug(found.rule)}", found.rule, found.heads, found.ffn)


def _mask(name: str, title: str, heads: Sequence[Sequence[float]], ffn: Sequence[float]) -> Drawing:
    """Layers from the bottom up, heads from the left, the feed-forward block at the right. The area of a square is the
    share that keeps the unit."""
    layers, width = len(heads), len(heads[0])
    cells = [(float(x), y, share) for y, row in enumerate(heads) for x, share in enumerate(row)]
    cells += [(width + 0.6, y, share) for y, share in enumerate(ffn)]

    def paint(figure: Figure) -> None:
        from matplotlib.patches import PathPatch

        axes = figure.subplots()
        axes.grid(visible=False)
        axes.add_patch(PathPatch(_squares([(x, y, 1.0) for x, y, _ in cells], 0.92), facecolor=PAPER, edgecolor=LINE))
        kept = [cell for cell in cells if cell[2] > 0]
        if kept:
            axes.add_patch(PathPatch(_squares(kept, 0.92), facecolor=SERIES[0], linewidth=0))
        axes.set_xlim(-0.7, width + 1.3)
        axes.set_ylim(-0.7, layers - 0.3)
        axes.set_aspect("equal")
        step = 1 if layers <= 8 else 2 if layers <= 16 else 4
        axes.set_yticks(range(0, layers, step), [str(layer + 1) for layer in range(0, layers, step)])
        axes.set_xticks([(width - 1) / 2, width + 0.6], ["heads", "ffn"])
        axes.tick_params(length=0)
        axes.set_ylabel("layer")
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_title(title, loc="left")

    unit = min(0.24, 2.7 / (width + 2))
    return draw(name, 0.75 + unit * (width + 2), 0.7 + unit * (layers + 0.4), paint)


def _squares(cells: Sequence[tuple[float, float, float]], full: float) -> Path:
    """One path of squares: a shape of one colour is one element, however many units there are."""
    from matplotlib.path import Path

    vertices, codes = [], []
    for x, y, share in cells:
        half = full / 2 * share**0.5
        vertices += [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half), (0, 0)]
        codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices, codes)


def overlap(found: Tickets) -> Drawing:
    """The Jaccard similarity of every two tasks, with a sign where chance does not explain it with most seeds."""
    tasks = [item.task for item in found.tasks]
    pairs = {pair.tasks: pair for pair in found.pairs}
    count = len(tasks)

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        axes.grid(visible=False)
        for y, one in enumerate(tasks):
            for x, two in enumerate(tasks):
                pair = pairs.get((one, two)) or pairs.get((two, one))
                value = 1.0 if pair is None else pair.mean
                alpha = round(0.38 * value, 2)  # light enough for the number on it
                axes.add_patch(
                    Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=SERIES[0], alpha=alpha, linewidth=0)
                )
                if pair is not None and count <= NAMES:
                    axes.text(x, y, f"{value:.2f}{beside_chance(pair)}", ha="center", va="center", fontsize=8)
        axes.set_xlim(-0.55, count - 0.45)
        axes.set_ylim(count - 0.45, -0.55)
        axes.set_aspect("equal")
        axes.set_xticks(range(count), tasks, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), tasks)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)

    return draw("overlap", 2.0 + 0.5 * count, 1.5 + 0.5 * count, paint)


def beside_chance(pair: Pair) -> str:
    """``▲`` above what chance gives with more than half of the seeds, ``▼`` below it, else nothing."""
    seeds = len(pair.jaccard)
    return "▲" if 2 * pair.above > seeds else "▼" if 2 * pair.below > seeds else ""


def dendrogram(found: Tickets) -> Drawing:
    """Tasks joined to groups, the most alike first."""
    order = leaves(found)
    at: dict[tuple[str, ...], tuple[float, float]] = {(task,): (float(y), 1.0) for y, task in enumerate(order)}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        for join in found.joins:
            (one, left), (two, right) = (at[group] for group in join.groups)
            x = join.similarity
            axes.plot([left, x, x, right], [one, one, two, two], color=SERIES[0], linewidth=1.6)
            at[tuple(sorted(join.groups[0] + join.groups[1]))] = ((one + two) / 2, x)
        low = min((join.similarity for join in found.joins), default=0.0)
        axes.set_xlim(1.0, max(0.0, low - 0.08))
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlabel("Jaccard similarity at which groups join")

    return draw("dendrogram", 4.4, 0.8 + 0.28 * len(order), paint)


def leaves(found: Tickets) -> list[str]:
    """The tasks, those that join early beside each other."""
    groups: dict[tuple[str, ...], list[str]] = {(item.task,): [item.task] for item in found.tasks}
    for join in found.joins:
        one, two = join.groups
        groups[tuple(sorted(one + two))] = groups.pop(one) + groups.pop(two)
    return [task for group in groups.values() for task in group]


def shared_by(found: Tickets) -> Drawing:
    """The sets of tasks that keep most units between them: bars of units, dots of tasks below."""
    sets, pools = found.sets, list(found.units)
    tasks = leaves(found)

    def paint(figure: Figure) -> None:
        bars, dots = figure.subplots(2, 1, sharex=True, height_ratios=[5, max(2, len(tasks))])
        bottom = [0.0] * len(sets)
        for i, pool in enumerate(pools):
            heights = [entry.units.get(pool, 0.0) for entry in sets]
            style = {"facecolor": SERIES[i], "edgecolor": INK, "hatch": ["", "////", "...."][i % 3]}
            bars.bar(range(len(sets)), heights, 0.7, bottom=bottom, label=pool, linewidth=0.6, **style)
            bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
        bars.grid(axis="x", visible=False)
        bars.set_ylabel("units")
        bars.legend(loc="upper right", ncols=len(pools))
        bars.tick_params(axis="x", length=0)
        _dots(dots, sets, tasks)

    return draw("shared-by", 2.0 + 0.29 * len(sets), 1.7 + 0.2 * len(tasks), paint)


def _dots(axes: Axes, sets: Sequence[SharedBy], tasks: Sequence[str]) -> None:
    rows: Mapping[str, int] = {task: y for y, task in enumerate(tasks)}
    everywhere = [(x, y) for x in range(len(sets)) for y in rows.values()]
    axes.plot(*zip(*everywhere, strict=True), linestyle="none", marker="o", markersize=4, color=LINE)
    for x, entry in enumerate(sets):
        ys = [rows[task] for task in entry.tasks]
        if ys:
            axes.plot([x] * len(ys), sorted(ys), color=INK, marker="o", markersize=5.5, linewidth=1.2)
    axes.grid(visible=False)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
