"""Scores learn what their masks would gain; a reset is a draw; the network below stays as it is."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open

from mtl_tickets.errors import TicketError
from mtl_tickets.model.gates import Gates
from mtl_tickets.model.weight_masks import weight_space_of, weights_in
from mtl_tickets.pretraining.masking import Course
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, head_parameters
from mtl_tickets.tasks.batches import BatchSettings, TaskBatches
from mtl_tickets.tickets.budget import Budget
from mtl_tickets.tickets.draw import draw
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.health import TrainingDiverged
from mtl_tickets.training.learned_masks import THRESHOLD, LearnedMasks
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.objectives.hidden_states import MaskObjective
from mtl_tickets.training.objectives.task_loss import task_loss
from mtl_tickets.training.optim import OptimiserSettings, make_optimiser
from mtl_tickets.training.thresholds import equal_shares
from tests import tiny as tasks_tiny
from tests.pretraining.made import batches, tiny

ARCHITECTURES = ["bert", "roberta", "distilbert"]
WORDS = "embeddings.word_embeddings.weight"
SIZES = {"layers": 2, "heads": 4, "hidden": 32, "intermediate": 48, "total": 100_000}
SPACE = StructuredSpace.of(**SIZES)
NEURONS = StructuredSpace.of(**SIZES, neurons=True)


def language(model_type="bert"):
    return MaskedLanguageModel(tiny(model_type))


def magnitudes(model, space):
    """Also of a pooler, which the model lacks."""
    encoder = model.network.base_model
    names = dict(encoder.named_parameters())
    there = WeightSpace({name: shape for name, shape in space.matrices.items() if name in names})
    missing = {name: np.random.default_rng(0).random(space.matrices[name]) for name in space.matrices - names.keys()}
    return Scores(space, {name: np.abs(value) for name, value in weights_in(encoder, there).items()} | missing)


def masked(model, sparsity=0.5, **options):
    """With magnitude masks on; the ticket they start from."""
    space = weight_space_of(model.network.config, embeddings=True)
    ticket = draw(magnitudes(model, space), Budget.fractions(space, {"weights": sparsity}), 1, "per_matrix")
    options = {"beside": head_parameters(model.network)} | options
    return LearnedMasks(model, model.network.base_model, ticket, **options), ticket


def gated(start, model=None, **options):
    model = model or tasks_tiny.model({"a": 2, "b": 3}).eval()
    return LearnedMasks(model, model.encoder, start, **options)


def task_batch():
    tasks = {name: tasks_tiny.random_task(20, n, seed=n) for name, n in (("a", 2), ("b", 3))}
    return next(TaskBatches(tasks, BatchSettings(size=24), 0, 0).iterate(0))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def shaken(masks, seed, size=0.02, steps=5):
    """Scores moved by one of a few numbers, as different for each: many are equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for scores in masks.scores.values():
            moves = torch.randint(-steps, steps + 1, scores.shape, generator=generator)
            scores.add_(moves * (size / steps))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_score_learns_from_the_masked_weight_times_the_weight(model_type):
    model, batch = language(model_type), batches().batch(0)
    explicit = copy.deepcopy(model.network)
    output = explicit.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.detach().clone())
    masks, ticket = masked(model)
    whole = {}
    with torch.no_grad():
        for name, parameter in explicit.base_model.named_parameters():
            if name in ticket.units:
                whole[name] = parameter.clone()
                parameter.mul_(torch.tensor(ticket.units[name]))
    loss = MaskObjective()(masks, batch)
    expected = MaskObjective()(MaskedLanguageModel(explicit), batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert len(whole) >= 13
    for name, weight in whole.items():
        found = masks.scores[name.replace(".", "/")].grad.view_as(weight)
        gradient = explicit.base_model.get_parameter(name).grad * weight
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)
        assert found[torch.tensor(~ticket.units[name])].abs().max() > 0
    trained = {id(parameter) for parameter in [*masks.scores.values(), *head_parameters(model.network)]}
    assert {id(parameter) for parameter in masks.parameters() if parameter.grad is not None} <= trained


def test_a_gate_s_score_learns_what_its_gate_would():
    space = NEURONS
    start = draw(Scores.random(space, 0), {"heads": 3, "ffn": 1, "neurons": 30}, 1, "global")
    masks, batch = gated(start), task_batch()
    task_loss(masks, batch).backward()
    plain = tasks_tiny.model({"a": 2, "b": 3}).eval()
    leaves = {p: torch.tensor(units[None]).float().requires_grad_() for p, units in start.units.items()}
    with Gates(plain.encoder, 1).leaves(**leaves):
        loss = task_loss(plain, batch)
    loss.backward()
    torch.testing.assert_close(task_loss(masks, batch), loss)
    for part, leaf in leaves.items():
        assert leaf.grad[~torch.tensor(start.units[part][None])].abs().max() > 0
        torch.testing.assert_close(masks.scores[part].grad.view_as(leaf), leaf.grad, rtol=1e-4, atol=1e-6)


def test_the_first_mask_is_the_start_and_a_reset_changes_nothing():
    masks, ticket = masked(language())
    space = ticket.space
    assert masks.mask() == ticket
    assert masks.sparsity() == {"weights": pytest.approx(0.5, abs=1e-3)}
    assert set(np.unique(masks.values()[WORDS])) == {np.float32(0), np.float32(2 * THRESHOLD)}
    before = state(masks)
    assert masks.ticket() == ticket
    assert equal(state(masks), before)
    seen = masks.model.network.base_model.get_submodule("embeddings.word_embeddings").weight
    assert torch.equal(seen != 0, torch.tensor(ticket.units[WORDS]))
    other, start = language(), Scores.random(space, 1)
    random = draw(start, Budget.of(ticket), 1, "per_matrix")
    assert LearnedMasks(other, other.network.base_model, random).mask() == random != ticket


@pytest.mark.parametrize("allocation", ["per_matrix", "global"])
@pytest.mark.parametrize("seed", range(5))
def test_a_reset_of_weights_is_a_draw_whatever_is_equal(allocation, seed):
    masks, ticket = masked(language(), 0.7, allocation=allocation)
    budget = Budget.of(ticket)
    for turn in range(3):
        shaken(masks, 10 * seed + turn)
        drifted = masks.mask()
        scores = Scores(ticket.space, masks.values())
        found = masks.ticket()
        assert found == draw(scores, budget, 1, allocation)
        assert Budget.of(found) == budget != Budget.of(drifted)
        moved = np.concatenate([np.abs(masks.values()[p] - scores.values[p]).ravel() for p in ticket.units])
        assert moved.max() < 1e-6
        assert masks.ticket() == found


@pytest.mark.parametrize("allocation", ["per_matrix", "global"])
@pytest.mark.parametrize("min_heads", [0, 1, 2])
def test_a_reset_of_gates_is_a_draw_whatever_is_equal(allocation, min_heads):
    space = NEURONS
    for seed in range(10):
        budget = Budget({"heads": 3, "ffn": seed % 2, "neurons": 31})
        start = draw(Scores.random(space, seed), budget, min_heads, allocation)
        masks = gated(start, allocation=allocation, min_heads=min_heads)
        for turn in range(3):
            shaken(masks, 10 * seed + turn, steps=1 + turn)
            values = {part: np.ones(shape) for part, shape in space.parts.items()} | masks.values()
            found = masks.ticket()
            assert found == draw(Scores(space, values), budget, min_heads, allocation)
            assert Budget.of(found) == budget


def test_a_protected_head_stays_below_the_threshold_of_the_others():
    values = {"heads": np.array([[0.1, 0.1, 0.0, 0.1], [0.5, 0.6, 0.7, 0.8]]), "ffn": np.ones(2)}
    masks = gated(Scores(SPACE, values), budget={"heads": 4}, allocation="global")
    assert masks.mask() == draw(Scores(SPACE, values), {"heads": 4}, 1, "global")
    assert masks.mask().units["heads"].tolist() == [[False, False, False, True], [False, True, True, True]]
    # the others have one threshold, and a layer of its own has its own
    first, second = masks.thresholds.tolist()
    assert first == pytest.approx(0.1, abs=1e-6) and 0.5 <= second < 0.6


def test_parts_of_which_nothing_is_dropped_are_not_trained():
    start = draw(Scores.random(NEURONS, 0), {"heads": 3}, 1, "global")
    masks = gated(start)
    assert masks.parts == ["heads"] and list(masks.sparsity()) == ["heads"]
    with pytest.raises(TicketError, match=r"budget\.neurons"):
        masks.budget = {"heads": 3, "neurons": 1}
    # what the start drops is seen, whatever the budget
    masks = gated(start, budget={"neurons": 5})
    assert masks.parts == ["heads", "neurons"] and masks.mask() == start
    assert Budget.of(masks.ticket()) == {"heads": 0, "ffn": 0, "neurons": 5}


def test_shares_are_those_of_a_draw():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(1, 40, rng.integers(1, 8)).tolist()
        space = WeightSpace({f"m{i}": (size,) for i, size in enumerate(sizes)})
        count = int(rng.integers(0, sum(sizes) + 1))
        drawn = draw(Scores.random(space, 0), {"weights": count}, 1, "per_matrix")
        assert equal_shares(sizes, count) == [drawn.dropped(part) for part in space.parts]


def test_from_scores_the_budget_may_grow():
    model = language()
    space = weight_space_of(model.network.config, embeddings=True)
    scores = magnitudes(model, space)
    budgets = [Budget.fractions(space, {"weights": share}) for share in (0.0, 0.7, 0.9, 1.0)]
    masks = LearnedMasks(model, model.network.base_model, scores, budgets[1])
    assert masks.mask() == draw(scores, budgets[1], 1, "per_matrix")
    for budget in budgets:
        masks.budget = budget
        assert masks.ticket() == draw(scores, budget, 1, "per_matrix")
    assert masks.ticket().about.budget == dict(budgets[-1])


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_vocabulary_is_whole_where_it_predicts(model_type):
    model = language(model_type)
    tied = model.network.base_model.get_parameter(WORDS)
    assert model.network.get_output_embeddings().weight is tied
    before = tied.detach().clone()
    masks, ticket = masked(model)
    output = model.network.get_output_embeddings()
    assert output.weight is tied and not tied.requires_grad
    assert torch.equal(output.weight, before)
    seen = model.network.base_model.get_submodule("embeddings.word_embeddings").weight
    assert torch.equal(seen, before * torch.tensor(ticket.units[WORDS]))
    assert not any(parameter is tied for parameter in head_parameters(model.network))
    masks.take_off()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_head_is_what_lies_between_encoder_and_vocabulary(model_type):
    network = tiny(model_type)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(parameter)] for parameter in head_parameters(network)}
    prefix = network.base_model_prefix + "."
    assert found == {name for name in names.values() if not name.startswith(prefix)}
    assert len(found) == 5


def run(kind="both", path=None, until=None, dropout=0.1, steps=16, seen=None):
    """Mask training in two epochs with a reset every third step; the masks, still on."""
    AcceleratorState._reset_state(reset_partial_state=True)
    model = language()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    masks, _ = masked(model, beside=head_parameters(model.network) if kind != "distillation" else ())

    def after_step(step):
        if seen is not None:
            seen.append((step, masks.sparsity()["weights"]))
        if step % 3 == 0:
            masks.reset()

    optimiser = OptimiserSettings(lr=3e-3, weight_decay=0.01)
    settings = TrainSettings(epochs=2, checkpoint_seconds=0, optimiser=optimiser)
    objective, source = MaskObjective(kind), Course([(batches(), steps)], 2)
    result = train(
        masks,
        source,
        objective,
        settings,
        Accelerator(cpu=True),
        seed=1,
        checkpoint=path,
        after_step=after_step,
        until=until,
    )
    return masks, result


@pytest.mark.parametrize("kind", ["mlm", "distillation", "both"])
def test_training_moves_masks_and_head_and_nothing_else(kind):
    before, seen = state(language()), []
    objective, batch = MaskObjective(kind), batches().batch(1000)
    first = objective(masked(language())[0].eval(), batch).detach()
    masks, _ = run(kind, steps=60, dropout=0.0, seen=seen)
    assert objective(masks, batch).detach() < 0.95 * first
    # between resets the sparsity drifts, after one it is exact
    exact = masked(language())[0].sparsity()["weights"]
    assert any(share != exact for step, share in seen if step > 1)
    final = masks.ticket()
    assert Budget.of(final) == Budget.of(masked(language())[1])
    assert final != masked(language())[1]
    model = masks.model
    masks.take_off()
    after = state(model)
    head = {name for name in before if name.startswith("network.cls.") and "decoder.weight" not in name}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == (head if kind != "distillation" else set())


def test_stopped_and_resumed_is_bit_equal(tmp_path):
    masks, result = run()
    for until in (2, 3, 7, 9, 15):
        path = tmp_path / f"{until}.safetensors"
        run(path=path, until=until)
        torch.manual_seed(5)
        resumed, again = run(path=path)
        assert again.history == result.history
        assert equal(state(resumed), state(masks))
        assert resumed.mask() == masks.mask()
        assert equal(resumed.model.network.base_model.state_dict(), masks.model.network.base_model.state_dict())
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("model/")]  # noqa: SIM118 (not a dict)
    frozen = {
        f"model/model.{n}" for n, p in masks.model.named_parameters(remove_duplicate=False) if not p.requires_grad
    }
    assert frozen and not frozen & set(names)


def test_the_state_fits_the_same_masks_alone():
    masks, _ = masked(language())
    shaken(masks, 0)
    other, _ = masked(language())
    other.load_state_dict(masks.state_dict())
    assert equal(state(other), state(masks)) and other.mask() == masks.mask()
    lacking = masks.state_dict()
    del lacking["thresholds"]
    with pytest.raises(RuntimeError, match="thresholds"):
        other.load_state_dict(lacking)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_taken_off_the_network_is_what_it_was(model_type):
    model, batch = language(model_type), batches().batch(0)
    some = next(iter(model.parameters()))
    some.requires_grad_(False)
    before, flags = state(model), [(name, p.requires_grad) for name, p in model.named_parameters()]
    kinds, logits = [type(module) for module in model.modules()], model(batch.input_ids, batch.positions)[0]
    masks, _ = masked(model)
    assert not torch.equal(model(batch.input_ids, batch.positions)[0], logits)
    masks.take_off()
    assert equal(state(model), before) and list(state(model)) == list(before)
    assert [(name, p.requires_grad) for name, p in model.named_parameters()] == flags
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(model(batch.input_ids, batch.positions)[0], logits)
    model = tasks_tiny.model({"a": 2, "b": 3}).eval()
    loss, before = task_loss(model, task_batch()), state(model)
    masks = gated(draw(Scores.random(SPACE, 0), {"heads": 4, "ffn": 1}, 1, "global"), model)
    assert not torch.equal(task_loss(masks, task_batch()), loss)
    masks.take_off()
    assert equal(state(model), before) and torch.equal(task_loss(model, task_batch()), loss)


@pytest.mark.parametrize("structured", [False, True])
def test_a_dense_pass_is_the_plain_network_s(structured):
    model, batch = language(), batches().batch(0)
    expected = model(batch.input_ids, batch.positions)[0]
    if structured:
        sizes = {"layers": 2, "heads": 2, "hidden": 16, "intermediate": 32, "total": 100_000}
        start = draw(Scores.random(StructuredSpace.of(**sizes), 0), {"heads": 2, "ffn": 1}, 1, "global")
        masks = LearnedMasks(model, model.network.base_model, start)
    else:
        masks, _ = masked(model)
    masks.train()
    assert torch.equal(masks(batch.input_ids, batch.positions, dense=True)[0], expected)
    assert model.training
    model.eval()
    with masks.applied():
        applied = model(batch.input_ids, batch.positions)[0]
        with masks.dense():
            assert torch.equal(model(batch.input_ids, batch.positions)[0], expected)
        assert torch.equal(model(batch.input_ids, batch.positions)[0], applied)
    assert torch.equal(masks(batch.input_ids, batch.positions)[0], applied)
    assert not torch.allclose(applied, expected, atol=1e-3)


def test_a_matrix_the_network_lacks_stays_as_it_starts():
    masks, ticket = masked(language())
    pooler = masks.scores["pooler/dense/weight"]
    assert not pooler.requires_grad
    before = pooler.detach().clone()
    shaken(masks, 0)
    with torch.no_grad():
        pooler.copy_(before)
    assert np.array_equal(masks.ticket().units["pooler.dense.weight"], ticket.units["pooler.dense.weight"])


@pytest.mark.parametrize("decay", [False, True])
def test_scores_decay_only_where_asked(decay):
    masks, _ = masked(language(), decay_scores=decay)
    optimiser = make_optimiser(masks, OptimiserSettings(weight_decay=0.1))
    decayed = {id(p) for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    scores = {id(p) for p in masks.scores.values() if p.requires_grad}
    assert (scores <= decayed) if decay else not (scores & decayed)
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == scores | {
        id(p) for p in head_parameters(masks.model.network)
    }
    assert masks.ticket() == masked(language())[1]


def test_what_does_not_fit_is_refused_and_leaves_the_network_alone():
    model = language()
    encoder, before = model.network.base_model, state(model)
    space = weight_space_of(model.network.config)
    for start, options, message in (
        (Scores.random(space, 0), {}, "need a budget"),
        (Ticket.dense(space), {"allocation": "layer_normalised"}, "per_matrix, global"),
        (Ticket.dense(WeightSpace({"pooler.dense.weight": (16, 16)})), {}, "at least one of the matrices"),
        (Ticket.dense(WeightSpace({WORDS: (60, 17)})), {}, "must have the shape"),
        (Ticket.dense(SPACE), {}, "must have"),
        (Ticket.dense(space), {"budget": {"weights": space.total + 1}}, "can be dropped"),
    ):
        with pytest.raises(TicketError, match=message):
            LearnedMasks(model, encoder, start, **options)
        assert equal(state(model), before) and all(p.requires_grad for p in model.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules())
    masks, _ = masked(model)
    with pytest.raises(TicketError, match="taken off"):
        LearnedMasks(model, encoder, masks.ticket())
    with torch.no_grad():
        masks.scores[WORDS.replace(".", "/")][3] = torch.nan
    with pytest.raises(TrainingDiverged, match="word_embeddings"):
        masks.reset()
