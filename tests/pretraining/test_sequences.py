"""Sequences hold the text they say, pairs are of one document, and what is held out is never trained on."""

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from mtl_tickets.errors import DataError
from mtl_tickets.pretraining.sequences import NO_PAIR, Neighbours, Packed, PassagePairs, held_spans, parted
from mtl_tickets.pretraining.text import TokenText

from .made import SPECIAL, documents, running

SHAPES = [[3, 4], [2, 2, 2, 9], [30], [7], [5, 5, 5, 5, 5, 5, 5], [1, 1], [25, 3]]
LENGTH = 15


def pairs(shapes=SHAPES, length=LENGTH):
    return PassagePairs(documents(shapes), SPECIAL, length)


def rows_of(sequences, seed=0, pool=None):
    numbers = np.arange(len(sequences.sizes))
    rows = sequences.rows(numbers, sequences.pool(numbers if pool is None else pool), np.random.default_rng(seed))
    ids = [row[real].tolist() for row, real in zip(rows.ids, rows.real, strict=True)]
    return rows, ids


def test_neighbours_are_chunks_that_follow_each_other_row_by_row():
    text = running(7 * 10 + 3)
    chunks, made = Packed(text, SPECIAL, 12), Neighbours(text, SPECIAL, 12)
    # the seventh has no neighbour
    assert (len(made.spans), made.sizes.tolist()) == (3, [20, 20, 20])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(
        made.rows([2, 0], None, rng).ids, np.asarray(chunks.rows([4, 5, 0, 1], None, rng).ids)
    )
    np.testing.assert_array_equal(made.spans, [[0, 20], [20, 40], [40, 60]])


def test_pairs_cover_every_token_of_the_text_once_and_keep_to_a_document():
    text, made = documents(SHAPES), pairs()
    covered = np.concatenate([np.arange(start, stop) for start, stop in made.spans])
    assert sorted(covered) == np.flatnonzero(text.ids != SPECIAL.sep).tolist()
    for start, stop in made.spans:
        assert np.searchsorted(text.ends, start, side="right") == np.searchsorted(text.ends, stop - 1, side="right")
    assert (made.sizes == made.spans[:, 1] - made.spans[:, 0]).all()
    assert (made.sizes <= LENGTH - 3).all()


def test_passages_stand_between_their_marks():
    made = pairs()
    rows, ids = rows_of(made)
    assert rows.ids.shape[1] == max(map(len, ids)) <= LENGTH
    for number, row in enumerate(ids):
        (start, stop), split = made.spans[number], made.splits[number]
        marks = [i for i, token in enumerate(row) if token == SPECIAL.sep]
        assert row[0] == SPECIAL.cls
        assert marks[-1] == len(row) - 1
        assert row[1 : marks[0]] == made.ids[start:split].tolist()
        if rows.follows[number] == NO_PAIR:
            assert len(marks) == 1
        else:
            second = row[marks[0] + 1 : -1]
            assert (second == made.ids[split:stop].tolist()) == (rows.follows[number] == 1)
            kinds = rows.types[number, : len(row)]
            np.testing.assert_array_equal(kinds, np.arange(len(row)) > marks[0])
    assert set(rows.follows) == {NO_PAIR, 0, 1}


def test_half_of_the_second_passages_are_drawn_from_the_pool_alone():
    made = pairs([[4, 4]] * 2000)
    pool = np.arange(0, 2000, 5)
    rows, ids = rows_of(made, pool=pool)
    assert np.mean(rows.follows == 0) == pytest.approx(0.5, abs=0.05)
    allowed = {tuple(made.ids[made.splits[n] : made.spans[n, 1]].tolist()) for n in pool}
    assert {tuple(ids[n][6:-1]) for n in np.flatnonzero(rows.follows == 0)} <= allowed


def test_lengths_do_not_tell_what_was_drawn():
    shapes = np.random.default_rng(1).integers(2, 30, size=(4000, 3)).tolist()
    made = pairs(shapes, length=40)
    rows, ids = rows_of(made)
    marks = [row.index(SPECIAL.sep) for row in ids]
    lengths = np.array([[mark - 1, len(row) - mark] for mark, row in zip(marks, ids, strict=True)])
    paired = rows.follows != NO_PAIR
    train, test = np.arange(len(ids)) % 2 == 0, np.arange(len(ids)) % 2 == 1
    tree = DecisionTreeClassifier(max_depth=4, random_state=0).fit(
        lengths[paired & train], rows.follows[paired & train]
    )
    assert tree.score(lengths[paired & test], rows.follows[paired & test]) < 0.54


def test_a_document_is_parted_where_a_line_ends_near_the_middle():
    made = pairs([[2, 2, 6], [6, 2, 2]])
    assert (made.splits - made.spans[:, 0]).tolist() == [4, 6]


def test_a_line_longer_than_half_a_sequence_is_a_pair():
    assert pairs([[11]]).splits.tolist() == [6]


def test_documents_without_words_are_nowhere():
    empty = documents([[], [], [3, 4], [], [5, 2]])
    made = PassagePairs(TokenText(empty.ids, empty.ends, empty.lines, "x"), SPECIAL, LENGTH)
    covered = np.concatenate([np.arange(start, stop) for start, stop in made.spans])
    assert covered.tolist() == np.flatnonzero(empty.ids != SPECIAL.sep).tolist()


@pytest.mark.parametrize("shapes", [[[5]], [[3], [4]]])
def test_text_without_pairs_is_refused(shapes):
    with pytest.raises(DataError, match="two lines"):
        pairs(shapes)


@pytest.mark.parametrize(("tokens", "share"), [(20, 0.01), (400, 0.1), (9990, 0.01), (123450, 0.03), (10000, 0.5)])
def test_held_out_is_a_share_in_stretches(tokens, share):
    held = held_spans(tokens, share, 10)
    wanted = max(1, round(share * (tokens // 10)))
    assert (held[:, 1] - held[:, 0]).sum() == wanted * 10
    assert len(held) <= max(1, min(100, wanted // 8))
    assert (held[1:, 0] >= held[:-1, 1]).all()
    assert held[0, 0] >= 0
    assert held[-1, 1] <= tokens
    assert not len(held_spans(tokens, 0.0, 10))


@pytest.mark.parametrize("length", [12, 9, 31])
@pytest.mark.parametrize("kind", [Packed, PassagePairs])
def test_no_token_is_both_trained_on_and_held_out(kind, length):
    made = kind(running(5000), SPECIAL, length)
    held = held_spans(5000, 0.1, 3 * length)
    trained, kept = parted(made, held)
    inside = np.zeros(5000, dtype=bool)
    for start, stop in held:
        inside[start:stop] = True
    assert all(not inside[start:stop].any() for start, stop in made.spans[trained])
    assert all(inside[start:stop].all() for start, stop in made.spans[kept])
    mixed = np.setdiff1d(np.arange(len(made.spans)), np.concatenate([trained, kept]))
    assert all(0 < inside[start:stop].mean() < 1 for start, stop in made.spans[mixed])
    assert len(kept)
