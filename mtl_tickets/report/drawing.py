"""Drawings: painted once with matplotlib, kept as SVG and PNG files, and as SVG that follows a page's colours.

The palette below is that of a light page. In a page every colour of it becomes a CSS variable of the same name (see
``page.css``), so that one drawing serves light, dark and print. The files keep the plain colours, which every program
understands. Equal input gives equal bytes: no dates, no random names.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_tickets.files import digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "line": "#d0d7de",
    "series-1": "#0b5fad",
    "series-2": "#b04a00",
    "series-3": "#1a7f37",
    "series-4": "#8250df",
    "series-5": "#b3261e",
    "series-6": "#0a7285",
    "series-7": "#7a5a00",
    "series-8": "#a8336f",
}
"""Name of the CSS variable -> colour on a light page."""

PAPER, INK, MUTED, LINE = (PALETTE[name] for name in ("paper", "ink", "muted", "line"))
SERIES = [color for name, color in PALETTE.items() if name.startswith("series-")]
# lines are told apart without colour too
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
    "svg.hashsalt": "mtl_tickets",
    "text.parse_math": False,  # a name with $ in it is a name
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}
FONTS = "system-ui, sans-serif"


@dataclass(frozen=True)
class Drawing:
    """``svg`` is a whole file; ``width`` is in points. The name is that of the files, without their ends."""

    name: str
    svg: str
    png: bytes
    width: float


def draw(name: str, width: float, height: float, paint: Callable[[Figure], None]) -> Drawing:
    """A drawing of a size in inches. What the user's matplotlib settings say is left aside."""
    with _quiet():
        return _drawn(name, width, height, paint)


def _drawn(name: str, width: float, height: float, paint: Callable[[Figure], None]) -> Drawing:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine("none")  # found once is enough for both files
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    return Drawing(name, _tidied(svg.getvalue()), png.getvalue(), 72 * width)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what matplotlib has to say of fonts: the reader's may have a sign that this machine's have not."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        logger.setLevel(level)


def slug(text: str) -> str:
    """A text as a part of a file's name; different texts give different names."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    return plain if plain == text else f"{plain[:40]}-{digest(text, 6)}"


def inline(svg: str, prefix: str) -> str:
    """The ``<svg>`` element of a drawing for a page: colours are variables, names are unique through ``prefix``, there
    is no style of its own. Without an accessible name: that is for who puts it into the page."""
    svg = re.sub(r"<style\b.*?</style>", "", svg[svg.index("<svg") :].strip(), flags=re.S)

    def change(tag: str) -> str:
        if tag.startswith("<svg"):
            return "<svg " + re.findall(r'viewBox="[^"]*"', tag)[0] + ">"
        tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", tag).replace("xlink:href", "href")
        for name, color in PALETTE.items():
            tag = tag.replace(f": {color}", f": var(--{name})")
        return re.sub(r"'[^\"]*sans-serif|\bsans-serif", FONTS, tag)

    return _in_tags(svg, change)


def _tidied(svg: str) -> str:
    """Smaller, and the same to look at: no metadata, only names that are used, and two decimals."""
    svg = re.sub(r"\s*(?:<metadata>.*?</metadata>|<!--.*?-->)", "", svg, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    def change(tag: str) -> str:
        tag = re.sub(r'\s+id="([^"]+)"', lambda found: found[0] if found[1] in used else "", tag)
        return re.sub(r' (?:d|transform|x|y|points)="[^"]*"', lambda found: _short(found[0]), tag)

    return re.sub(r"\n\s*", "\n", re.sub(r"<g>\s*</g>", "", _in_tags(svg, change)))


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """What people wrote stands between tags and stays as it is."""
    return re.sub(r"<[^>]*>", lambda found: change(found[0]), svg)


def _short(attribute: str) -> str:
    return re.sub(r"(\.\d{2})\d+", r"\1", attribute)
