"""Studies of a small world, really run: shared stages, stops, several processes, tables."""

import gc
import json
import multiprocessing
import os
import signal

import pytest
import yaml
from typer.testing import CliRunner

from mtl_tickets.cli import app
from mtl_tickets.errors import InputError
from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.experiment import load_experiment
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.choice import best_rungs
from mtl_tickets.report.standings import standings
from mtl_tickets.report.study import gather_study
from mtl_tickets.report.tables import AVERAGE
from mtl_tickets.running import run_experiment
from mtl_tickets.study import load_study
from mtl_tickets.study.runs import run_study
from tests.end_to_end.world import write_world

RULES = ["own", "union", "random"]
TASKS = ["feelings", "same"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study of two points, which differ in the multi-task training alone, with two seeds."""
    folder = tmp_path_factory.mktemp("study")
    write_world(folder)
    experiment = yaml.safe_load((folder / "small.yaml").read_text())
    experiment["tasks"] = TASKS
    experiment["recipe"]["controls"] = []
    experiment["recipe"]["ladder"] = {"kind": "free", "heads": [0.5], "ffn": [0.5]}
    experiment["recipe"]["train"]["epochs"] = 1
    experiment["recipe"]["choice"] = {"borrow": 50}
    (folder / "small.yaml").write_text(yaml.safe_dump(experiment))
    study = {
        "name": "two-points",
        "experiment": "small.yaml",
        "rules": RULES,
        "seeds": [1, 2],
        "grid": {"recipe.multi.epochs": [1, 2]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


def load(place, output):
    return load_study(place / "study.yaml", [f"output={place / output}"])


@pytest.fixture(scope="module")
def done(place):
    """A study, and how many lists of rows there were in memory when each of its runs began, and in the end."""
    study, lists = load(place, "once"), []

    def count(line):
        gc.collect()  # rows themselves are nothing that the collector follows
        found = [kept for kept in gc.get_objects() if type(kept) is list and kept and type(kept[0]) is dict]
        lists.append(sum({"stage", "metric", "value"} <= {*kept[0]} for kept in found))

    run_study(study, told=count)
    count("the end")
    return study, lists


@pytest.fixture(scope="module")
def study(done):
    return done[0]


def results(study):
    """Every run's rows, by point and seed."""
    return {(run.point.name, run.seed): (run.path / "results.jsonl").read_bytes() for run in study.runs}


def test_all_points_have_all_seeds(study):
    assert len(study.points) == 2
    assert all(run.finished for run in study.runs)
    index = json.loads((study.folder / "study.json").read_text())
    assert [point["values"] for point in index["points"]] == [point.values for point in study.points]
    assert all((study.folder / point["folder"] / "seed-2" / "record.json").is_file() for point in index["points"])


def test_what_runs_found_does_not_stay_in_memory(done):
    study, lists = done
    assert lists == [lists[0]] * (len(study.runs) + 1) and len(lists) == 5


def test_a_point_s_numbers_are_those_of_its_experiment_alone(study, place):
    point = study.points[1]
    alone = load_experiment(
        place / "small.yaml",
        [f"output={place / 'alone'}", "recipe.multi.epochs=2", f"recipe.sharing={json.dumps(RULES)}", "seeds=[1, 2]"],
    )
    assert alone.digest == point.loaded.digest
    run_experiment(alone, [2])
    in_the_study = point.loaded.folder / "seed-2" / "results.jsonl"
    assert in_the_study.read_bytes() == (alone.folder / "seed-2" / "results.jsonl").read_bytes()


def test_common_stages_are_computed_once(study):
    first, second = (point.loaded.folder / "seed-1" / "stages" for point in study.points)
    for stage in ("single/same", "ladder/same/winning-1", "scores/same"):
        taken = json.loads((second / stage / "done.json").read_text())["taken"]
        assert (study.shared.folder / taken["made_from"] / "done.json").is_file()
        assert "taken" not in json.loads((first / stage / "done.json").read_text())
    assert "taken" not in json.loads((second / "multi/own/done.json").read_text())
    # another seed shares nothing
    other = study.points[0].loaded.folder / "seed-2" / "stages"
    assert "taken" not in json.loads((other / "single/same/done.json").read_text())


def test_a_stopped_study_goes_on_and_ends_with_the_same_numbers(study, place):
    class KilledAfter(Silent):
        def __init__(self, steps):
            self.steps = steps

        def advance(self, work):
            self.steps -= work
            if self.steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    again = load(place, "stopped")
    for steps in (20, 40):
        process = multiprocessing.get_context("fork").Process(target=run_study, args=(again, KilledAfter(steps)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    partial = gather_study(again.folder)
    assert any(point.report is None or point.report.missing for point in partial.points)
    run_study(again)
    assert results(again) == results(study)
    assert what_is_said(again) == what_is_said(study)


def test_two_processes_divide_a_study_between_them(study, place):
    both = load(place, "both")
    workers = [multiprocessing.get_context("fork").Process(target=run_study, args=(both,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert results(both) == results(study)


def test_a_finished_study_is_not_run_again(study):
    before = {path: path.stat().st_mtime_ns for path in study.folder.rglob("done.json")}
    run_study(study)
    assert before == {path: path.stat().st_mtime_ns for path in study.folder.rglob("done.json")}


def test_the_table_is_made_from_the_rows(study):
    found = gather_study(study.folder)
    assert [point.name for point in found.points] == [point.name for point in study.points]
    for point, of_plan in zip(found.points, study.points, strict=True):
        report = point.report
        assert report.seeds == (1, 2) and not report.missing
        rows = read_rows(of_plan.loaded.folder / "seed-1" / "results.jsonl")
        by_hand = [
            row.value
            for row in rows
            if row.stage == "multi/union" and row.metric == "score" and row.split != "selection"
        ]
        column = [method.name for method in report.methods].index("union")
        assert report.scores.lines[AVERAGE][column].values[0] == pytest.approx(sum(by_hand) / len(by_hand))
        order = standings(report, report.judgements[0])
        assert {item.heading for item in order} == {"dense multi-task", "own tickets", "union", "random"}
        assert [item.outcome for item in order].count("baseline") == 1
        averages = [item.average.mean for item in order]
        assert averages == sorted(averages, reverse=True)


def test_rungs_were_chosen_with_what_is_borrowed(study):
    for run in study.runs:
        done = {task: json.loads((run.path / f"stages/choose/{task}/done.json").read_text()) for task in TASKS}
        rows = read_rows(run.path / "results.jsonl")
        held_out = {r.task: r.n for r in rows if (r.stage, r.split, r.metric) == ("single", "selection", "score")}
        expected = best_rungs({task: found["curve"] for task, found in done.items()}, held_out, borrow=50)
        assert {task: found["chosen"] for task, found in done.items()} == expected


def test_every_baseline_is_judged_and_the_first_one_decides(place, study):
    asked = load_study(place / "study.yaml", [f"output={place / 'once'}", "baselines=[own, dense]"])
    assert asked.folder == study.folder  # what is compared changes no number
    run_study(asked)
    report = gather_study(asked.folder).points[0].report
    assert [judgement.baseline for judgement in report.judgements] == ["own", "dense", "single-task"]
    run_study(study)


@pytest.mark.parametrize("width", [80, 140])
def test_the_command_shows_the_table_whole_and_writes_the_report(study, place, width):
    asked = ["study", str(place / "study.yaml"), "--set", f"output={place / 'once'}", "--table"]
    shown = CliRunner().invoke(app, asked, env={"COLUMNS": str(width)})
    assert shown.exit_code == 0, shown.output
    assert "…" not in shown.stdout
    report = gather_study(study.folder).points[0].report
    for item in standings(report, report.judgements[0]):
        assert any(all(cell in line for cell in item.cells(bounds=False)) for line in shown.stdout.splitlines())
    assert str(study.folder / "report.html") in shown.stdout
    assert (study.folder / "report.html").is_file() and (study.points[1].loaded.folder / "report.html").is_file()


def what_is_said(study):
    """Of every point: its tables and judgements."""
    points = gather_study(study.folder).points
    return [(point.name, point.report.scores, point.report.judgements) for point in points]


def test_a_run_that_fails_keeps_no_other_from_being_done(place, tmp_path):
    settings = ["seeds=[1]", "grid.recipe.multi.epochs=[1]", "grid.recipe.train.optimiser.lr=[1e12, 1e-3]"]
    study, lines = load_study(place / "study.yaml", [*settings, f"output={tmp_path}"]), []
    with pytest.raises(InputError, match="lower the learning rate") as error:
        run_study(study, told=lines.append)
    (problem,) = error.value.problems
    assert study.runs[0].name in problem.place
    assert [run.finished for run in study.runs] == [False, True]
    assert sum(": failed, " in line for line in lines) == 1
