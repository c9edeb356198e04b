"""A base, and a model whose weights do what the base's gates do."""

import torch

from mtl_tickets.model.anatomy import anatomy_of, layers_of
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket


def two_heads_and_a_block_less(space: StructuredSpace) -> Ticket:
    """Where neurons are units, without some of them, too."""
    units = {part: kept.copy() for part, kept in Ticket.dense(space).units.items()}
    units["heads"][[0, 1], [1, 3]] = False
    units["ffn"][0] = False
    if "neurons" in units:
        units["neurons"][1, ::5] = False
    return Ticket(space, units)


@torch.no_grad()
def silence(model: MultiTaskModel, ticket: Ticket) -> None:
    """Makes what the dropped units add 0 by the weights behind them."""
    anatomy = anatomy_of(model.encoder)
    for number, layer in enumerate(layers_of(model.encoder)):
        output, outward = anatomy.find(layer, "attention_output"), anatomy.find(layer, "ffn_out")
        kept = torch.tensor(ticket.units["heads"][number])
        output.weight *= kept.repeat_interleave(output.in_features // len(kept))
        if "neurons" in ticket.units:
            outward.weight *= torch.tensor(ticket.units["neurons"][number])
        if not ticket.units["ffn"][number]:
            outward.weight.zero_()
            outward.bias.zero_()
