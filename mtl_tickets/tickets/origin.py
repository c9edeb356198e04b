"""Origins: what a stored value says about where it comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeVar

import pydantic
import pydantic.dataclasses

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.storage import Stored

STRICT = pydantic.ConfigDict(extra="forbid")
"""Origins come from files too: pydantic checks their fields, and what is unknown is refused rather than lost."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Origin:
    """Where a value comes from. Every field is optional; what is not known is not written. No part of equality."""

    task: str | None = None
    score: str | None = None
    """Name of the score."""
    seed: int | None = None
    encoder: str | None = None
    weight_hash: str | None = None
    """Hash of the encoder weights the scores were computed on."""
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


AnyOrigin = TypeVar("AnyOrigin", bound=Origin)


def read_origin(stored: Stored, kind: type[AnyOrigin]) -> AnyOrigin:
    """The origin in a file; :class:`TicketError` where it has unknown fields or wrong types."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(stored.origin)
    except pydantic.ValidationError as error:
        raise TicketError(
            Problem(
                found["msg"].lower(), str(stored.file), ".".join(["origin", *map(str, found["loc"])]), found["input"]
            )
            for found in error.errors()
        ) from None
