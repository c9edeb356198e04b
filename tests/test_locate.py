"""Finding models and tickets from any path a user may give."""

import json
from pathlib import Path

import pytest

from mtl_tickets.errors import InputError
from mtl_tickets.locate import find_models, find_tickets, runs_in
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin

SPACE = StructuredSpace.of(layers=2, heads=3, hidden=12, intermediate=24, total=10_000)


@pytest.fixture
def experiment(tmp_path) -> Path:
    """Seeds 2 and 10 with models and tickets, seed 11 stopped early."""
    for seed in (2, 10, 11):
        run = tmp_path / "exp-abc" / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("name: exp\n", encoding="utf-8")
        if seed == 11:
            continue
        for rule in ("own", "union"):
            (run / "model" / rule).mkdir(parents=True)
            (run / "model" / rule / "tasks.json").write_text("{}", encoding="utf-8")
            for task in ("rte", "mrpc"):
                ticket = Ticket(SPACE, Ticket.dense(SPACE).units, TicketOrigin(task=task))
                ticket.save(run / "tickets" / rule / task)
        # adaptive came out equal to own: its stage says whose model it has
        done = run / "stages/multi/adaptive/done.json"
        done.parent.mkdir(parents=True)
        done.write_text(json.dumps({"model": "model/own", "same_as": "multi/own"}), encoding="utf-8")
    return tmp_path / "exp-abc"


def test_an_experiment_folder_has_its_seeds_in_order_of_number(experiment):
    assert [run.name for run in runs_in(experiment)] == ["seed-2", "seed-10", "seed-11"]


def test_models_are_those_of_the_seeds_that_have_got_so_far(experiment):
    assert [place.seed for place in find_models(experiment, "union")] == [2, 10]
    with pytest.raises(InputError, match="no model yet"):
        find_models(experiment / "seed-11")


def test_a_rule_that_shares_the_model_of_another_finds_it(experiment):
    (place,) = find_models(experiment / "seed-2", "adaptive")
    assert place.folder == experiment / "seed-2/model/own"


def test_adaptive_is_asked_for_by_default(experiment):
    assert find_models(experiment / "seed-2")[0].rule == "adaptive"


def test_a_model_folder_knows_its_run(experiment):
    (place,) = find_models(experiment / "seed-10/model/union")
    assert (place.run, place.rule, place.seed) == (experiment / "seed-10", "union", 10)


def test_an_unknown_rule_is_answered_with_the_nearest(experiment):
    with pytest.raises(InputError, match="'union'"):
        find_models(experiment, "unoin")
    with pytest.raises(InputError, match="'union'"):
        find_tickets([experiment / "seed-2"], "unoin")


@pytest.mark.parametrize("path", ["exp-abd", "exp-abc/seed-2/model", "exp-abc/seed-2/config.yaml"])
def test_a_path_without_runs_is_an_error(experiment, path):
    with pytest.raises(InputError):
        runs_in(experiment.parent / path)


def test_tickets_have_the_shortest_names_that_tell_them_apart(experiment):
    one = experiment / "seed-2"
    assert sorted(find_tickets([one])) == ["mrpc", "rte"]
    assert sorted(find_tickets([experiment], tasks=["rte"])) == ["seed-10/rte", "seed-2/rte"]
    files = [one / "tickets" / rule / "rte.safetensors" for rule in ("own", "union")]
    assert list(find_tickets(files)) == ["own/rte", "union/rte"]


def test_an_unknown_task_is_answered_with_the_nearest(experiment):
    with pytest.raises(InputError, match="'mrpc'"):
        find_tickets([experiment / "seed-2"], tasks=["mprc"])
