"""The command line: thin, and quick to start. Floor 6.

Each command imports what it needs when it is called, so that ``--help`` and errors in the arguments answer at once and
without torch.
"""

from __future__ import annotations

from mtl_tickets.cli.entry import app, main

__all__ = ["app", "main"]
