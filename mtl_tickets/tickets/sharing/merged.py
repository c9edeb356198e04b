"""Rules that merge tickets in part of the network or of the tasks: layerwise and cluster."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pydantic

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.settings import InvalidSetting
from mtl_tickets.tickets.linkage import cut
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, SizedVote
from mtl_tickets.tickets.space import StructuredSpace, Units


class Merging(SizedVote):
    """Tickets that are merged by union, majority or intersection."""

    thresholds: ClassVar = ("merge",)
    merge: Literal["union", "majority", "intersection"] = pydantic.Field(
        "union", description="what the merged ticket keeps: what any, more than half, or all of its tasks keep"
    )

    def needed(self, voters: int) -> int:
        return {"union": 1, "majority": voters // 2 + 1, "intersection": voters}[self.merge]


@RULES.register("layerwise")
class Layerwise(Merging):
    """Lower layers share one merged ticket; above the depth every task keeps its own."""

    kind: Literal["layerwise"] = "layerwise"
    depth: float = pydantic.Field(0.5, ge=0, le=1, description="fraction of the layers, from below, that is shared")

    def ballot(self, task: str, voter: str, poll: Poll) -> Units:
        """The voter's ticket below the depth; above it everybody votes for what ``task`` keeps."""
        space = poll.space
        if not isinstance(space, StructuredSpace):
            raise TicketError(Problem("layerwise sharing needs units in layers", found=space.describe()))
        shared = np.arange(space.layers) < round(self.depth * space.layers)
        theirs, own = poll.tickets[voter].units, poll.tickets[task].units
        return {
            part: np.where(shared.reshape(-1, *[1] * (own[part].ndim - 1)), theirs[part], own[part]) for part in own
        }


@RULES.register("cluster")
class Cluster(Merging):
    """Tasks with similar tickets form groups; each group shares one merged ticket."""

    kind: Literal["cluster"] = "cluster"
    similarity: float = pydantic.Field(
        0.8, ge=0, le=1, description="groups are joined while their tickets' mean Jaccard similarity is at least this"
    )
    groups: pydantic.PositiveInt | None = pydantic.Field(
        None, description="join groups until there are this many; instead of similarity"
    )

    @pydantic.model_validator(mode="after")
    def _one_of_the_two(self) -> Cluster:
        # the default may stand beside groups: resolved settings write every field
        if self.groups is not None and self.similarity != type(self).model_fields["similarity"].default:
            rule = "only without groups, which says how many groups there are"
            raise InvalidSetting(Problem(rule, place="similarity", found=self.similarity, hint="leave out one of them"))
        return self

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        similarity = self.similarity if self.groups is None else None
        found = cut(poll.tasks, poll.merges, similarity=similarity, groups=self.groups)
        return dict.fromkeys(next(group for group in found if task in group), 1.0)
