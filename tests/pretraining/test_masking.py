"""Each sequence once a pass; batches are pure functions of their number; masks at the right rates."""

import numpy as np
import pytest
import torch

from mtl_tickets.pretraining.masking import Course, mask_tokens
from mtl_tickets.pretraining.sequences import Packed

from .made import SPECIAL, V, batches, neighbouring_batches, paired_batches, running


def restored(batch):
    """The sequences as they were before masking, without padding."""
    rows = batch.input_ids.clone().flatten()
    rows[batch.positions] = batch.labels
    rows = rows.view(batch.input_ids.shape)
    if batch.attention_mask is None:
        return rows.tolist()
    return [row[mask.bool()].tolist() for row, mask in zip(rows, batch.attention_mask, strict=True)]


def test_every_chunk_once_a_pass():
    source = batches(chunks=53, size=8)
    sizes = [len(source.batch(number).input_ids) for number in range(14)]
    assert sizes == [8, 8, 8, 8, 8, 8, 5] * 2
    for turn in range(2):
        np.testing.assert_array_equal(np.sort(source.order(turn)), np.arange(53))
    assert not np.array_equal(source.order(0), source.order(1))
    contents = [row[1:-1] for batch in source.one_pass() for row in restored(batch)]
    assert sorted(contents) == sorted(running(530).ids.reshape(53, 10).tolist())


def test_unequal_sequences_come_once_a_pass_in_batches_of_like_length():
    source = paired_batches(size=4)
    orders = [source.order(turn) for turn in range(2)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), source.chosen)
    assert not np.array_equal(*orders)
    spread = [np.ptp(source.sequences.sizes[orders[0][i : i + 4]]) for i in range(0, len(orders[0]), 4)]
    shuffled = np.random.default_rng(0).permutation(orders[0])
    by_chance = [np.ptp(source.sequences.sizes[shuffled[i : i + 4]]) for i in range(0, len(shuffled), 4)]
    assert np.mean(spread) < 0.5 * np.mean(by_chance)


def test_the_first_passage_of_every_pair_is_seen():
    source = paired_batches()
    pairs = source.sequences
    firsts = sorted(
        pairs.ids[start:split].tolist() for (start, _), split in zip(pairs.spans, pairs.splits, strict=True)
    )
    seen = [row[1 : row.index(SPECIAL.sep)] for batch in source.one_pass() for row in restored(batch)]
    assert sorted(seen) == firsts


@pytest.mark.parametrize("made", [batches, paired_batches])
def test_batches_are_a_pure_function_of_seed_and_number(made):
    fresh, used = made(), made()
    for number in (25, 3, 11):
        used.batch(number)
    for number in (0, 3, 9, 29):
        a, b = fresh.batch(number), used.batch(number)
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.positions, b.positions)
    assert not torch.equal(made(seed=4).batch(0).input_ids, fresh.batch(0).input_ids)


def test_masks_change_from_pass_to_pass():
    source = batches(chunks=8, size=8)
    order = [np.argsort(source.order(n)) for n in range(2)]
    places = []
    for number in range(2):
        mask = np.zeros(8 * 12, dtype=bool)
        mask[source.batch(number).positions] = True
        places.append(mask.reshape(8, 12)[order[number]])
    assert (places[0] != places[1]).any()


@pytest.mark.parametrize("made", [batches, paired_batches])
def test_tokens_are_counted_and_budgets_met_with_the_fewest_batches(made):
    source = made()
    sizes = [source.sequences.sizes[source.order(turn)] for turn in range(2)]
    counted = [part[i : i + source.size].sum() for part in sizes for i in range(0, len(part), source.size)]
    for number in (0, 1, 3, source.per_pass, source.per_pass + 2):
        assert source.tokens_in(number) == sum(counted[:number])
    for tokens in (1, 17, 80, 81, source.pass_tokens, source.pass_tokens + 1):
        number = source.batches_for(tokens)
        assert source.tokens_in(number - 1) < tokens <= source.tokens_in(number)


def test_legs_follow_each_other_without_gap_or_twin():
    source = batches()
    whole, cut = Course([(source, 20)]), Course([(source, 20)], legs=6)
    one = [b.input_ids for b in whole.iterate(0)]
    many = [b.input_ids for leg in range(6) for b in cut.iterate(leg)]
    assert sum(cut.batches_in(leg) for leg in range(6)) == 20
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert cut.tokens_after(5) == whole.tokens_after(0) == sum(len(b) for b in one) * 10
    assert [len(list(cut.iterate(2, start=1))), cut.batches_in(2)] == [3, 4]


def test_parts_of_a_course_come_one_after_the_other():
    short, long = batches(length=12), batches(length=22, chunks=25)
    course = Course([(short, 5), (long, 3)], legs=4)
    lengths = [b.input_ids.shape[1] for leg in range(4) for b in course.iterate(leg)]
    assert lengths == [12] * 5 + [22] * 3
    assert torch.equal(course.batch(6).input_ids, long.batch(1).input_ids)
    assert [course.part_after(leg) for leg in range(4)] == [short, short, long, long]
    assert course.tokens_after(3) == short.tokens_in(5) + long.tokens_in(3)
    assert Course([(short, 0), (long, 3)], legs=9).legs == 3


@pytest.mark.parametrize("share", [0.15, 0.2])
def test_rates_and_special_tokens(share):
    packed = Packed(running(40_000), SPECIAL, 102)
    tokens = packed.rows(np.arange(400), None, np.random.default_rng(0)).ids
    inputs, predicted = mask_tokens(tokens, SPECIAL, share, np.random.default_rng(0))
    assert not predicted[np.isin(tokens, SPECIAL.special)].any()
    np.testing.assert_array_equal(predicted.sum(axis=1), round(share * 100))
    np.testing.assert_array_equal(inputs[~predicted], tokens[~predicted])
    masked = (inputs == SPECIAL.mask)[predicted].mean()
    kept = (inputs == tokens)[predicted].mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    # a random token is the same one by chance once in V - 5 draws
    assert kept == pytest.approx(0.1 + 0.1 / (V - 5), abs=0.015)
    assert np.isin(inputs[predicted], np.append(SPECIAL.ordinary, SPECIAL.mask)).all()


def test_rows_of_special_tokens_predict_what_is_left():
    tokens = np.full((2, 22), SPECIAL.sep)
    tokens[1, 7] = 9
    _, predicted = mask_tokens(tokens, SPECIAL, 0.2, np.random.default_rng(0))
    assert predicted.sum() == 1
    assert predicted[1, 7]


def test_padded_rows_have_the_share_of_their_own_length():
    tokens = np.full((3, 42), 9)
    tokens[:, 0] = SPECIAL.cls
    real = np.arange(42) < np.array([[42], [22], [4]])
    _, predicted = mask_tokens(tokens, SPECIAL, 0.2, np.random.default_rng(0), real)
    assert predicted.sum(axis=1).tolist() == [8, 4, 1]
    assert not predicted[~real].any()


@pytest.mark.parametrize("made", [batches, paired_batches, neighbouring_batches])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(made, world):
    whole = made()
    shares = [made(rank=rank, world=world) for rank in range(world)]
    for number in range(whole.per_pass):
        batch = whole.batch(number)
        parts = [share.batch(number) for share in shares]
        assert {part.count for part in parts} == {batch.count}
        assert {part.pairs for part in parts} == {batch.pairs}
        rows = [row for part in parts if part.weight for row in part.input_ids.tolist()]
        assert sorted(rows) == sorted(batch.input_ids.tolist())
        assert sum(len(part.labels) for part in parts if part.weight) == batch.count
