"""What all commands share: two consoles, errors as lines on stderr, exit statuses.

Text that comes from files or users reaches rich as :class:`~rich.text.Text`, never as markup: ``[/red]`` in a sentence
must stay what it is.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from mtl_tickets.errors import InputError, MtlTicketsError

BAD_INPUT = 2
INTERRUPTED = 130
# no room is left: on the disk, or of what this user may have
FULL = (errno.ENOSPC, errno.EDQUOT)
# commands that go on where they were stopped if they are told so
RESUMED = (["run"], ["pretrain"])


def out() -> Console:
    """Where results go. Made anew each time: tests and pipes exchange ``sys.stdout``."""
    return Console(highlight=False, quiet=not speaks())


def speaks() -> bool:
    """Whether this process says and writes what comes of a command: of several that train together, one. RANK is set
    by their launcher."""
    return _rank() == "0"


def _rank() -> str:
    return os.environ.get("RANK", "0")


def err() -> Console:
    return Console(stderr=True, highlight=False)


class SafeGroup(TyperGroup):
    """Turns what a command raises into lines on stderr and an exit status; ``--debug`` shows the traceback as well.

    Only what this package raises on purpose, and the operating system's refusals (a full disk, no permission), are
    answered this way. Anything else is a mistake of ours and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # the reader (head, less) has gone: nothing to say, and nobody to say it to
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (closed by the interpreter)
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            err().print(Text(interrupted()), soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except (MtlTicketsError, OSError) as error:
            if debug():
                traceback.print_exc()
            print_errors(error)
            raise typer.Exit(BAD_INPUT) from None


def print_errors(error: Exception) -> None:
    """Every problem on a line of its own."""
    lines = [str(problem) for problem in error.problems] if isinstance(error, InputError) else [str(error)]
    if isinstance(error, OSError) and error.errno in FULL:
        lines[-1] += "; what is done is kept: make room and start the same command again"
        lines[-1] += ", with --resume" if sys.argv[1:2] in RESUMED else ""
    console = err()
    label = "error: " if speaks() else f"error in process {_rank()}: "
    for line in lines:
        console.print(Text.assemble((label, "bold red"), visible(line)), soft_wrap=True)


def visible(text: str) -> str:
    """Text on one line, control characters (which could steer the terminal) shown as escapes."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split()))


def interrupted() -> str:
    """What to say when a command was interrupted."""
    if sys.argv[1:2] in RESUMED:
        return f"interrupted; what is done is kept, go on with: {same_command_resumed()}"
    return "interrupted"


def same_command_resumed() -> str:
    """The command line that goes on where this one stops: without --restart and --to, with --resume."""
    kept: list[str] = []
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--to":
            next(arguments, None)
        elif argument not in ("--restart", "--resume") and not argument.startswith("--to="):
            kept.append(argument)
    return f"mtl-tickets {shlex.join([*kept, '--resume'])}"


def debug() -> bool:
    return "--debug" in sys.argv[1:]


def size_of(count: int, word: str) -> str:
    """``1 seed``, ``2 seeds``"""
    return f"{count:,} {word}" + ("" if count == 1 else "s")
