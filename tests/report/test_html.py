"""The page: one file that fetches nothing, in which text stays text, and which can be read without seeing it."""

import dataclasses
import html.parser
import itertools
import re
from collections import Counter

import pytest

from mtl_tickets.report.document import Document, Listing, Mark, Paragraph, Said, Section, Table, TableCell, TableRow
from mtl_tickets.report.drawing import PALETTE
from mtl_tickets.report.html import _style, page
from tests.report.conftest import AWKWARD, EMOJI, RTL, SCRIPT

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer"),
    *("h1", "h2", "h3", "p", "ul", "li", "a", "strong", "code", "bdi", "span", "div", "pre", "wbr"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary"),
}
DRAWN = {"svg", "g", "path", "use", "defs", "clippath", "rect", "text", "pattern", "tspan"}
EMPTY = {"meta", "wbr"}


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes and the tags around them, and text with the tags around it."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, dict[str, str]]] = []
        self.tags: list[tuple[str, dict[str, str], list[str]]] = []
        self.texts: list[tuple[str, list[str]]] = []
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), "no attribute stands twice"
        self.tags.append((tag, attributes, [name for name, _ in self.open]))
        if tag not in EMPTY:
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append((data, [name for name, _ in self.open]))

    def all(self, *names: str) -> list[tuple[str, dict[str, str], list[str]]]:
        return [found for found in self.tags if found[0] in names]

    def text(self, *inside: str) -> str:
        """All text in these tags; a place where a name may be broken is no text."""
        return "".join(data for data, around in self.texts if set(inside) <= set(around))


@pytest.fixture(scope="session")
def parsed(html) -> Parsed:
    return Parsed(html)


def test_what_people_wrote_is_text_in_an_isolate_and_nothing_else(parsed):
    assert {tag for tag, _, _ in parsed.tags} <= TAGS | DRAWN
    isolated, outside = (
        parsed.text("bdi"),
        "".join(data for data, around in parsed.texts if not {"bdi", "title", "style"} & set(around)),
    )
    for text in AWKWARD:
        assert text in isolated
        assert text not in outside
    # the description, a label, a task's description, a ticket's origin, the device and the configuration
    assert isolated.count(SCRIPT) >= 6
    assert EMOJI in parsed.text("title") and EMOJI in parsed.text("h1", "bdi")
    assert RTL in parsed.text("pre", "bdi") or "\\u202E" in parsed.text("pre", "bdi")


def test_nothing_is_fetched_or_run(parsed, html):
    assert not {"script", "link", "iframe", "object", "embed", "form", "img", "base"} & {
        tag for tag, _, _ in parsed.tags
    }
    for tag, attributes, _ in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href", "action"):
            assert attributes.get(name, "#").startswith("#")
        assert not re.search(r"url\((?!#)", " ".join(attributes.values()))
    assert not re.search(r"@import|url\(", parsed.text("style"))
    (policy,) = (a["content"] for _, a, _ in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "script" not in policy
    assert "javascript:" not in html


def test_the_page_has_a_language_a_title_and_ordered_headings(parsed):
    assert parsed.all("html")[0][1] == {"lang": "en"}
    assert parsed.text("title").strip()
    levels = [int(tag[1]) for tag, _, _ in parsed.all("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_links_lead_somewhere_and_names_are_unique(parsed):
    names = Counter(attributes["id"] for _, attributes, _ in parsed.tags if "id" in attributes)
    assert set(names.values()) == {1}
    targets = [attributes["href"][1:] for _, attributes, _ in parsed.all("a", "use")]
    targets += [attributes["aria-labelledby"] for _, attributes, _ in parsed.all("section")]
    assert set(targets) <= set(names)
    skip, *links = parsed.all("a")
    assert skip[1]["href"] == "#main" and "header" not in skip[2]
    assert [link[1]["href"][1:] for link in links] == [a["id"] for _, a, _ in parsed.all("h2")]
    assert all("nav" in around for _, _, around in links)


def test_every_picture_says_what_there_is_to_see(parsed):
    pictures = parsed.all("svg")
    assert len(pictures) > 10
    for _, attributes, around in pictures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"].split()) > 5
        assert "figure" in around
    assert len(parsed.all("figcaption")) == len(parsed.all("figure")) == len(pictures)


def test_every_table_has_a_caption_and_heads_of_rows_and_columns(parsed, html):
    tables = re.findall(r"<table>.*?</table>", html, re.S)
    assert len(tables) > 8
    for text in tables:
        table = Parsed(text)
        assert table.text("caption").strip()
        heads = table.all("th")
        columns = [a for _, a, around in heads if "thead" in around]
        assert all(a["scope"] == "col" for a in columns)
        assert all(a["scope"] == "row" for _, a, around in heads if "tbody" in around)
        rows = re.findall(r"<tr.*?</tr>", text, re.S)
        assert len(rows) > 1
        assert all(len(re.findall(r"<t[dh]\b", row)) == len(columns) for row in rows)


def test_what_is_wide_is_scrolled_by_itself_and_by_keyboard(parsed):
    for tag, _, around in parsed.all("table", "pre"):
        assert "div" in around, tag
    scrolled = [a for _, a, _ in parsed.all("div") if a.get("class") == "scroll"]
    assert all((a["tabindex"], a["role"]) == ("0", "region") and a["aria-label"] for a in scrolled)
    assert len(scrolled) >= len(parsed.all("table", "pre"))


def test_numbers_of_the_tables_are_those_of_the_data(parsed, data):
    shown = parsed.text("td")
    for cells in data.scores.lines.values():
        assert all(str(cell).replace(" ± ", " ± ") in shown for cell in cells)


def test_the_best_of_a_line_is_marked_by_a_sign_and_a_word(html):
    best = re.findall(r'<td class="best">(.*?)</td>', html)
    assert best
    assert all("★" in cell and ">best<" in cell for cell in best)


def test_verdicts_are_words_and_signs(parsed, data):
    said = parsed.text("li")
    for judgement in data.judgements:
        for item in judgement.average:
            assert item.sentence.removeprefix("not shown: ") in said
            assert item.outcome in said


def test_characters_that_no_page_may_hold_are_replaced():
    odd = "a\x00b\x1b[31mc\ud800d\x85e\tf"
    table = Table(Said(odd), ("h",), (TableRow(odd, (TableCell(odd),)),))
    blocks = (Paragraph(Said(odd)), table, Listing(odd, odd), Paragraph(Mark("worse")))
    text = page(Document(Said(odd), (), (Section("s", odd, blocks),)))
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "a\ufffdb\ufffd[31mc\ufffdd\ufffde" in text


def test_equal_documents_give_equal_pages(made, html):
    assert page(dataclasses.replace(made)) == html


# -- colours -----------------------------------------------------------------------------------------------------------


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", _style(), re.S)
    return {"light": variables(light), "dark": variables(dark)}


def contrast(one: str, two: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_drawings_have_the_colours_of_the_light_page_and_a_dark_one_for_each():
    found = themes()
    assert {name: found["light"][name] for name in PALETTE} == PALETTE
    assert set(found["light"]) == set(found["dark"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out(theme):
    colors = themes()[theme]
    for ground in ("paper", "raised", "note"):
        assert contrast(colors["ink"], colors[ground]) >= 7
    for text in ("muted", "link", "good", "bad"):
        assert contrast(colors[text], colors["paper"]) >= 4.5, text
    for name in colors:
        if name.startswith("series-"):
            assert contrast(colors[name], colors["paper"]) >= 4.5, name
