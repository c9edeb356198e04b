"""Who shows how far long work is. Floor 0: a protocol and the one that shows nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """``work`` counts optimiser steps. ``begin`` may come more than once: an encoder is built before a run begins."""

    def begin(self, run: str, work: int) -> None: ...

    def stage(self, name: str) -> None: ...

    def advance(self, work: int) -> None: ...

    def say(self, text: str) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, run: str, work: int) -> None: ...

    def stage(self, name: str) -> None: ...

    def advance(self, work: int) -> None: ...

    def say(self, text: str) -> None: ...
