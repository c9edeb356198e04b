"""Tickets on a terminal."""

import io

import numpy as np
from rich.console import Console

from mtl_tickets.report.ticket_tables import difference, overlap_tables, picture, ticket_list
from mtl_tickets.tickets.overlap import overlap
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket

SPACE = StructuredSpace.of(layers=2, heads=3, hidden=12, intermediate=24, total=10_000)


def ticket(heads: list[list[int]], ffn: list[int]) -> Ticket:
    return Ticket(SPACE, {"heads": np.array(heads, dtype=bool), "ffn": np.array(ffn, dtype=bool)})


ONE = ticket([[1, 1, 0], [1, 0, 0]], [1, 0])
TWO = ticket([[1, 0, 1], [1, 0, 0]], [1, 1])


def shown(thing: object) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(thing)
    return console.file.getvalue()


def test_the_list_counts_units_and_parameters():
    text = shown(ticket_list({"rte": ONE}))
    assert "3 of 6" in text
    assert "1 of 2" in text
    assert f"{ONE.remaining_percent():.1f}" in text


def test_a_picture_shows_each_unit_of_each_layer():
    lines = [line.split() for line in shown(picture(ONE)).splitlines()]
    assert ["1", "■■·", "■"] in lines
    assert ["2", "■··", "·"] in lines


def test_a_difference_tells_the_two_tickets_apart_unit_by_unit():
    text = shown(difference("a", ONE, "b", TWO))
    lines = [line.split() for line in text.splitlines()]
    assert ["1", "■12", "■"] in lines
    assert ["2", "■··", "2"] in lines
    assert ["neither", "2", "0"] in lines


def test_overlap_has_a_line_for_each_task_and_layer():
    tables = dict(overlap_tables(overlap({"a": ONE, "b": TWO})))
    assert len(tables) == 4
    assert f"{ONE.jaccard(TWO):.2f}" in shown(tables["Jaccard similarity: units kept by both / by either"])
    assert ["1", "33%", "0%", "100%", "0%"] in [
        line.split() for line in shown(tables["agreement by layer"]).splitlines()
    ]


def test_weights_are_counted_together():
    space = WeightSpace({"w": (2, 2), "v": (4,)})
    full = Ticket.dense(space)
    less = Ticket(space, {"w": np.eye(2, dtype=bool), "v": np.ones(4, dtype=bool)})
    assert "6 of 8" in shown(ticket_list({"x": less}))
    assert ["only", "full", "2"] in [
        line.split() for line in shown(difference("full", full, "less", less)).splitlines()
    ]
