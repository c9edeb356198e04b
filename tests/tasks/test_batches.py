import numpy as np
import pydantic
import pytest
import torch

from mtl_tickets.tasks.batches import BatchSettings, TaskBatches, passes_over
from mtl_tickets.tasks.samplers import SAMPLERS
from tests import tiny

SIZES = {"a": 101, "b": 40, "c": 7}
SAMPLER_NAMES = ["given", "proportional", "sqrt", "temperature", "uniform"]


@pytest.fixture(scope="module")
def tasks():
    return {name: tiny.random_task(n, seed=i, longest=40) for i, (name, n) in enumerate(SIZES.items())}


def make(tasks, seed=0, **settings):
    if isinstance(settings.get("sampler"), str):
        settings["sampler"] = SAMPLERS.get(settings["sampler"])()
    return TaskBatches(tasks, BatchSettings(size=8, mega_batch=3).model_copy(update=settings), seed, pad_id=0)


def seen(batches, epoch=0):
    """(task, index) of every row of an epoch, in order."""
    rows = []
    for batch in batches.iterate(epoch):
        for task, start, stop in batch.segments:
            rows += [(task, int(i)) for i in batch.indices[start:stop]]
    return rows


EVERY = sorted((t, i) for t, n in enumerate(SIZES.values()) for i in range(n))


@pytest.mark.parametrize("regime", ["one_task", "mixed"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("limits", [{}, {"tokens": 150}, {"buckets": False}])
def test_every_index_exactly_once_an_epoch(tasks, regime, sampler, limits):
    batches = make(tasks, regime=regime, sampler=sampler, **limits)
    orders = [seen(batches, epoch) for epoch in range(3)]
    assert all(sorted(order) == EVERY for order in orders)
    assert orders[0] != orders[1]


def test_fixed_batches_too(tasks):
    batches = make(tasks, regime="one_task", fixed=True)
    assert sorted(seen(batches)) == EVERY
    slices = [{tuple(b.indices) for b in batches.iterate(epoch)} for epoch in (0, 1)]
    assert slices[0] == slices[1]
    assert all(list(s) == list(range(s[0], s[0] + len(s))) for s in slices[0])


@pytest.mark.parametrize("regime", ["one_task", "mixed"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_oversampling_walks_whole_passes(tasks, regime, sampler):
    sampler = SAMPLERS.get(sampler)(oversample=True)
    batches = make(tasks, regime=regime, sampler=sampler)
    rows = [row for epoch in range(4) for row in seen(batches, epoch)]
    assert len(rows) == 4 * sum(sampler.quotas(SIZES).values())
    for t, n in enumerate(SIZES.values()):
        counts = np.bincount([i for task, i in rows if task == t], minlength=n)
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == 4 * sampler.quotas(SIZES)[list(SIZES)[t]]


@pytest.mark.parametrize("settings", [{"regime": "one_task"}, {"regime": "mixed"}, {"tokens": 150}])
def test_a_plan_is_a_function_of_seed_and_epoch(tasks, settings):
    assert seen(make(tasks, **settings), 2) == seen(make(tasks, **settings), 2)
    assert seen(make(tasks, **settings), 2) != seen(make(tasks, seed=1, **settings), 2)
    late = make(tasks, **settings)
    rest = [tuple(b.indices) for b in late.iterate(1, start=5)]
    assert rest == [tuple(b.indices) for b in late.iterate(1)][5:]


def test_one_task_batches_hold_one_task(tasks):
    assert all(len(batch.segments) == 1 for batch in make(tasks, regime="one_task").iterate(0))
    assert any(len(batch.segments) > 1 for batch in make(tasks, regime="mixed").iterate(0))


def test_rows_are_what_the_task_holds(tasks):
    encoded = list(tasks.values())
    for batch in make(tasks).iterate(0):
        assert [start for _, start, _ in batch.segments] == [0, *[stop for _, _, stop in batch.segments[:-1]]]
        assert batch.count == len(batch.input_ids) == batch.segments[-1][2]
        for (task, start, stop), labels in zip(batch.segments, batch.labels, strict=True):
            for row in range(start, stop):
                ids = batch.input_ids[row][batch.attention_mask[row].bool()]
                assert ids.tolist() == encoded[task].input_ids(batch.indices[row]).tolist()
                assert labels[row - start] == encoded[task].labels[batch.indices[row]]
            assert (batch.input_ids[start:stop][batch.attention_mask[start:stop] == 0] == 0).all()


def test_widths_come_from_the_list(tasks):
    batches = make(tasks, edges=(16, 32, 48))
    assert {batch.input_ids.shape[1] for batch in batches.iterate(0)} <= {16, 32, 48}


def test_longer_than_the_last_edge_is_not_cut(tasks):
    batches = make(tasks, edges=(4,))
    longest = max(task.lengths.max() for task in tasks.values())
    assert max(batch.input_ids.shape[1] for batch in batches.iterate(0)) == longest


def test_buckets_save_padding(tasks):
    def cells(**settings):
        return sum(batch.input_ids.numel() for batch in make(tasks, **settings).iterate(0))

    assert cells() < cells(buckets=False)


def test_a_token_budget_is_kept(tasks):
    for batch in make(tasks, tokens=150).iterate(0):
        assert batch.input_ids.numel() <= 150 or len(batch.input_ids) == 1


@pytest.mark.parametrize("regime", ["one_task", "mixed"])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch(tasks, regime, world):
    settings = BatchSettings(size=8, regime=regime)
    ranks = [TaskBatches(tasks, settings, 0, 0, share=(rank, world)) for rank in range(world)]
    rows = []
    for shares in zip(*(rank.iterate(0) for rank in ranks), strict=True):
        assert len({share.count for share in shares}) == 1
        if regime == "one_task":
            assert len({task for share in shares for task, _, _ in share.segments}) == 1
        own = [
            (task, int(i))
            for share in shares
            if share.weight
            for task, start, stop in share.segments
            for i in share.indices[start:stop]
        ]
        assert len(own) == shares[0].count
        rows += own
    assert sorted(rows) == EVERY


def test_only_cuda_wants_pinned_memory(tasks, monkeypatch):
    def refuse(tensor):
        raise RuntimeError("memory is pinned for CUDA alone")

    real = torch.Tensor.to
    waits = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: waits.append(k) or real(tensor, *a, **k))
    batch = next(make(tasks).iterate(0))
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))  # like any device that is not CUDA
    tensors = [moved.input_ids, moved.attention_mask, moved.token_type_ids, *moved.labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert waits and not any(waits)
    assert moved.input_ids.shape == batch.input_ids.shape and moved.segments == batch.segments


def test_one_pass_for_evaluation(tasks):
    rows = []
    for batch in passes_over(tasks, BatchSettings(size=16), 0, index={"a": 5, "b": 1, "c": 3}):
        rows += [(task, int(i)) for task, start, stop in batch.segments for i in batch.indices[start:stop]]
    places = dict(zip((5, 1, 3), SIZES.values(), strict=True))
    assert sorted(rows) == sorted((t, i) for t, n in places.items() for i in range(n))


@pytest.mark.parametrize(
    "settings", [{"fixed": True}, {"edges": ()}, {"edges": (8, 4)}, {"fixed": True, "regime": "one_task", "tokens": 9}]
)
def test_settings_that_contradict_themselves(settings):
    with pytest.raises(pydantic.ValidationError):
        BatchSettings(**settings)
