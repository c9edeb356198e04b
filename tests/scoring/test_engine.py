import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.scoring import SCORES, ScoreSettings, score_tasks
from mtl_tickets.scoring.engine import row_weights
from mtl_tickets.tickets.ticket import Ticket
from tests import tiny
from tests.scoring.silenced import silence, two_heads_and_a_block_less

CLASSES = {"a": 2, "b": 3, "c": 1}
GATED = ["first_order", "fisher", "gate_gradient"]


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def tasks():
    return {name: tiny.random_task(41 + i, n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}


@pytest.fixture(scope="module")
def model():
    return tiny.model(CLASSES)


def scored(model, tasks, accelerator, forward_rows=16, **settings):
    settings = ScoreSettings(**{"batch_size": 8, **settings})
    return score_tasks(model, model.space, tasks, settings, accelerator, pad_id=0, forward_rows=forward_rows)


def close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for task in one:
        for part in one[task].values:
            np.testing.assert_allclose(one[task].values[part], other[task].values[part], rtol=tolerance, atol=1e-9)


@pytest.mark.parametrize("kind", GATED)
def test_one_pass_equals_a_pass_for_each_task(model, tasks, accelerator, kind):
    apart = {name: scored(model, {name: task}, accelerator, kind=kind)[name] for name, task in tasks.items()}
    close(scored(model, tasks, accelerator, kind=kind), apart)


@pytest.mark.parametrize("kind", GATED)
def test_scores_do_not_depend_on_batches_or_padding(model, tasks, accelerator, kind):
    close(
        scored(model, tasks, accelerator, kind=kind, forward_rows=16),
        scored(model, tasks, accelerator, kind=kind, forward_rows=1),
    )


def test_scores_do_not_depend_on_the_order_of_rows(model, tasks, accelerator):
    # equal batch sizes, so that every row weighs the same
    whole = {name: task.select(np.arange(40)) for name, task in tasks.items()}
    turned = {name: task.select(np.arange(40)[::-1]) for name, task in tasks.items()}
    close(scored(model, whole, accelerator), scored(model, turned, accelerator))


def test_first_order_is_its_definition(model, tasks, accelerator):
    """|sum over features of gradient x activation| per token, from retained activations of one row at a time."""
    task = tasks["b"].select(np.arange(6))
    heads, ffn = np.zeros((2, 4)), np.zeros(2)
    kept = {}

    def keep(name, tensor):
        tensor.retain_grad()
        kept[name] = tensor

    hooks = []
    for i, layer in enumerate(model.encoder.encoder.layer):
        hooks.append(layer.attention.output.dense.register_forward_pre_hook(lambda m, a, i=i: keep(("head", i), a[0])))
        hooks.append(layer.output.dropout.register_forward_hook(lambda m, a, o, i=i: keep(("ffn", i), o)))
    model.eval()
    for row in range(6):
        ids = torch.from_numpy(task.input_ids(row).astype(np.int64))[None]
        logits = model(ids, torch.ones_like(ids), torch.zeros_like(ids), segments=[(1, 0, 1)])[0]
        torch.nn.functional.cross_entropy(logits, torch.tensor([task.labels[row]])).backward()
        for i in range(2):
            product = (kept["head", i].grad * kept["head", i]).detach()[0]
            heads[i] += product.unflatten(-1, (4, 8)).sum(-1).abs().sum(0).numpy() / 6
            ffn[i] += (kept["ffn", i].grad * kept["ffn", i]).detach()[0].sum(-1).abs().sum().numpy() / 6
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    result = scored(model, {"b": task}, accelerator)["b"]
    np.testing.assert_allclose(result.values["heads"], heads, rtol=1e-4)
    np.testing.assert_allclose(result.values["ffn"], ffn, rtol=1e-4)


def test_scoring_leaves_no_trace(model, tasks, accelerator):
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.train()
    scored(model, tasks, accelerator)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 40])
def test_row_weights_are_a_mean_over_batches(rows):
    batches = -(-rows // 8)
    weights = row_weights(rows, 8, accumulate=False)
    sums = np.bincount(np.arange(rows) // 8, weights)
    np.testing.assert_allclose(sums, 1 / batches)
    # the published defect: batch j of T (from 1) weighs (T - j + 1) times as much
    accumulated = np.bincount(np.arange(rows) // 8, row_weights(rows, 8, accumulate=True))
    np.testing.assert_allclose(accumulated, np.arange(batches, 0, -1) / batches)


def test_the_accumulation_defect_in_closed_form(model, tasks, accelerator):
    """Adding up the gradients of all batches so far, batch after batch, as the published code does."""
    task = tasks["a"].select(np.arange(20))
    running, total = 0.0, 0.0
    for begin in (0, 8, 16):
        part = task.select(np.arange(begin, min(begin + 8, 20)))
        running = running + scored(model, {"a": part}, accelerator)["a"].values["heads"]
        total = total + running
    defect = scored(model, {"a": task}, accelerator, accumulate=True)["a"].values["heads"]
    np.testing.assert_allclose(defect, total / 3, rtol=1e-5)


@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize("neurons", [False, True])
def test_inside_a_base_scores_are_those_of_the_smaller_encoder(tasks, accelerator, kind, neurons):
    model, silenced = tiny.model(CLASSES), tiny.model(CLASSES)
    space = space_of(model.config, neurons)
    base = two_heads_and_a_block_less(space)
    silence(silenced, base)
    settings, plain = ScoreSettings(kind=kind, batch_size=8), Ticket.dense(space)
    inside = score_tasks(model, space, tasks, settings, accelerator, pad_id=0, within=base)
    expected = score_tasks(silenced, space, tasks, settings, accelerator, pad_id=0)
    for task in tasks:
        for part, kept in base.units.items():
            there = kept & base.units["ffn"][:, None] if part == "neurons" else kept
            np.testing.assert_allclose(inside[task].values[part][there], expected[task].values[part][there], rtol=1e-4)
            assert (inside[task].values[part][~kept] == 0).all()
    whole = score_tasks(model, space, tasks, settings, accelerator, pad_id=0, within=plain)
    without = score_tasks(model, space, tasks, settings, accelerator, pad_id=0)
    for task in tasks:
        assert whole[task].about == without[task].about
        assert all(whole[task].values[part].tobytes() == without[task].values[part].tobytes() for part in space.parts)


def test_sampling_takes_that_many_rows(model, tasks, accelerator):
    some = scored(model, tasks, accelerator, examples=10)
    assert {s.about.rows for s in some.values()} == {10}


@pytest.mark.parametrize("kind", ["magnitude", "random"])
def test_scores_without_data(model, tasks, accelerator, kind):
    result = scored(model, tasks, accelerator, kind=kind)
    assert set(result) == set(tasks)
    assert result["a"].values["heads"].shape == (2, 4)
    assert np.ptp(result["a"].values["heads"]) > 0


def test_magnitude_sees_a_zeroed_head(tasks, accelerator):
    model = tiny.model(CLASSES)
    layer = model.encoder.encoder.layer[1]
    with torch.no_grad():
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            linear.weight[8:16] = 0
        layer.attention.output.dense.weight[:, 8:16] = 0
    values = scored(model, tasks, accelerator, kind="magnitude")["a"].values["heads"]
    assert values[1, 1] == 0
    assert (np.delete(values.ravel(), 5) > 0).all()


def test_every_score_says_what_it_is():
    assert all(SCORES.summaries().values())


@pytest.mark.real
def test_conformance_with_the_published_code(shared, accelerator):
    folder = shared / "conformance" / "super_tickets_importance"
    expected = json.loads((folder / "expected.json").read_text())
    config = AutoConfig.for_model("bert", **json.loads((folder / "config.json").read_text()))
    encoder = AutoModel.from_config(config, attn_implementation="sdpa")
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    model = MultiTaskModel.from_encoder(encoder, [TaskInfo("t", "classification", ("0", "1", "2"), 3)])
    head = load_file(folder / "head.safetensors")
    model.heads["t"].linear.load_state_dict({name.rpartition(".")[2]: tensor for name, tensor in head.items()})
    batches = load_file(folder / "batches.safetensors")
    sequences, types, labels = [], [], []
    for i in range(4):
        for row, mask in enumerate(batches[f"batch{i}.attention_mask"].bool()):
            sequences.append(batches[f"batch{i}.input_ids"][row][mask].numpy())
            types.append(batches[f"batch{i}.token_type_ids"][row][mask].numpy())
        labels.append(batches[f"batch{i}.labels"].numpy())
    size = len(batches["batch0.labels"])
    task = {"t": tiny.encoded(sequences, np.concatenate(labels), types)}
    for key, accumulate in (("fixed", False), ("reference_accumulate", True)):
        scores = scored(model, task, accelerator, batch_size=size, accumulate=accumulate)["t"]
        for values, suffix in ((scores, ""), (scores.normalised(), "_norm")):
            np.testing.assert_allclose(values.values["heads"], expected[key]["head" + suffix], rtol=1e-5)
            np.testing.assert_allclose(values.values["ffn"], expected[key]["ffn" + suffix], rtol=1e-5)


@pytest.mark.parametrize("kind", GATED)
def test_a_row_without_a_number_is_named(tasks, accelerator, kind):
    model = tiny.model(CLASSES)
    word = int(tasks["b"].input_ids(5)[0])
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight[word] = float("nan")
    rows = [i for i in range(len(tasks["b"])) if word in tasks["b"].input_ids(i)]
    with pytest.raises(
        MtlTicketsError, match=r"^b: the scores of units are no numbers on training rows ([\d, ]+): "
    ) as said:
        scored(model, {"b": tasks["b"]}, accelerator, forward_rows=len(tasks["b"]), kind=kind)
    named = str(said.value).partition("rows ")[2].partition(":")[0]
    assert [int(row) for row in named.split(", ")] == rows[:8]
