"""Tickets on a terminal: lists, layer-by-layer pictures, overlaps and differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket

KEPT, GONE = "■", "·"


def _table(*headings: str, first_left: bool = True) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for position, heading in enumerate(headings):
        left = first_left and position == 0
        table.add_column(Text(heading), justify="left" if left else "right", no_wrap=True)
    return table


def ticket_list(tickets: Mapping[str, Ticket]) -> RenderableType:
    """A line for each ticket: units kept of each part, parameters that remain, where it comes from."""
    parts = list(dict.fromkeys(part for ticket in tickets.values() for part in _shown_parts(ticket)))
    table = _table("ticket", *parts, "remaining %")
    for heading in ("kind", "score", "digest"):
        table.add_column(heading, no_wrap=True)
    for name, ticket in tickets.items():
        counts = _counts(ticket)
        about = ticket.about
        table.add_row(
            Text(name, style="cyan"),
            *(f"{counts[part][0]:,} of {counts[part][1]:,}" if part in counts else "–" for part in parts),
            f"{ticket.remaining_percent():.1f}",
            Text(about.kind or "–"),
            Text(about.score or "–"),
            Text(ticket.digest()[:10], style="dim"),
        )
    return table


def picture(ticket: Ticket) -> RenderableType:
    """Every layer of one ticket, and its origin."""
    lines: list[RenderableType] = [Text(ticket.space.describe())]
    if isinstance(ticket.space, StructuredSpace):
        lines.append(Padding(_layers(ticket.space, {"": ticket}, ("green",)), (1, 0)))
    grid = Table.grid(padding=(0, 2))
    for name, value in ticket.about.to_json().items():
        grid.add_row(Text(name.replace("_", " "), style="bold"), Text(_said(value)))
    return Group(*lines, grid)


def difference(one: str, first: Ticket, two: str, second: Ticket) -> RenderableType:
    """What two tickets keep, part by part and layer by layer."""
    both, only_first, only_second = first & second, first - second, second - first
    table = _table("units kept by", *_shown_parts(first))
    for name, ticket in (("both", both), (f"only {one}", only_first), (f"only {two}", only_second)):
        counts = _counts(ticket)
        table.add_row(Text(name), *(f"{counts[part][0]:,}" for part in counts))
    neither = _counts(~(first | second))
    table.add_row(Text("neither"), *(f"{neither[part][0]:,}" for part in neither))
    if not isinstance(first.space, StructuredSpace):
        return table
    parts = {"both": both, f"only {one}": only_first, f"only {two}": only_second}
    layers = _layers(first.space, parts, ("green", "yellow", "magenta"))
    legend = Text.assemble(
        (f"{KEPT} both  ", "green"), (f"1 only {one}  ", "yellow"), (f"2 only {two}  ", "magenta"), f"{GONE} neither"
    )
    return Group(table, Padding(layers, (1, 0)), legend)


def _layers(space: StructuredSpace, tickets: Mapping[str, Ticket], styles: tuple[str, ...]) -> Table:
    """Heads and feed-forward block of each layer. Several tickets are disjoint; each has its own sign and colour."""
    signs = (KEPT, "1", "2")
    table = _table("layer", "heads", "feed-forward", first_left=False)
    for layer in range(space.layers):
        cells = []
        for part in ("heads", "ffn"):
            size = space.heads if part == "heads" else 1
            text = Text()
            for unit in range(size):
                kept = [i for i, t in enumerate(tickets.values()) if np.reshape(t.units[part][layer], -1)[unit]]
                text.append(signs[kept[0]] if kept else GONE, style=styles[kept[0]] if kept else "dim")
            cells.append(text)
        table.add_row(str(layer + 1), *cells)
    return table


def overlap_tables(facts: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    """The tables of :func:`mtl_tickets.tickets.overlap.overlap`, each with its title."""
    names = list(facts["tasks"])
    similar = _table("", *names)
    for one in names:
        cells = (facts["jaccard"][one][two] for two in names)
        similar.add_row(Text(one, style="cyan"), *(Text(f"{v:.2f}", style=_shade(v)) for v in cells))
    result: list[tuple[str, RenderableType]] = [("Jaccard similarity: units kept by both / by either", similar)]

    counts = _table("kept by", *map(str, range(len(names) + 1)))
    for part, numbers in _few(facts["kept_by_count"]).items():
        counts.add_row(Text(part, style="cyan"), *(f"{n:,}" for n in numbers))
    result.append(("units by the number of tickets that keep them", counts))

    parts = _few(facts["layers"])
    depth = max(len(rows) for rows in parts.values())
    agreement = _table("layer", *(f"{part}: {what}" for part in parts for what in ("all keep", "none keeps")))
    for layer in range(depth):
        shares: list[str] = []
        for rows in parts.values():
            shares += [f"{rows[layer][k]:.0%}" for k in ("all", "none")] if layer < len(rows) else ["–", "–"]
        agreement.add_row(str(layer + 1), *shares)
    result.append(("agreement by layer", agreement))

    groups = Text("\n".join(", ".join(group) for group in facts["clusters"]))
    result.append(("groups of similar tickets", groups))
    return result


def _few(parts: Mapping[str, Any], most: int = 12) -> dict[str, Any]:
    """A space of weights has hundreds of matrices; a terminal shows the first."""
    return dict(list(parts.items())[:most])


def _shown_parts(ticket: Ticket) -> list[str]:
    return list(_counts(ticket))


def _counts(ticket: Ticket) -> dict[str, tuple[int, int]]:
    """Units kept of each part; of a space of weights, of all matrices together."""
    counts = ticket.counts()
    if isinstance(ticket.space, StructuredSpace):
        return counts
    return {"weights": (sum(kept for kept, _ in counts.values()), sum(size for _, size in counts.values()))}


def _said(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _shade(value: float) -> str:
    return "dim" if value < 0.5 else "" if value < 0.9 else "bold green"
