"""A mixture of a teacher's and a student's layers is the one or the other where it consists of it, bit for bit."""

import copy

import pytest
import torch

from mtl_tickets.errors import InputError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.grafting import Grafted
from mtl_tickets.model.inside import PROBABILITIES, attending, watched
from mtl_tickets.training.optim import OptimiserSettings, make_optimiser
from tests.model.tiny_models import CONFIGS, KINDS, LAYERS, TASKS, largest, make_batch, make_model, make_ticket

TASK = (TASKS[0],)
SEGMENTS = [(0, 0, 5)]


def grafted(architecture="bert", attention="sdpa", dropout=0.0, **options):
    """With a student that is another network than its teacher."""
    teacher = make_model(architecture, attention, TASK, dropout)
    made = Grafted(teacher, seed=7, **options)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for layer in layers_of(made.student.encoder):
            for parameter in layer.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


def answer(model, batch, seed=3, **more):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(**batch, **more)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("architecture", "attention"), [*KINDS, ("bert", "packed")])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_without_student_it_is_the_teacher_and_without_teacher_the_student_bit_for_bit(
    architecture, attention, dropout
):
    model = grafted(architecture, attention, dropout).train()
    teacher, student = (copy.deepcopy(one).train() for one in (model.teacher, model.student))
    batch = make_batch(teacher, SEGMENTS)
    model.at(1, 0.0)
    assert same(answer(model, batch), answer(teacher, batch))
    model.at(1, 1.0)
    assert same(answer(model, batch), answer(student, batch))
    assert largest(answer(teacher, batch), answer(student, batch)) > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_in_eval_mode_it_is_the_student_at_any_rate(rate):
    model = grafted(dropout=0.3)
    model.at(1, rate)
    batch = make_batch(model.student, SEGMENTS)
    assert same(answer(model.eval(), batch), answer(model.student.eval(), batch))


def test_each_layer_is_drawn_by_itself_as_often_as_asked_for():
    model = grafted().train()
    batch = make_batch(model.student, [(0, 0, 1)], length=4)
    counts, both = torch.zeros(LAYERS), 0
    for step in range(300):
        model.at(step, 0.7)
        used = []
        handles = [
            layer.register_forward_hook(lambda *_, number=number, used=used: used.append(number))
            for number, layer in enumerate(layers_of(model.student.encoder))
        ]
        answer(model, batch)
        for handle in handles:
            handle.remove()
        counts[used] += 1
        both += {0, 1} <= set(used)
    assert all(abs(share - 0.7) < 0.1 for share in (counts / 300).tolist())
    assert abs(both / 300 - 0.49) < 0.1


def test_draws_depend_on_the_step_and_the_batches_in_it_alone():
    model = grafted().train()
    batch = make_batch(model.student, SEGMENTS)

    def two(step):
        model.at(step, 0.5)
        return [answer(model, batch, seed)[0] for seed in (1, 2)]

    first, again = two(4), two(4)
    answer(model, batch)
    assert same(first, again) and same(two(4), first)
    assert any(not same(two(step), first) for step in range(5, 10))


def test_the_mixture_leaves_everything_in_its_place():
    model = grafted().train()
    before = [id(module) for module in model.modules()]
    model.at(1, 0.5)
    with pytest.raises(TypeError):
        model(nothing=1)
    answer(model, make_batch(model.student, SEGMENTS))
    assert [id(module) for module in model.modules()] == before
    assert not any(module.training for module in model.teacher.modules())


@pytest.mark.parametrize("train_head", [False, True])
@pytest.mark.parametrize("frozen_gradients", [False, True])
def test_frozen_parts_never_move(train_head, frozen_gradients):
    model = grafted(train_head=train_head, frozen_gradients=frozen_gradients).train()
    before = {name: value.clone() for name, value in model.student.state_dict().items()}
    taught = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    optimiser = make_optimiser(model, OptimiserSettings(lr=0.01))
    batch = make_batch(model.student, SEGMENTS)
    for step in range(4):
        model.at(step, 0.5)
        (logits,) = model(**batch)
        logits.square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        model.hold()
    layers = f"encoder.{model.student.anatomy.layers}."
    for name, value in model.student.state_dict().items():
        moves = name.startswith(layers) or (train_head and name.startswith("heads."))
        # a key's bias changes no attention
        if not name.endswith("key.bias"):
            assert torch.equal(value, before[name]) is not moves, name
    assert same(model.teacher.state_dict().values(), taught.values())


@pytest.mark.parametrize("part", ["logits", "hidden", "attention"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_layer_that_takes_no_part_has_gradients_of_0_whatever_the_loss_looks_at(rate, part):
    model = grafted().train()
    model.at(1, rate)
    (logits,), hidden, attention = model(**make_batch(model.student, SEGMENTS), inside=True, attention=PROBABILITIES)
    looked_at = {"logits": logits, "hidden": hidden[-1], "attention": attention[-1]}[part]
    looked_at.square().sum().backward()
    gradients = [parameter.grad for parameter in layers_of(model.student.encoder)[0].parameters()]
    assert all(gradient is not None for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients) is (rate == 1.0)


def test_the_teacher_is_in_no_checkpoint():
    model = grafted()
    assert set(model.state_dict()) == {f"student.{name}" for name in model.student.state_dict()}


# -- what happens inside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_hidden_states_and_probabilities_are_those_that_transformers_tells(architecture, attention):
    model = make_model(architecture, attention, TASK)
    batch = make_batch(model, SEGMENTS)
    with attending(PROBABILITIES, model.encoder), watched(model.encoder) as seen:
        logits = answer(model, batch)
    assert largest(logits, answer(model, batch)) <= 1e-5
    model.encoder.config._attn_implementation = "eager"
    types = {"token_type_ids": batch["token_type_ids"]} if model._token_types else {}
    with torch.no_grad():
        told = model.encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True,
            output_attentions=True, **types,
        )  # fmt: skip
    assert len(seen.hidden) == LAYERS + 1 and len(seen.attention) == LAYERS
    assert same(seen.hidden, told.hidden_states) and same(seen.attention, told.attentions)


def test_looking_changes_nothing_but_how_attention_is_computed():
    model = grafted(attention="eager", dropout=0.3).train()
    batch = make_batch(model.student, SEGMENTS)
    for rate in (0.0, 0.5, 1.0):
        model.at(1, rate)
        plain = answer(model, batch)
        model.at(1, rate)
        logits, hidden, probabilities = answer(model, batch, inside=True, attention=PROBABILITIES)
        assert same(plain, logits) and len(hidden) == LAYERS + 1 and len(probabilities) == LAYERS
    assert model.student.config._attn_implementation == "eager"


def test_probabilities_are_before_dropout_and_those_of_eager_after_it():
    model = grafted(dropout=0.5).train()
    batch = make_batch(model.student, SEGMENTS)
    *_, before = answer(model, batch, inside=True, attention=PROBABILITIES)
    *_, after = answer(model, batch, inside=True, attention="eager")
    assert all(float((layer.sum(-1) - 1).abs().max()) < 1e-5 for layer in before)
    assert all(bool((layer[..., 0] == 0).any()) for layer in after)


def test_attention_that_tells_nothing_is_an_error_where_it_is_wanted():
    model = grafted()
    with pytest.raises(InputError, match="tells no probabilities"):
        answer(model, make_batch(model.student, SEGMENTS), inside=True, attention="sdpa")
    _, hidden, none = answer(model, make_batch(model.student, SEGMENTS), inside=True)
    assert len(hidden) == LAYERS + 1 and none == []


def test_rows_that_are_packed_are_looked_into_padded():
    model, padded = grafted(attention="packed"), grafted(attention="sdpa")
    batch = make_batch(model.student, SEGMENTS)
    _, hidden, _ = answer(model, batch, inside=True)
    assert largest(hidden, answer(padded, batch, inside=True)[1]) <= 1e-5
    assert model.student.config._attn_implementation == "packed"


def test_of_a_student_without_some_heads_the_others_are_looked_at():
    model = grafted()
    model.student.set_tickets({"mnli": make_ticket(model.student, heads=[(0, 1), (2, 0), (2, 3)])})
    batch = make_batch(model.student, SEGMENTS)
    *_, own = answer(model, batch, inside=True, attention=PROBABILITIES)
    *_, theirs = answer(model, batch, inside=True, attention=PROBABILITIES, teacher=True)
    assert [layer.shape[1] for layer in own] == [layer.shape[1] for layer in theirs] == [3, 4, 2]
