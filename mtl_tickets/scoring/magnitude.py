"""How large a unit's weights are: the L2 norm of what its removal would take away, of a single weight its absolute
value. Looks at no data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mtl_tickets.model.anatomy import Anatomy, anatomy_of, layers_of
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.weight_masks import weights_in
from mtl_tickets.scoring.engine import SCORES, WeightScore
from mtl_tickets.tickets.scores import ScoreOrigin, Scores
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace, require_equal
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.accumulation import accumulation_device


@torch.no_grad()
def _magnitude(model: MultiTaskModel, space: StructuredSpace, seed: int) -> dict[str, np.ndarray]:
    anatomy = anatomy_of(model.encoder)
    values: dict[str, list[np.ndarray]] = {part: [] for part in space.parts}
    for layer in layers_of(model.encoder):
        squares = _weight(anatomy, layer, "attention_output").square().sum(0)
        for place in ("query", "key", "value"):
            squares = squares + _weight(anatomy, layer, place).square().sum(1)
        values["heads"].append(squares.reshape(space.parts["heads"][1], -1).sum(1).sqrt().cpu().numpy())
        neurons = _weight(anatomy, layer, "ffn_in").square().sum(1)
        neurons = neurons + _weight(anatomy, layer, "ffn_out").square().sum(0)
        values["ffn"].append(neurons.sum().sqrt().cpu().numpy())
        if "neurons" in values:
            values["neurons"].append(neurons.sqrt().cpu().numpy())
    return {part: np.stack(layers) for part, layers in values.items()}


def weight_magnitudes(
    encoder: nn.Module, space: WeightSpace, base: Ticket | None = None, otherwise: nn.Module | None = None
) -> Scores:
    """The absolute value of every single weight; matrices that ``encoder`` has not are those of ``otherwise``.

    What ``base`` has dropped scores -1, below all others: a draw on these scores takes it away again before anything
    else.
    """
    values = {name: np.abs(weight) for name, weight in weights_in(encoder, space, otherwise).items()}
    if base is not None:
        require_equal(space, base.space, "a base and what is pruned further")
        values = {name: np.where(base.units[name], value, -1.0) for name, value in values.items()}
    return Scores(space, values, ScoreOrigin(score="magnitude"))


def _weight(anatomy: Anatomy, layer: nn.Module, place: str) -> torch.Tensor:
    module = anatomy.find(layer, place)
    assert isinstance(module, nn.Linear), f"scores are taken on a whole encoder, and this one has no {place}"
    return module.weight.to(accumulation_device(module.weight.device)).double()


def _random(model: MultiTaskModel, space: StructuredSpace, seed: int) -> dict[str, np.ndarray]:
    return dict(Scores.random(space, seed).values)


magnitude = SCORES.register("magnitude")(
    WeightScore(compute=_magnitude, __doc__="L2 norm of the unit's weights; looks at no data")
)
random = SCORES.register("random")(WeightScore(compute=_random, __doc__="uniform random numbers, the control"))
