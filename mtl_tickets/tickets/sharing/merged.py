"""Rules that merge tickets in part of the network or of the tasks: layerwise and cluster."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pydantic

from mtl_tickets.errors import Problem, TicketError
from mtl_tickets.tickets.overlap import clusters
from mtl_tickets.tickets.sharing import RULES
from mtl_tickets.tickets.sharing.operator import Poll, Tally, TicketVote
from mtl_tickets.tickets.space import StructuredSpace, Units


class Merging(TicketVote):
    """Tickets that are merged by union, majority or intersection."""

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

    def keep(self, task: str, tally: Tally, voters: int, poll: Poll) -> Units:
        space = poll.space
        if not isinstance(space, StructuredSpace):
            raise TicketError(Problem("layerwise sharing needs units in layers", found=space.describe()))
        shared = np.arange(space.layers) < round(self.depth * space.layers)
        merged, own = super().keep(task, tally, voters, poll), poll.tickets[task].units
        return {
            part: np.where(shared.reshape(-1, *[1] * (own[part].ndim - 1)), merged[part], own[part]) for part in own
        }


@RULES.register("cluster")
class Cluster(Merging):
    """Tasks with similar tickets form groups; each group shares one merged ticket."""

    kind: Literal["cluster"] = "cluster"
    similarity: float = pydantic.Field(
        0.8, ge=0, le=1, description="groups are joined while their tickets' mean Jaccard similarity is at least this"
    )

    def weights(self, task: str, poll: Poll) -> dict[str, float]:
        group = next(group for group in clusters(poll.tickets, self.similarity) if task in group)
        return dict.fromkeys(group, 1.0)
