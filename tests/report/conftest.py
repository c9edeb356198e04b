"""One made-up experiment with awkward text in every place where text comes from people, and its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_tickets.report.content import document
from mtl_tickets.report.data import ReportData
from mtl_tickets.report.document import Document
from mtl_tickets.report.gather import gather
from mtl_tickets.report.html import page
from tests.report.made import TASKS, World

SCRIPT = "<script>alert(1)</script>"
QUOTES = "\"'><img src=x onerror=alert(1)> & `|*_[a](http://example.org)"
RTL = "\u202eשלום \u200fabc"
EMOJI = "🧪👩‍👩‍👧"
AWKWARD = (SCRIPT, QUOTES, RTL, EMOJI)


@pytest.fixture(scope="session")
def awkward(tmp_path_factory) -> Path:
    """An experiment folder of two finished seeds."""
    folder = tmp_path_factory.mktemp("report") / f"made-{EMOJI}<b>"
    encoder = {"name": f"enc{SCRIPT}{RTL}"}
    world = World(folder, TASKS[:2], extra=["hard"], description=" ".join(AWKWARD), encoder=encoder, rows=50)
    world.note = f"note {SCRIPT} {QUOTES} {RTL} {EMOJI}"
    world.device = {"kind": "cpu", "name": f"chip {SCRIPT} {RTL}", "threads": 1}
    for spec in world.specs.values():
        spec |= {"description": f"task {SCRIPT} {RTL}", "labels": [f"no {SCRIPT}", f"{QUOTES}", RTL, EMOJI]}
    world.write(1)
    world.write(2)
    return folder


@pytest.fixture(scope="session")
def data(awkward) -> ReportData:
    return gather(awkward)


@pytest.fixture(scope="session")
def made(data) -> Document:
    return document(data)


@pytest.fixture(scope="session")
def html(made) -> str:
    return page(made)
