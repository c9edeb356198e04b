"""Mixed batches are batches, heads are independent, and the published numbers come out."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_models import CONFIGS, KINDS, TASKS, largest, make_batch, make_model, make_ticket, rows_of, some_tickets
from transformers import AutoModelForMaskedLM, BertConfig, BertModel

from mtl_tickets.errors import InputError, MtlTicketsError
from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.model.pooling import APART, POOLINGS

MIXED = [(0, 0, 3), (1, 3, 5), (2, 5, 9)]


def loss_of(logits, task: int) -> torch.Tensor:
    if TASKS[task].kind == "regression":
        return F.mse_loss(logits.squeeze(-1), torch.arange(len(logits)).float(), reduction="sum")
    return F.cross_entropy(logits, torch.arange(len(logits)) % TASKS[task].n_out, reduction="sum")


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("ticketed", [False, True])
def test_mixed_batches_equal_one_task_batches(name, attention, ticketed):
    """Logits, loss and gradients, dropout off."""
    model = make_model(name, attention).train()
    if ticketed:
        model.set_tickets(some_tickets(model, neurons=True))
    batch = make_batch(model, MIXED)
    mixed = model(**batch)
    loss = sum(loss_of(logits, task) for task, logits in enumerate(mixed))
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    total = 0.0
    for task in (1, 0, 2):
        [logits] = model(**rows_of(batch, task))
        assert largest(mixed[task], logits) <= 1e-5
        one = loss_of(logits, task)
        one.backward()
        total += one.item()
    assert loss.item() == pytest.approx(total, abs=1e-5, rel=1e-6)
    separate = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert separate.keys() == gradients.keys()
    for n, gradient in gradients.items():
        assert largest(gradient, separate[n]) <= 1e-5 * max(1, float(gradient.abs().max())), n


@pytest.mark.parametrize(("name", "attention"), KINDS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(name, attention, pooling):
    model = make_model(name, attention, pooling=pooling)
    model.set_tickets(some_tickets(model))
    narrow, wide = make_batch(model, MIXED), make_batch(model, MIXED, padding=9)
    assert wide["input_ids"].shape[1] == 21
    assert largest(model(**narrow), model(**wide)) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_float32_and_of_the_tasks_shapes(name):
    model = make_model(name)
    shapes = [tuple(logits.shape) for logits in model(**make_batch(model, [(2, 0, 4), (0, 4, 5)]))]
    assert shapes == [(4, 2), (1, 3)]
    assert all(logits.dtype == torch.float32 for logits in model(**make_batch(model, MIXED)))


@pytest.mark.parametrize("name", CONFIGS)
def test_no_parameter_is_idle(name):
    """An idle parameter would stop a distributed training."""
    for pooling in POOLINGS:
        model = make_model(name, pooling=pooling)
        sum(logits.square().sum() for logits in model(**make_batch(model, MIXED))).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_read_both_texts_of_a_pair_and_how_they_differ(name):
    model = make_model(name, pooling="texts")
    batch = make_batch(model, [(0, 0, 3), (2, 3, 5)])
    hidden = []
    model.encoder.register_forward_hook(lambda module, args, output: hidden.append(output.last_hidden_state))
    pairs, singles = model(**batch)
    mask, types = batch["attention_mask"].bool(), batch["token_type_ids"].bool()
    for row in range(3):
        a, b = (hidden[0][row, mask[row] & side].mean(0) for side in (~types[row], types[row]))
        expected = model.heads["mnli"].linear(torch.cat([a, b, (a - b).abs(), a * b]))
        assert largest(pairs[row], expected) <= 1e-5
    for row in (3, 4):  # one text: the mean over all of it
        assert largest(singles[row - 3], model.heads["rte"].linear(hidden[0][row, mask[row]].mean(0))) <= 1e-5
    with pytest.raises(MtlTicketsError, match="token_type_ids"):
        model(**{**batch, "token_type_ids": None})


@pytest.mark.parametrize("pooling", APART)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_a_pair_do_not_see_each_other(name, attention, pooling):
    """Other words in the second text leave the first one's vectors as they are, and the other way round."""
    model = make_model(name, attention, pooling=pooling)
    batch = make_batch(model, [(0, 0, 5)])
    types, mask = batch["token_type_ids"].bool(), batch["attention_mask"].bool()
    vectors = []
    model.encoder.register_forward_hook(lambda module, args, output: vectors.append(output.last_hidden_state))
    for changed in (~types & mask, types & mask):
        vectors.clear()
        ids = batch["input_ids"]
        for tokens in (ids, torch.where(changed, ids.flip(0).roll(1, 1).clamp(min=2), ids)):
            model(**{**batch, "input_ids": tokens})
        kept = mask & ~changed
        assert largest(vectors[0][kept], vectors[1][kept]) <= 1e-5
        assert largest(vectors[0][changed], vectors[1][changed]) > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_a_first_text_is_read_as_it_would_be_alone(name):
    model = make_model(name, pooling="texts")
    batch = make_batch(model, [(0, 0, 3)])
    vectors = []
    model.encoder.register_forward_hook(lambda module, args, output: vectors.append(output.last_hidden_state))
    model(**batch)
    for row in range(3):
        real = batch["attention_mask"][row].bool()
        for side in (0, 1):
            tokens = batch["input_ids"][row, real & (batch["token_type_ids"][row] == side)]
            if side:  # something stands where [CLS] would, out of sight
                tokens = torch.cat([tokens[:1], tokens])
            mask = torch.ones_like(tokens)
            mask[:side] = 0
            alone = model.encoder(input_ids=tokens[None], attention_mask=mask[None]).last_hidden_state[0, side:]
            together = vectors[0][row, real & (batch["token_type_ids"][row] == side)]
            assert largest(alone, together) <= 1e-5


@pytest.mark.parametrize("pooling", APART)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_texts_apart_in_low_precision(attention, pooling):
    model = make_model("bert", attention, pooling=pooling)
    batch = make_batch(model, [(0, 0, 3), (2, 3, 5)])
    with torch.autocast("cpu", torch.bfloat16):
        low = model(**batch)
    whole = model(**batch)
    for found, expected in [*zip(low, whole, strict=True), *zip(model.bfloat16()(**batch), whole, strict=True)]:
        assert largest(found, expected) <= 0.05 * float(expected.detach().abs().max()) + 0.01


@pytest.mark.parametrize("name", CONFIGS)
def test_dropout_inside_the_encoder_can_be_set(name):
    batch = make_batch(make_model(name), MIXED)

    def outputs(dropout):
        model = MultiTaskModel.from_encoder(
            CONFIGS[name], [replace(t, head_dropout=0.0) for t in TASKS], dropout=dropout
        )
        return [torch.cat([logits.flatten() for logits in model.train()(**batch)]) for _ in range(2)]

    assert torch.equal(*outputs(0.0))
    assert not torch.equal(*outputs(0.2))
    assert not torch.equal(*outputs(None))


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_depend_on_seed_and_name_alone(name):
    encoder = CONFIGS[name]
    torch.manual_seed(1)
    first = MultiTaskModel.from_encoder(encoder, TASKS, seed=11)
    torch.manual_seed(2)
    torch.randn(10)
    turned = MultiTaskModel.from_encoder(encoder, [TaskInfo("new"), *reversed(TASKS)], seed=11)
    for task in TASKS:
        assert torch.equal(first.heads[task.name].linear.weight, turned.heads[task.name].linear.weight)
    assert torch.equal(first.pooler.dense.weight, turned.pooler.dense.weight)
    other = MultiTaskModel.from_encoder(encoder, TASKS, seed=12)
    assert not torch.equal(first.heads["rte"].linear.weight, other.heads["rte"].linear.weight)
    assert first.heads["rte"].linear.bias.count_nonzero() == 0
    assert not torch.equal(first.heads["rte"].linear.weight, turned.heads["new"].linear.weight)


def test_building_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    MultiTaskModel.from_encoder(CONFIGS["distilbert"], TASKS)
    assert torch.equal(torch.get_rng_state(), state)


def test_reset_head_draws_what_building_would_have_drawn_in_place():
    model = make_model("bert")
    parameter, before = model.heads["rte"].linear.weight, model.heads["mnli"].linear.weight.clone()
    fresh = MultiTaskModel.from_encoder(CONFIGS["bert"], [TASKS[2]], seed=8)
    model.reset_head("rte", 8)
    assert model.heads["rte"].linear.weight is parameter
    assert torch.equal(parameter, fresh.heads["rte"].linear.weight)
    assert torch.equal(model.heads["mnli"].linear.weight, before)


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_the_encoders_own_pooler_is_used(name):
    model = make_model(name)
    assert model.pooler is model.encoder.pooler
    assert model.own_pooler is None
    assert make_model(name, pooling="mean").pooler is None


@pytest.mark.parametrize("name", ["electra", "distilbert"])
def test_architectures_without_pooler_get_ours(name):
    model = make_model(name)
    assert model.pooler is model.own_pooler
    hidden = torch.randn(2, 5, 32)
    assert torch.equal(model.pooler(hidden), torch.tanh(model.pooler.dense(hidden[:, 0])))


def test_a_language_model_gives_its_encoder():
    model = MultiTaskModel.from_encoder(AutoModelForMaskedLM.from_config(copy.deepcopy(CONFIGS["roberta"])), TASKS)
    assert type(model.encoder).__name__ == "RobertaModel"
    assert model.pooler is model.own_pooler  # language models have none


def test_token_types_are_used_where_the_encoder_has_them():
    for name, uses in (("bert", True), ("electra", True), ("roberta", False), ("distilbert", False)):
        model = make_model(name)
        batch = make_batch(model, MIXED)
        without = {**batch, "token_type_ids": None}
        assert (largest(model(**batch), model(**without)) > 1e-4) == uses


def test_set_tickets_replaces_all_and_refuses_unknown_tasks():
    model = make_model("bert")
    batch = make_batch(model, MIXED)
    dense = model(**batch)
    model.set_tickets(some_tickets(model))
    ticket = make_ticket(model, [(0, 0)])
    model.set_tickets({"stsb": ticket})
    assert model.tickets == {"stsb": ticket}
    changed = [largest(one, other) > 0 for one, other in zip(model(**batch), dense, strict=True)]
    assert changed == [False, True, False]
    with pytest.raises(InputError, match=r"no such task; found 'rta'; did you mean 'rte'"):
        model.set_tickets({"rta": ticket})
    assert model.tickets == {"stsb": ticket}


def test_segments_must_cover_the_batch():
    model = make_model("bert")
    batch = make_batch(model, MIXED)
    for wrong in ([(0, 0, 3)], [(0, 0, 3), (1, 4, 9)], [(0, 1, 9)], []):
        with pytest.raises(MtlTicketsError, match="must cover 9 rows in order"):
            model(**{**batch, "segments": wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "a.b"}, "letters, digits"),
        ({"name": "keys"}, "for example 'keys_task'"),
        ({"name": "a", "kind": "ranking"}, "classification or regression"),
        ({"name": "a", "kind": "regression", "n_out": 2}, "1 for regression"),
        ({"name": "a", "labels": ("x",), "n_out": 2}, "must be 2 names"),
        ({"name": "a", "texts": 3}, "must be 1, or 2 for pairs"),
        ({"name": "a", "head_dropout": 1.0}, r"must be in \[0, 1\)"),
    ],
)
def test_task_infos_refuse_what_cannot_be(wrong, message):
    with pytest.raises(InputError, match=message):
        TaskInfo(**wrong)


def test_models_need_distinct_tasks_and_a_known_pooling():
    with pytest.raises(InputError, match="each name once"):
        MultiTaskModel.from_encoder(CONFIGS["bert"], [TASKS[0], TASKS[0]])
    with pytest.raises(InputError, match="did you mean 'mean'"):
        MultiTaskModel.from_encoder(CONFIGS["bert"], TASKS, pooling="meen")


@pytest.fixture(scope="module")
def published(shared):
    """The authors' model, batches and numbers (see the folder's README)."""
    folder = shared / "conformance" / "super_tickets_importance"
    encoder = BertModel(BertConfig(**json.loads((folder / "config.json").read_text())))
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    model = MultiTaskModel.from_encoder(encoder, [TaskInfo("task", n_out=3)]).eval()
    model.heads["task"].linear.load_state_dict(load_file(folder / "head.safetensors"))
    tensors = load_file(folder / "batches.safetensors")
    batches = [
        {name: tensors[f"batch{i}.{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
        for i in range(4)
    ]
    return model, batches, json.loads((folder / "expected.json").read_text())


def logits_of(model, batches):
    return [model(**batch, segments=[(0, 0, len(batch["input_ids"]))])[0] for batch in batches]


@pytest.mark.real
def test_dense_logits_are_those_of_the_published_code(published):
    model, batches, expected = published
    model.set_tickets({})
    for logits, numbers in zip(logits_of(model, batches), expected["dense_logits"], strict=True):
        assert largest(logits, torch.tensor(numbers)) <= 1e-4


@pytest.mark.real
def test_masked_logits_are_those_of_the_published_code(published):
    model, batches, expected = published
    masked = expected["masked"]
    heads = [(int(layer), head) for layer, row in masked["heads"].items() for head in row]
    model.set_tickets({"task": make_ticket(model, heads, masked["ffn"])})
    for logits, numbers in zip(logits_of(model, batches), masked["logits"], strict=True):
        assert largest(logits, torch.tensor(numbers)) <= 1e-4


def test_a_random_encoder_is_not_changed_by_what_is_built_on_it():
    encoder = random_encoder(CONFIGS["bert"])
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model = MultiTaskModel.from_encoder(encoder, TASKS)
    model.set_tickets(some_tickets(model))
    model(**make_batch(model, MIXED))
    assert encoder.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
