"""Sub-networks of every kind and size, as Markdown: held-out text loss, task scores, and tickets on other tasks.

    python scripts/sparsity_table.py runs/EXPERIMENT > table.md

For runs of ``imp`` and ``mask_training``. Every number is a mean over seeds with the sample standard deviation, from
the result rows by way of the report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_tickets.errors import CheckpointError, MtlTicketsError, Problem
from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.locate import runs_in
from mtl_tickets.recipes.base import MLM
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.gather import gather
from mtl_tickets.report.subnetwork_data import Curve, Transfer
from mtl_tickets.report.tables import Cell, escaped

# a loss of 1 nat is much: more decimals than points have
LOSS_DECIMALS = 2


def tables(data: ReportData, before: dict[tuple[str, str], list[float]]) -> str:
    """``before``: (kind, percent) -> held-out losses with the head that came with the encoder, by seed."""
    parts = []
    for curve in data.curves:
        if curve.task == MLM:
            parts += ["### Loss on held-out text, nats per predicted token", "", *_losses(curve, before), ""]
    scores = [curve for curve in data.curves if curve.task != MLM]
    if scores:
        parts += ["### Dev scores", "", *_scores(scores), ""]
    for transfer in data.transfers:
        parts += [f"### {transfer.percent} % sparsity: source (line) on target (column)", "", *_moved(transfer), ""]
    return "\n".join(parts).rstrip()


def _losses(curve: Curve, before: dict[tuple[str, str], list[float]]) -> list[str]:
    sizes = sorted({item.percent for item in curve.found}, key=float)
    there = {(item.kind, item.percent): item.values for item in curve.found}
    lines = ["| sub-network | " + " | ".join(f"{size} %" for size in sizes) + " |"]
    lines += ["|---|" + "---:|" * len(sizes), f"| full model | {_loss(curve.full)} |" + " |" * (len(sizes) - 1)]
    for kind in curve.kinds:
        cells = [_loss(there[kind, size]) if (kind, size) in there else "–" for size in sizes]
        lines.append(f"| {escaped(curve.names[kind])} | " + " | ".join(cells) + " |")
        old = [_loss(before[kind, size]) if (kind, size) in before else "–" for size in sizes]
        if any(cell != "–" for cell in old):
            lines.append(f"| {escaped(curve.names[kind])}, head as it came | " + " | ".join(old) + " |")
    return lines


def _scores(curves: Sequence[Curve]) -> list[str]:
    names = list(dict.fromkeys((item.kind, item.percent) for curve in curves for item in curve.found))
    kinds = curves[0].kinds
    names.sort(key=lambda name: (float(name[1]), kinds.index(name[0]) if name[0] in kinds else len(kinds)))
    lines = ["| sub-network | " + " | ".join(escaped(curve.task) for curve in curves) + " |"]
    lines += ["|---|" + "---:|" * len(curves)]
    lines.append("| full model | " + " | ".join(str(Cell(curve.full)) for curve in curves) + " |")
    for kind, percent in names:
        cells = []
        for curve in curves:
            found = [item.values for item in curve.found if (item.kind, item.percent) == (kind, percent)]
            cells.append(str(Cell(found[0])) if found else "–")
        lines.append(f"| {escaped(curves[0].names[kind])} {percent} % | " + " | ".join(cells) + " |")
    return lines


def _moved(transfer: Transfer) -> list[str]:
    lines = ["| source | " + " | ".join(map(escaped, transfer.targets)) + " |"]
    lines.append("|---|" + "---:|" * len(transfer.targets))
    for source in transfer.sources:
        by_target = {cell.target: cell for cell in source.cells}
        cells = []
        for target in transfer.targets:
            cell = by_target.get(target)
            good = " ◆" if cell is not None and cell.as_good else ""
            cells.append("–" if cell is None else f"{Cell(cell.differences)}{good}")
        lines.append(f"| {escaped(source.name)} | " + " | ".join(cells) + " |")
    return [*lines, "", "Points above the full model; ◆ where at least as good as the target's own ticket on the mean."]


def _loss(values: Sequence[float]) -> str:
    cell = Cell(tuple(values))
    spread = "" if cell.spread is None else f" ± {cell.spread:.{LOSS_DECIMALS}f}"
    return f"{cell.mean:.{LOSS_DECIMALS}f}{spread}"


def losses_before(folder: Path, seeds: Sequence[int]) -> dict[tuple[str, str], list[float]]:
    """(kind, percent) -> the losses of tickets with the head that came with the encoder, for runs of these seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs_in(folder):
        for row in read_rows(run / "results.jsonl"):
            if row.metric == "loss_before" and row.seed in seeds:
                kind, _, percent = row.stage.partition("/")
                found.setdefault((kind, percent), []).append(row.value)
    return found


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        data = gather(arguments[0])
        if not data.curves:
            raise CheckpointError(
                Problem("the runs must be of sub-networks by sparsity", arguments[0], found=data.recipe)
            )
        print(tables(data, losses_before(Path(arguments[0]), data.seeds)))
    except MtlTicketsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
