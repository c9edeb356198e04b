import itertools
import json

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.linkage import agglomeration, cut


def similarities(names, seed):
    generator = np.random.default_rng(seed)
    values = {frozenset(pair): float(generator.random()) for pair in itertools.combinations(names, 2)}
    return {one: {two: values.get(frozenset((one, two)), 1.0) for two in names} for one in names}


def condensed(alike):
    return squareform(np.array([[1 - alike[one][two] for two in sorted(alike)] for one in sorted(alike)]), checks=False)


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_scipys_average_linkage(seed):
    names = "abcdefgh"
    alike = similarities(names, seed)
    reference = linkage(condensed(alike), "average")
    merges = agglomeration(alike)
    np.testing.assert_allclose([merge["height"] for merge in merges], reference[:, 2], rtol=1e-12)
    assert [sum(map(len, merge["groups"])) for merge in merges] == reference[:, 3].tolist()
    for count in range(1, len(names) + 1):
        labels = fcluster(reference, count, "maxclust")
        expected = sorted([n for n, label in zip(names, labels, strict=True) if label == k] for k in set(labels))
        assert cut(names, merges, groups=count) == expected


def test_heights_rise_and_the_last_merge_holds_everybody():
    merges = agglomeration(similarities("abcdef", 4))
    assert len(merges) == 5
    assert sorted(merge["height"] for merge in merges) == [merge["height"] for merge in merges]
    assert sorted(itertools.chain(*merges[-1]["groups"])) == list("abcdef")
    assert json.loads(json.dumps(merges)) == merges


def test_ties_do_not_depend_on_the_order_of_the_tasks():
    pairs = {"ab", "bc", "cd"}  # equally similar: which of them is joined first decides the groups
    alike = {x: {y: 1.0 if x == y else 0.5 * ("".join(sorted(x + y)) in pairs) for y in "abcd"} for x in "abcd"}
    expected = agglomeration(alike)
    assert [merge["groups"] for merge in expected] == [[["a"], ["b"]], [["c"], ["d"]], [["a", "b"], ["c", "d"]]]
    for order in itertools.permutations("abcd"):
        shuffled = {x: {y: alike[x][y] for y in order} for x in order}
        assert agglomeration(shuffled) == expected
        assert cut(order, expected, groups=3) == [["a", "b"], ["c"], ["d"]]


def test_a_cut_at_a_merges_own_similarity_includes_it():
    alike = similarities("abcde", 5)
    merges = agglomeration(alike)
    for done, merge in enumerate(merges, 1):
        assert cut(alike, merges, similarity=merge["similarity"]) == cut(alike, merges, groups=5 - done)


@pytest.mark.parametrize("settings", [{}, {"similarity": 0.5, "groups": 2}, {"groups": 0}, {"groups": 4}])
def test_what_cannot_be_cut_is_refused(settings):
    with pytest.raises(TicketError, match="groups"):
        cut("abc", agglomeration(similarities("abc", 1)), **settings)


def test_a_task_alone_is_a_group():
    assert agglomeration({"a": {"a": 1.0}}) == []
    assert cut("a", [], groups=1) == cut("a", [], similarity=0.5) == [["a"]]
