"""The few exception types users see. Floor 0: imports nothing of the package.

Everything a user can get wrong ends in an :class:`InputError` (or a subclass), which the command line prints without
a traceback and answers with exit status 2. An error carries *all* problems found, not only the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what a user gave us.

    ``file`` is the file (or argument) it was found in, ``place`` the key path or line inside it, ``rule`` what must
    hold, ``found`` the value that breaks the rule, ``hint`` what to write instead (usually the nearest valid name).
    """

    rule: str
    file: str = ""
    place: str = ""
    found: object = None
    hint: str = ""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.place) if part)
        text = f"{where}: {self.rule}" if where else self.rule
        if self.found is not None:
            text += f"; found {shorten(self.found)}"
        if self.hint:
            text += f"; {self.hint}"
        return text


class MtlTicketsError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(MtlTicketsError):
    """Something given to us breaks a rule. ``problems`` lists everything that was found."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems: list[Problem] = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Problem]]]:
        return type(self), (self.problems,)  # errors cross process boundaries: studies, data workers


@contextmanager
def problems_of(file: str) -> Iterator[None]:
    """Problems that name no file are of this one."""
    try:
        yield
    except InputError as error:
        raise type(error)([replace(problem, file=problem.file or file) for problem in error.problems]) from None


class ConfigError(InputError):
    """An experiment, task or study file (or a ``--set``) breaks a rule."""


class DataError(InputError):
    """A data file is missing, unreadable, or has a row that breaks a rule."""


class TicketError(InputError):
    """A ticket or score file does not fit: format version, unit space, encoder or content."""


class CheckpointError(InputError):
    """A model directory, checkpoint or run directory cannot be used as it is."""


class UnsupportedEncoder(InputError):
    """The encoder's architecture is not in the table of :mod:`mtl_tickets.model.anatomy`."""


def shorten(value: object, limit: int = 120) -> str:
    """``repr`` of a value, cut in the middle so that an error stays one readable line."""
    text = repr(value)
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def nearest(name: object, valid: Sequence[str]) -> str:
    """A hint for an unknown name: the closest valid ones, or the full list where nothing is close.

    Case is ignored: ``mrcp`` and ``Mrpc`` both find ``mrpc``.
    """
    if not valid:
        return ""
    by_lower = {v.lower(): v for v in valid}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(by_lower[c]) for c in close) + "?"
    return "choose from " + ", ".join(sorted(valid))
