"""The section of a report on tickets: what tasks keep, what they have in common, what rules make of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mtl_tickets.report import figures
from mtl_tickets.report.clash_content import against_each_other
from mtl_tickets.report.data import Pair, ReportData, TaskTicket, Tickets
from mtl_tickets.report.document import (
    Block,
    Bullets,
    Figure,
    Fold,
    Gallery,
    Heading,
    Paragraph,
    Said,
    Strong,
    Table,
    TableCell,
    TableRow,
    Text,
)
from mtl_tickets.report.keeping import SETS
from mtl_tickets.report.tables import REMAINING
from mtl_tickets.report.words import count, listed, mean, over

# more pairs than this are left to the table
PAIRS = 12


def tickets(data: ReportData) -> Iterable[Block]:
    found = data.tickets
    if found is None:
        yield Paragraph("The tasks have not chosen their tickets yet.")
        return
    seeds = len(found.seeds)
    yield Paragraph(f"The tickets that the tasks chose (rule {found.rule}), of {found.space}.")
    yield _kept(found)
    if found.tasks[0].heads:
        yield Heading("Units that each task keeps")
        filled = "The area that is filled is the share of seeds that keep" if seeds > 1 else "A filled one keeps"
        yield Paragraph(
            "A square is a head; those at the right are the feed-forward blocks (ffn), layers go from the bottom up. "
            f"{filled} the unit."
        )
        yield Gallery(
            tuple(Figure(figures.ticket(item), _finding_of_ticket(item), _remaining(item)) for item in found.tasks)
        )
    if found.pairs:
        yield from _in_common(found)
    if found.rules[0].heads:
        yield Heading("What the rules make of them")
        yield Paragraph(
            "The area that is filled is the share of tasks"
            + (" and seeds" if seeds > 1 else "")
            + " that keep the unit under the rule."
        )
        yield Gallery(
            tuple(
                Figure(
                    figures.rule_mask(mask),
                    f"{mask.rule}: of the heads {_part(mask.heads)}; of the feed-forward blocks {_part([mask.ffn])}.",
                    f"{mean(mask.needed)} % needed by any task",
                )
                for mask in found.rules
            )
        )


def _in_common(found: Tickets) -> Iterable[Block]:
    yield Heading("Overlap")
    yield Figure(figures.overlap(found), _finding_of_overlap(found), _overlap_caption(found))
    yield Fold("Numbers of the pairs", (_pairs(found),))
    yield Figure(
        figures.dendrogram(found),
        f"{_join(found)} The order from the top is {', '.join(figures.leaves(found))}.",
        "Tasks joined to groups by average linkage on the similarity of their tickets.",
    )
    yield from against_each_other(found)
    yield Heading("Pairs that should not share, as a forecast")
    yield from _forecast(found)
    yield Heading("Which tasks share which units")
    yield Figure(figures.shared_by(found), _finding_of_sets(found), _sets_caption(found))
    yield Fold("Numbers of the sets", (_sets(found),))


def _part(rows: Sequence[Sequence[float]]) -> str:
    values = [value for row in rows for value in row]
    every, none = sum(value == 1 for value in values), sum(value == 0 for value in values)
    return f"{every} of {len(values)} are kept by all, {none} by none"


def _kept(found: Tickets) -> Table:
    parts = list(found.tasks[0].kept)
    rows = []
    for item in found.tasks:
        cells = [
            mean(item.remaining),
            *(f"{mean(item.kept[part], int(len(found.seeds) > 1))} of {item.of[part]}" for part in parts),
        ]
        rows.append(TableRow(Said(item.task), (*map(TableCell, cells), TableCell(Said(_origin(item.notes))))))
    return Table(
        f"What each task keeps under {found.rule}{over(found.seeds)}",
        ("task", REMAINING, *parts, "origin"),
        tuple(rows),
        frozenset({2 + len(parts)}),
    )


def _origin(notes: Sequence[str]) -> str:
    """Of many seeds the first says how; which rungs were chosen stands beside the ladders."""
    return "; ".join(notes) if len(notes) < 3 else f"{notes[0]}; with other seeds {len(notes) - 1} others"


def _remaining(item: TaskTicket) -> str:
    return f"{mean(item.remaining)} % of the parameters"


def _finding_of_ticket(item: TaskTicket) -> str:
    by_layer = [statistics.fmean(layer) for layer in item.heads]
    most, least = (choose(range(len(by_layer)), key=by_layer.__getitem__) for choose in (max, min))
    blocks = [str(layer + 1) for layer, share in enumerate(item.ffn) if share < 0.5]
    said = f"{item.task} keeps {mean(item.remaining)} % of the parameters"
    if by_layer[most] == by_layer[least]:
        said += f"; {by_layer[most]:.0%} of the heads in every layer"
    else:
        said += f"; most heads in layer {most + 1} ({by_layer[most]:.0%}), fewest in layer {least + 1}"
        said += f" ({by_layer[least]:.0%})"
    return said + (f"; the feed-forward block is dropped in layer {', '.join(blocks)}." if blocks else "; all blocks.")


def _finding_of_overlap(found: Tickets) -> str:
    most, least = max(found.pairs, key=_by_mean), min(found.pairs, key=_by_mean)
    signs = [figures.beside_chance(pair) for pair in found.pairs]
    return (
        f"Of {count(len(signs), 'pair')} of tasks {signs.count('▲')} overlap more than by chance and "
        f"{signs.count('▼')} less; most alike are {' and '.join(most.tasks)} ({most.mean:.2f}), "
        f"least {' and '.join(least.tasks)} ({least.mean:.2f})."
    )


def _by_mean(pair: Pair) -> float:
    return pair.mean


def _overlap_caption(found: Tickets) -> str:
    seeds = ", mean over seeds" if len(found.seeds) > 1 else ""
    most = "with most seeds " if len(found.seeds) > 1 else ""
    return (
        f"Jaccard similarity of the tasks' tickets (units kept by both, of those kept by either){seeds}. ▲ {most}more, "
        "▼ less than tickets of these sizes overlap by chance (outside 2.5 % at either end). A task that keeps "
        "everything overlaps as chance does."
    )


def _pairs(found: Tickets) -> Table:
    rows = []
    for pair in sorted(found.pairs, key=lambda item: (-item.mean, item.tasks)):
        cells = [
            f"{mean(pair.jaccard, 2)} {figures.beside_chance(pair)}".strip(),
            mean(pair.expected, 2),
            f"{mean(pair.low, 2)} to {mean(pair.high, 2)}",
            mean(pair.rank_agreement, 2),
            *([mean(pair.cosine, 2)] if pair.cosine else []),
            _verdicts(pair),
        ]
        rows.append(TableRow(Said(" + ".join(pair.tasks)), tuple(map(TableCell, cells))))
    gradients = ["gradient cosine"] if found.gradients else []
    headings = ("pair", "Jaccard", "by chance", "chance, 95 %", "rank agreement", *gradients, "forecast")
    return Table(f"Every pair of tasks{over(found.seeds)}", headings, tuple(rows), frozenset({len(headings) - 1}))


def _verdicts(pair: Pair) -> str:
    counts = {verdict: pair.verdicts.count(verdict) for verdict in dict.fromkeys(pair.verdicts)}
    if len(pair.verdicts) == 1:
        return pair.verdicts[0]
    return ", ".join(f"{verdict} ({count} of {len(pair.verdicts)})" for verdict, count in counts.items())


def _join(found: Tickets) -> str:
    first, last = found.joins[0], found.joins[-1]
    return (
        f"The first to join are {' and '.join(' + '.join(group) for group in first.groups)} at a similarity of "
        f"{first.similarity:.2f}; the last join is at {last.similarity:.2f}."
    )


def _forecast(found: Tickets) -> Iterable[Block]:
    against = [pair for pair in found.pairs if 2 * pair.verdicts.count("do not share") > len(pair.verdicts)]
    if against:
        shown = sorted(against, key=lambda pair: (-pair.verdicts.count("do not share"), _by_mean(pair), pair.tasks))
        items: list[Text] = []
        for pair in shown[:PAIRS]:
            reason = pair.reasons[pair.verdicts.index("do not share")]
            items.append((Strong(" + ".join(pair.tasks)), f": {_verdicts(pair)}. {reason}"))
        yield Bullets(tuple(items))
        if len(against) > PAIRS:
            yield Paragraph(f"And {len(against) - PAIRS} more, in the table of the pairs.")
    else:
        yield Paragraph(
            "No pair is advised against with most seeds." if len(found.seeds) > 1 else "No pair is advised against."
        )
    looked_at = ["tickets", "scores", "gradients"][: 3 if found.gradients else 2]
    yield Paragraph(
        f"A heuristic, not a finding: it looks at {listed(looked_at)} alone, taken at one point of one training, its "
        "thresholds are not tuned, and no pair was trained together and apart to check it."
    )


def _finding_of_sets(found: Tickets) -> str:
    said = [f"{_who(entry.tasks, found)}: {sum(entry.units.values()):.3g} units" for entry in found.sets[:3]]
    return f"Units by the set of tasks that keeps them, the largest sets first: {'; '.join(said)}."


def _who(tasks: Sequence[str], found: Tickets) -> str:
    if len(tasks) == len(found.tasks):
        return "all tasks"
    return ", ".join(tasks) if tasks else "no task"


def _sets_caption(found: Tickets) -> str:
    mean_of = ", mean over seeds" if len(found.seeds) > 1 else ""
    which = f"the {SETS} sets with most units" if len(found.sets) == SETS else "all sets that have units"
    return f"Units kept by exactly the tasks with a large dot{mean_of}; {which}."


def _sets(found: Tickets) -> Table:
    pools = list(found.units)
    rows = []
    for entry in found.sets:
        cells = tuple(TableCell(f"{entry.units.get(pool, 0.0):.3g}") for pool in pools)
        rows.append(TableRow(Said(_who(entry.tasks, found)), cells))
    headings = (f"{pool} (of {found.units[pool]:,})" for pool in pools)
    caption = f"Units kept by exactly these tasks{over(found.seeds, 'a mean over')}"
    return Table(caption, ("kept by", *headings), tuple(rows))
