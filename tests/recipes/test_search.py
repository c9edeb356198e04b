"""Halving trains what the best rungs need and nothing twice."""

import pydantic
import pytest

from mtl_tickets.recipes import search
from mtl_tickets.recipes.jobs import Training
from mtl_tickets.recipes.search import SearchSettings, worth_finishing
from mtl_tickets.training.loop import TrainSettings

STEPS = 40


@pytest.fixture(autouse=True)
def looks_from_a_table(monkeypatch):
    monkeypatch.setattr(search, "look_each", lambda bench, looks: bench.look_each(looks))
    monkeypatch.setattr(search, "give_up", lambda bench, look: bench.give_up(look))


class Bench:
    """Scores come from a table: (task, rung) -> its score at every look."""

    def __init__(self, scores):
        self.scores = scores
        self.trained = {}
        self.given_up = []

    def steps(self, tasks, settings):
        return STEPS

    def look_each(self, looks):
        found = {}
        for look in looks:
            number, task, name = look.stage.split("/")
            self.trained[task, name] = look.until
            found[look.stage] = self.scores[task, name][int(number.removeprefix("look-")) - 1]
        return found

    def give_up(self, look):
        self.given_up.append(look.training.stage)


def trainings(scores):
    rungs = {}
    for task, name in scores:
        training = Training(f"ladder/{task}/{name}", f"ladder/{name}", (task,), TrainSettings())
        rungs.setdefault(task, {})[name] = training
    return rungs


def finished(scores, **settings):
    bench = Bench(scores)
    chosen = worth_finishing(bench, SearchSettings(**settings), trainings(scores))
    for training in chosen:
        _, task, name = training.stage.split("/")
        bench.trained[task, name] = STEPS
    return [training.stage for training in chosen], bench


EIGHT = {("a", f"winning-{k}"): (10 + value, 10 + value) for k, value in enumerate((1, 5, 7, 6, 4, 3, 2, 0), 1)}


def test_all_rungs_are_trained_as_published_unless_asked_otherwise():
    stages, bench = finished(EIGHT)
    assert len(stages) == 8
    assert set(bench.trained.values()) == {STEPS}


def test_the_best_go_on_and_the_steps_are_those_foretold():
    stages, bench = finished(EIGHT, kind="halving")
    assert stages == ["ladder/a/winning-3", "ladder/a/winning-4"]
    assert sorted(bench.trained.values()) == [8] * 3 + [12] * 3 + [40] * 2
    assert sum(bench.trained.values()) == SearchSettings(kind="halving").steps(8, STEPS)
    assert len(bench.given_up) == 6
    # the bound that makes the search worth its name: 43.75 % of the published steps
    assert SearchSettings(kind="halving").steps(8, 1000) == 3500


def test_ranks_may_change_between_looks():
    scores = {("a", "winning-1"): (3, 0), ("a", "winning-2"): (2, 9), ("a", "winning-3"): (1, 99)}
    stages, _ = finished(scores, kind="halving", keep=(2, 1))
    assert stages == ["ladder/a/winning-2"]


def test_rungs_are_compared_by_all_that_was_seen():
    scores = {("a", "winning-1"): (9, 5), ("a", "winning-2"): (2, 6), ("a", "winning-3"): (1, 1)}
    stages, _ = finished(scores, kind="halving", keep=(2, 1))
    assert stages == ["ladder/a/winning-1"]


def test_of_equals_the_smaller_ticket_goes_on():
    stages, _ = finished({("a", f"winning-{k}"): (1, 1) for k in range(1, 5)}, kind="halving", keep=(2, 1))
    assert stages == ["ladder/a/winning-4"]


def test_tasks_do_not_compete():
    scores = EIGHT | {("b", name): (score / 100, score / 100) for (_, name), (score, _) in EIGHT.items()}
    stages, _ = finished(scores, kind="halving")
    assert stages == [f"ladder/{task}/winning-{rung}" for task in "ab" for rung in (3, 4)]


def test_a_ladder_no_longer_than_what_is_kept_is_not_looked_at():
    few = {("a", f"winning-{k}"): (k, k) for k in (1, 2)}
    stages, bench = finished(few, kind="halving", looks=[0.25], keep=[2])
    assert len(stages) == 2
    assert sum(bench.trained.values()) == SearchSettings(kind="halving", looks=[0.25], keep=[2]).steps(2, STEPS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"looks": [0.5]}, "one length"),
        ({"looks": [0.5, 0.25]}, "looks must rise"),
        ({"keep": [1, 3]}, "keep must fall"),
        ({"looks": [0.5, 1.0]}, "less than 1"),
    ],
)
def test_what_makes_no_search_is_refused(wrong, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        SearchSettings(kind="halving", **wrong)


def test_a_look_is_at_least_a_step_and_at_most_the_whole():
    settings = SearchSettings(kind="halving", looks=[0.01, 0.999], keep=[2, 1])
    bench = Bench({("a", f"winning-{k}"): (k, k) for k in range(1, 4)})
    untils = []
    bench.look_each = lambda looks: [untils.append(look.until) for look in looks] and {k.stage: 0.0 for k in looks}
    bench.steps = lambda tasks, train: 3
    worth_finishing(bench, settings, trainings(bench.scores))
    assert set(untils) == {1, 3}
    assert settings.steps(3, 3) == 3 * 1 + 2 * 2
