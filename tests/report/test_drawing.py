"""Drawings: the same bytes from the same values, text that stays text, colours that a page decides."""

import re

import pytest

from mtl_tickets.report import figures
from mtl_tickets.report.drawing import DASHES, MARKERS, PALETTE, SERIES, draw, inline, slug
from tests.report.conftest import AWKWARD, QUOTES


def awkward_axes(figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=SERIES[0], marker="o", label="$x_1$ < & >")
    for y, text in enumerate([*AWKWARD, 'id="m1" fill: #ffffff 1.23456']):
        axes.text(0, y / 5, text)
    axes.legend()


@pytest.fixture(scope="module")
def drawing():
    return draw("one", 5, 4, awkward_axes)


def test_equal_input_gives_equal_bytes_and_no_dates(drawing):
    assert draw("one", 5, 4, awkward_axes) == drawing
    assert not re.search(r"20\d\d-\d\d|metadata", drawing.svg)


def test_text_stays_text_and_nothing_of_it_becomes_markup(drawing):
    shown = inline(drawing.svg, "p")
    for svg in (drawing.svg, shown):
        assert "<script" not in svg and "<img" not in svg
        assert "$x_1$ &lt; &amp; &gt;" in svg
        assert 'id="m1" fill: #ffffff 1.23456' in svg
        for text in AWKWARD:
            assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg
    assert QUOTES in shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def test_in_a_page_colours_are_variables_and_names_are_its_own(drawing):
    shown = inline(drawing.svg, "p")
    tags = "".join(re.findall(r"<[^>]*>", shown))
    assert not re.search(r"#[0-9a-f]{6}", tags)
    assert set(re.findall(r"var\(--([\w-]+)\)", tags)) <= set(PALETTE)
    names = re.findall(r'\bid="([^"]+)"', tags)
    assert names and len(set(names)) == len(names)
    assert all(name.startswith("p-") for name in names)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', tags)) == set(names)
    assert "<style" not in shown and "xlink" not in shown


def test_files_need_no_page(drawing):
    assert drawing.svg.startswith("<?xml")
    assert "var(" not in drawing.svg
    assert drawing.png.startswith(b"\x89PNG")


def test_settings_of_the_user_change_nothing(drawing):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw("one", 5, 4, awkward_axes) == drawing


def test_names_of_files_are_safe_and_differ_where_the_texts_do():
    texts = ["rte", "a/b", "a b", "../x", "…", "-", "ab" * 80]
    assert slug("rte") == "rte"
    assert len({slug(text) for text in texts}) == len(texts)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", slug(text)) for text in texts)


def test_lines_differ_without_colour():
    assert len({(DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]) for i in range(24)}) == 24
    assert len({kind[1] for kind in figures.KINDS.values()}) == len({kind[2] for kind in figures.KINDS.values()}) == 3
