"""The report in Markdown: the same words, nothing of which becomes markup."""

import re

from mtl_tickets.report.document import (
    Bullets,
    Code,
    Document,
    Listing,
    Paragraph,
    Said,
    Section,
    Table,
    TableCell,
    TableRow,
)
from mtl_tickets.report.markdown import END, ISOLATE, markdown
from tests.report.conftest import EMOJI, QUOTES, RTL, SCRIPT


def shown(*blocks) -> str:
    return markdown(Document("title", (), (Section("s", "section", blocks),)))


def test_text_is_escaped_wherever_it_stands():
    table = Table(Said(QUOTES), (Said(QUOTES), "n"), (TableRow(Said(SCRIPT), (TableCell(Said(QUOTES)),)),))
    text = shown(Paragraph(Said(SCRIPT)), Bullets((Said("# a\n- b"),)), table)
    assert "<script>" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)[<>`]", text)
    assert "](http" not in text.replace("\\](", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_right_to_left_text_and_emoji_survive_in_an_isolate():
    assert f"{ISOLATE}{RTL}{END} after" in shown(Paragraph((Said(RTL), " after")))
    assert EMOJI in shown(Paragraph(Said(EMOJI)))
    assert ISOLATE not in shown(Paragraph(Said("plain")))


def test_no_listing_can_end_itself():
    text = shown(Listing("a: |\n```\n````\n<b>", "config"))
    fence = re.findall(r"^(`{3,})text$", text, re.M)
    assert fence == ["`````"]
    assert text.rstrip().endswith("`````")


def test_code_may_hold_ticks():
    assert "`` a`b ``" in shown(Paragraph(Code("a`b")))


def test_it_says_what_the_page_says(made, data):
    text = markdown(made)
    for section in made.sections:
        assert f"\n## {section.title}\n" in text
    for cells in data.scores.lines.values():
        assert all(str(cell) in text for cell in cells)
    assert re.findall(r"^# ", text, re.M) == ["# "]
    # every line of a table has the columns of its head
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
