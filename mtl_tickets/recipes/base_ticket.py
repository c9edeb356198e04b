"""A base: a ticket, found for no task in particular, that the tickets of all tasks of a run live inside.

Of heads, feed-forward blocks and, where it has them, neurons: no task keeps a unit that the base drops. Or of single
weights: the tasks' tickets are found as ever, on an encoder that every training sees through the base.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import PretrainedConfig

from mtl_tickets.errors import Problem, TicketError, nearest, problems_of
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.tickets import storage
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket


def read_base(path: str | Path) -> Ticket:
    """The ticket in the file, whatever the encoder.

    Raises :class:`TicketError` where there is no file, it holds no whole ticket, or one that leaves a layer without a
    head.
    """
    ticket, file = Ticket.load(path), str(storage.file_of(path))
    if isinstance(ticket.space, StructuredSpace):
        headless = np.flatnonzero(~ticket.units["heads"].any(axis=1)).tolist()
        if headless:
            rule = "a base must keep a head in every layer"
            raise TicketError(Problem(rule, file, "heads", f"none in layers {', '.join(map(str, headless))}"))
    return ticket


def fitting_base(path: str | Path, config: PretrainedConfig, weight_hash: str | None = None) -> Ticket:
    """The base in the file, for an encoder of this configuration and, where given, with weights of this hash.

    Raises :class:`TicketError` also where it is of another encoder, with everything that differs. A base of single
    weights may leave matrices of the encoder alone.
    """
    ticket = read_base(path)
    with problems_of(str(storage.file_of(path))):
        if isinstance(ticket.space, WeightSpace):
            _check_matrices(ticket.space, weight_space_of(config, embeddings=True, pooler=True))
        elif isinstance(ticket.space, StructuredSpace):
            space = space_of(config, neurons=ticket.space.neurons > 0)
            require_equal(space, ticket.space, "the encoder and the base")
    return Ticket.load(path, weight_hash=weight_hash)


def _check_matrices(space: WeightSpace, known: WeightSpace) -> None:
    problems = []
    for name, shape in space.matrices.items():
        if name not in known.matrices:
            hint = nearest(name, list(known.matrices))
            problems.append(Problem("the encoder has no such matrix", place="space.matrices", found=name, hint=hint))
        elif known.matrices[name] != shape:
            rule = f"must have the shape {list(known.matrices[name])}, as in the encoder"
            problems.append(Problem(rule, place=f"space.matrices.{name}", found=list(shape)))
    if len(problems) > 20:
        more = Problem(f"and {len(problems) - 20} more matrices that do not fit", place="space.matrices")
        problems = [*problems[:20], more]
    if problems:
        raise TicketError(problems)
