"""What a report says of how rungs and rules were chosen, and what choosing on dev would have claimed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mtl_tickets.report.choosing import WHOLE
from mtl_tickets.report.data import Choice, Optimism, ReportData
from mtl_tickets.report.document import Block, Bullets, Paragraph, Said, Strong, Table, TableCell, TableRow
from mtl_tickets.report.words import mean, over


def honest_choice(data: ReportData) -> Iterable[Block]:
    found = data.optimism
    if found is None:
        kept = "is not there yet" if data.missing else "was not kept by these runs"
        yield Paragraph(f"What every task chose its rung from {kept}.")
        return
    if found.on_dev:
        yield Paragraph(
            "Rungs were chosen on the dev rows that are reported (selection: dev), as published. Scores of tickets are "
            "optimistic, and by how much cannot be measured: there are no rows that took no part in the choice."
        )
        return
    yield Paragraph(
        "Rungs are chosen by their scores on rows that are held out of training, and reported on dev. Chosen on dev, "
        "each task's rung would be the one with the best dev score among the ladder's single-task models: by "
        "construction never below the one that was chosen, and above it by the points below."
    )
    if not data.all_rungs:
        yield Paragraph("Rungs that were stopped early are no candidates of either choice.")
    items = [(Strong("Rungs: "), _of_rungs(found, data.seeds))]
    if found.rules is not None:
        items.append((Strong("Sharing rules: "), _of_rules(found.rules, data.seeds)))
    yield Bullets(tuple(items))
    yield _by_task(found, data.seeds)
    yield Paragraph(
        "So much the published protocol (selection: dev) would have added to the scores of the chosen rungs; what "
        "their tickets would have made of the multi-task models is not measured. Part of it is luck with these "
        "dev rows, which does not come again on others; part may be a better choice, as held-out rows are few. Dev "
        "scores cannot tell the two apart, so that those of what dev has chosen are too high. The scores of this "
        "report are those of what held-out rows chose. Who takes the rule with the best dev average from the table of "
        "scores chooses on dev."
    )


def _of_rungs(found: Optimism, seeds: Sequence[int]) -> str:
    by_seed = [statistics.fmean(of_seed) for of_seed in zip(*(item.optimism for item in found.rungs), strict=True)]
    same, all_of_them = sum(item.agreed for item in found.rungs), len(found.rungs) * len(seeds)
    return (
        f"chosen on dev they would score {mean(by_seed)} points more, mean over tasks{over(seeds)}. Both choose the "
        f"same rung in {same} of {all_of_them} cases."
    )


def _of_rules(rules: Choice, seeds: Sequence[int]) -> str:
    said = f"the best one on dev scores {mean(rules.optimism)} points more than the best one on held-out rows, on the "
    said += f"average over tasks{over(seeds)}; controls are no candidates. "
    if len(seeds) == 1:
        chose, best = rules.chose[0], rules.best[0]
        return said + (f"Both are {chose}." if chose == best else f"On dev that is {best}, on held-out rows {chose}.")
    return said + f"They are the same with {rules.agreed} of {len(seeds)} seeds."


def _by_task(found: Optimism, seeds: Sequence[int]) -> Table:
    rows = []
    for item in found.rungs:
        cells = (mean(item.optimism), _numbers(item.chose), _numbers(item.best), f"{item.agreed} of {len(seeds)}")
        rows.append(TableRow(Said(item.of), tuple(map(TableCell, cells))))
    each = ", one a seed" if len(seeds) > 1 else ""
    caption = f"Points that a rung chosen on dev would score more{over(seeds)}; rungs by number{each}"
    caption += ", of which 0 is the whole encoder"
    return Table(caption, ("task", "points", "chosen", "best on dev", "the same"), tuple(rows))


def _numbers(rungs: Sequence[str]) -> str:
    return "/".join("0" if rung == WHOLE else rung.rpartition("-")[2] for rung in rungs)
