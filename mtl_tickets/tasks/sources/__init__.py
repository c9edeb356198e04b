"""Where rows come from: the kinds of source, and the one way to read them.

A new kind is one file in this folder: a :class:`Source` with a ``tables`` method, entered with
``@SOURCES.register("kind")``. Task files then say ``kind: that-kind``.
"""

from mtl_tickets.tasks.sources.base import SOURCES, ColumnSource, DataSettings, Findings, Place, Source, Table
from mtl_tickets.tasks.sources.loose import read_file
from mtl_tickets.tasks.sources.rows import Rows, read_rows

__all__ = [
    "SOURCES",
    "ColumnSource",
    "DataSettings",
    "Findings",
    "Place",
    "Rows",
    "Source",
    "Table",
    "read_file",
    "read_rows",
]
