"""What is dropped while a network is trained: exact, growing, and gone for good after every step."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mtl_tickets.errors import TicketError
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.scoring.engine import SCORES, ScoreSettings, score_tasks
from mtl_tickets.scoring.magnitude import weight_magnitudes
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings, make_optimiser
from mtl_tickets.training.pruning import PrunedUnits, PrunedWeights
from tests import tiny

COURSE = (0.1, 0.3, 0.55, 2 / 3)


def weights_of(model=None, **options):
    model = model or tiny.model({"a": 2})
    space = weight_space_of(model.config, pooler=False)
    return model, PrunedWeights(model.encoder, space, **options)


def batch():
    return next(TaskBatches({"a": tiny.random_task(16)}, BatchSettings(size=16), 0, 0).iterate(0))


def stepped(model, optimiser, times=1):
    for _ in range(times):
        task_loss(model, batch()).backward()
        optimiser.step()
        optimiser.zero_grad()


def test_every_update_is_the_per_matrix_draw_inside_the_last():
    model, pruned = weights_of()
    optimiser = make_optimiser(model, OptimiserSettings(lr=0.02))
    before = pruned.ticket()
    assert before == before | ~before  # nothing is dropped yet
    for sparsity in COURSE:
        stepped(model, optimiser, 2)
        pruned.hold()
        budget = Budget.fractions(pruned.space, {"weights": sparsity})
        expected = draw(weight_magnitudes(model.encoder, pruned.space, before), budget, allocation="per_matrix")
        pruned.prune(sparsity)
        ticket = pruned.ticket()
        assert ticket == expected and ticket <= before
        assert Budget.of(ticket) == budget and pruned.sparsity() == budget["weights"] / pruned.space.total
        for name, units in ticket.units.items():
            assert abs(int((~units).sum()) - units.size * sparsity) <= 1, name
        before = ticket


def test_equal_weights_are_dropped_exactly():
    model, pruned = weights_of()
    with torch.no_grad():
        for name in pruned.space.matrices:
            model.encoder.get_parameter(name).fill_(0.5)
    pruned.prune(0.5)
    assert all(int((~units).sum()) * 2 == units.size for units in pruned.ticket().units.values())


@pytest.mark.parametrize("kind", ["adamw", "adamax", "muon"])
@pytest.mark.parametrize("let_run", [False, True])
def test_no_optimiser_brings_a_dropped_weight_back(kind, let_run):
    model, pruned = weights_of(let_run=let_run)
    optimiser = make_optimiser(model, OptimiserSettings(kind=kind, lr=0.02))
    stepped(model, optimiser, 3)  # so that every weight has a moment
    pruned.prune(0.6)
    moved = 0.0
    for _ in range(4):
        stepped(model, optimiser)
        moved += sum(
            float(model.encoder.get_parameter(name).detach()[pruned.dropped(name)].abs().sum())
            for name in pruned.space.matrices
        )
        pruned.hold()
        for name in pruned.space.matrices:
            weight = model.encoder.get_parameter(name)
            assert not weight[pruned.dropped(name)].any() and bool(weight[~pruned.dropped(name)].any())
    assert moved > 0  # they do move, and are put back


def test_dropped_weights_have_no_gradient_unless_published():
    for let_run in (False, True):
        model, pruned = weights_of(let_run=let_run)
        pruned.prune(0.6)
        task_loss(model, batch()).backward()
        for name in pruned.space.matrices:
            gradient = model.encoder.get_parameter(name).grad
            assert bool(gradient[pruned.dropped(name)].any()) is let_run, name
            assert bool(gradient[~pruned.dropped(name)].any()), name


def test_what_is_dropped_is_read_from_a_checkpoint():
    model, pruned = weights_of()
    pruned.prune(0.4)
    _, again = weights_of(copy.deepcopy(model))
    again.load_state_dict(pruned.state_dict())
    assert again.ticket() == pruned.ticket() and again.ticket().digest() == pruned.ticket().digest()


# -- heads, blocks, neurons --------------------------------------------------------------------------------------------


def units_of(pools=("heads", "ffn"), score="magnitude", model=None):
    model = model or tiny.model({"a": 2}, layers=4, dropout=0.0)
    space, data = space_of(model.config, neurons="neurons" in pools), {"a": tiny.random_task(24)}

    def scores(kept):
        if score == "magnitude":
            return Scores(space, SCORES.get("magnitude").compute(model, space, 0))
        settings = ScoreSettings(kind=score, batch_size=8)
        return score_tasks(model, space, data, settings, Accelerator(cpu=True), pad_id=0, within=kept)["a"]

    return model, PrunedUnits(model, space, pools, scores)


@pytest.mark.parametrize("score", ["magnitude", "first_order"])
@pytest.mark.parametrize("pools", [("heads", "ffn"), ("heads", "neurons")])
def test_units_are_dropped_exactly_and_never_come_back(score, pools):
    model, pruned = units_of(pools, score)
    optimiser = make_optimiser(model, OptimiserSettings(lr=0.01))
    before = pruned.ticket()
    for sparsity in (0.25, 0.5, 0.7):
        stepped(model.train(), optimiser)
        pruned.prune(sparsity)
        ticket = pruned.ticket()
        asked = {part: int(np.floor(pruned.space.sizes[part] * sparsity + 1e-9)) for part in pools}
        assert {part: ticket.dropped(part) for part in pools} == asked and ticket <= before
        assert ticket.units["heads"].any(axis=1).all() and model.tickets == {"a": ticket}
        before = ticket
    assert 0.5 < pruned.sparsity() < 0.7 or pools[1] == "neurons"
    assert model.training


def test_what_is_dropped_takes_no_part_and_is_put_on_again_from_a_checkpoint():
    model, pruned = units_of()
    inputs = {"input_ids": batch().input_ids, "attention_mask": batch().attention_mask, "segments": [(0, 0, 16)]}
    (whole,) = (logits.detach() for logits in model.eval()(**inputs))
    pruned.prune(0.5)
    (less,) = model(**inputs)
    assert float((whole - less).detach().abs().max()) > 1e-3
    fresh, again = units_of()
    again.load_state_dict(pruned.state_dict())
    assert torch.equal(fresh.eval()(**inputs)[0], less) and again.ticket() == pruned.ticket()


def test_less_than_is_dropped_already_is_an_error():
    _, pruned = units_of()
    pruned.prune(0.5)
    with pytest.raises(TicketError, match="which the base drops"):
        pruned.prune(0.25)
