"""The main job on a small world, as users run it: whole, killed in every stage, stopped, resumed, damaged."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import pytest

from mtl_tickets.errors import CheckpointError, InputError
from mtl_tickets.evaluation.records import one, read_rows
from mtl_tickets.experiment import load_experiment
from mtl_tickets.model.store import load
from mtl_tickets.progress import Silent
from mtl_tickets.running import run_experiment
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.health import TrainingDiverged
from tests.counting import Counting
from tests.end_to_end.world import write_world

TASKS = ("feelings", "likeness", "same")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world):
    """An undisturbed run."""
    return run_experiment(load_experiment(world))[0]


def results(folder):
    return (folder / "results.jsonl").read_bytes()


def not_finished(folder):
    """As if the run had been stopped before its last word."""
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"finished": None}))


class KilledIn(Silent):
    """Kills the process ``delay`` seconds after the given stage begins."""

    def __init__(self, stage, delay):
        self.target, self.delay = stage, delay

    def stage(self, name):
        if name == self.target:
            if self.delay < 0.02:  # a timer would come too late
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


def in_a_process(world, output, progress, *overrides):
    """Runs with --resume in a process of its own; its exit code."""
    loaded = load_experiment(world, [f"output={output}", *overrides])
    process = multiprocessing.get_context("fork").Process(
        target=run_experiment, args=(loaded,), kwargs={"resume": True, "progress": progress}
    )
    process.start()
    process.join()
    return process.exitcode


def test_killed_in_every_stage_and_resumed_gives_the_same_numbers(world, finished, tmp_path):
    stages = sorted((finished.path / "stages").rglob("done.json"), key=lambda file: file.stat().st_mtime_ns)
    names = [str(file.parent.relative_to(finished.path / "stages")) for file in stages]
    killable = [name for name in names if not name.startswith(("choose", "share", "remaining"))]
    seconds = {name: json.loads(file.read_text())["seconds"] for name, file in zip(names, stages, strict=True)}
    rng, killed = random.Random(time.time_ns()), 0
    for name in killable:
        # a training that shares its tickets with another is a copy and takes no time
        killed += in_a_process(world, tmp_path, KilledIn(name, rng.uniform(0, 0.7 * seconds[name]))) == -signal.SIGKILL
    # the timer may fire after the last stage of a run that was quicker this time, so not every kill must hit
    assert killed >= len(killable) // 2
    assert in_a_process(world, tmp_path, Silent()) == 0
    (folder,) = tmp_path.glob("*/seed-1")
    assert results(folder) == results(finished.path)


def test_side_by_side_gives_the_same_numbers(world, finished, tmp_path):
    told = Counting()
    loaded = load_experiment(world, [f"output={tmp_path}", "workers=2"])
    (summary,) = run_experiment(loaded, progress=told)
    assert summary.path.parent.name == finished.path.parent.name
    assert results(summary.path) == results(finished.path)
    assert {f"single/{task}" for task in TASKS} < set(told.stages)
    assert told.done == told.work


def test_all_work_is_done_in_the_end_though_some_of_it_falls_away(world, tmp_path):
    # nobody borrows with kappa 0, so that adaptive has the tickets of own; dense is trained anyway
    sharing = "recipe.sharing=[dense, own, {kind: adaptive, kappa: 0}]"
    loaded = load_experiment(world, [f"output={tmp_path}", "recipe.train.epochs=1", sharing])
    (stopped,) = run_experiment(loaded, to="single")
    for lost in ("ladder", "multi/own", "multi/adaptive"):
        shutil.rmtree(stopped.path / "stages" / lost, ignore_errors=True)
        not_finished(stopped.path)
        told = Counting()
        run_experiment(loaded, resume=True, progress=told)
        assert json.loads((stopped.path / "stages/multi/adaptive/done.json").read_text())["same_as"] == "multi/own"
        assert told.work > 0 and told.done == told.work


def test_side_by_side_killed_and_resumed(world, finished, tmp_path):
    class KilledOnceUnderWay(Silent):
        steps = 0

        def advance(self, work):
            self.steps += work
            if self.steps > 30:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(world, tmp_path, KilledOnceUnderWay(), "workers=2") == -signal.SIGKILL
    assert in_a_process(world, tmp_path, Silent(), "workers=2") == 0
    (folder,) = tmp_path.glob("*/seed-1")
    assert results(folder) == results(finished.path)


def test_rules_that_train_to_find_out_go_on_where_they_were_killed(world, tmp_path):
    short = ("recipe.sharing=[tall, learned]", "recipe.controls=[]", "recipe.train.epochs=1")
    (whole,) = run_experiment(load_experiment(world, [f"output={tmp_path / 'whole'}", *short]))
    for stage in ("multi/dense", "scores/tall-0.4/likeness", "scores/learned"):
        killed = in_a_process(world, tmp_path / "killed", KilledIn(stage, 0.0), *short)
        assert killed == -signal.SIGKILL
    assert in_a_process(world, tmp_path / "killed", Silent(), *short, "workers=2") == 0
    (folder,) = (tmp_path / "killed").glob("*/seed-1")
    assert results(folder) == results(whole.path)


HALVING = (
    "recipe.ladder={kind: coupled, rungs: 4, step: 0.1}",
    "recipe.controls=[]",
    "recipe.sharing=[]",
    "recipe.train.epochs=2",
)


@pytest.fixture(scope="module")
def full_search(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("full")
    return run_experiment(load_experiment(world, [f"output={output}", *HALVING]), to="choose")[0]


def ladder_of(folder):
    """Finished rungs: their predictions and the history of their training."""
    rungs = {}
    for done in sorted((folder / "stages/ladder").rglob("done.json")):
        files = {file.name: file.read_bytes() for file in done.parent.glob("predictions*")}
        rungs[done.parent.relative_to(folder).as_posix()] = files, json.loads(done.read_text())["history"]
    return rungs


@pytest.mark.parametrize("workers", [1, 2])
def test_halving_finishes_few_rungs_and_these_as_the_full_search_does(world, full_search, tmp_path, workers):
    told = Counting()
    given = [f"output={tmp_path}", *HALVING, "recipe.search={kind: halving, keep: [2, 1]}", f"workers={workers}"]
    (summary,) = run_experiment(load_experiment(world, given), progress=told)
    assert told.done == told.work
    full, found = ladder_of(full_search.path), ladder_of(summary.path)
    assert len(full) == 12 and len(found) == 3
    assert {name: full[name] for name in found} == found
    assert not list(summary.path.rglob("checkpoint.safetensors"))
    looks = [json.loads(file.read_text()) for file in (summary.path / "stages").glob("look-*/*/*/done.json")]
    assert len(looks) == 3 * (4 + 2)
    again = Counting()
    not_finished(summary.path)
    run_experiment(load_experiment(world, given), resume=True, progress=again)
    assert again.done == again.work == told.work


def test_halving_killed_and_resumed(world, full_search, tmp_path):
    halving = "recipe.search={kind: halving, keep: [2, 1]}"
    for stage in ("look-1/likeness/winning-2", "look-2/same/winning-4", "look-2/same/winning-3"):
        in_a_process(world, tmp_path, KilledIn(stage, 0.05), *HALVING, halving)
    for stage in ("likeness", "same", "feelings"):
        for k in range(1, 5):
            in_a_process(world, tmp_path, KilledIn(f"ladder/{stage}/winning-{k}", 0.05), *HALVING, halving)
    assert in_a_process(world, tmp_path, Silent(), *HALVING, halving) == 0
    (folder,) = tmp_path.glob("*/seed-1")
    found, full = ladder_of(folder), ladder_of(full_search.path)
    assert len(found) == 3
    assert {name: full[name] for name in found} == found


def test_an_error_in_a_worker_is_the_run_s_error(world, tmp_path):
    loaded = load_experiment(
        world, [f"output={tmp_path}", "workers=2", "recipe.train.optimiser.lr=1e30", "recipe.train.optimiser.clip=0"]
    )
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        run_experiment(loaded)


def test_the_run_directory_is_complete(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names >= {"config.yaml", "record.json", "stages", "tickets", "model", "results.jsonl", "log.txt"}
    record = json.loads((finished.path / "record.json").read_text())
    assert record["finished"] and record["versions"]["torch"] and record["seed"] == 1
    assert not list(finished.path.rglob("*.part")) and not list(finished.path.rglob("checkpoint.safetensors"))


def test_every_stage_left_its_rows(finished):
    rows = read_rows(finished.path / "results.jsonl")
    for task in TASKS:
        for stage in ("yardstick/majority", "yardstick/bag_of_words", "single", "ladder/winning-1", "ladder/random-2",
                      "multi/dense", "multi/own", "multi/adaptive", "multi/union"):  # fmt: skip
            row = one(rows, stage=stage, task=task, split="dev", metric="score")
            assert row.n > 0 and row.seed == 1 and -100 <= row.value <= 100


def test_the_chosen_rung_is_the_best_on_held_out_rows(finished):
    rows = read_rows(finished.path / "results.jsonl")
    for task in TASKS:
        stages = ["single", "ladder/winning-1", "ladder/winning-2"]
        curve = [one(rows, stage=stage, task=task, split="selection", metric="score").value for stage in stages]
        rung = int(one(rows, stage="choose", task=task, metric="rung").value)
        assert curve[rung] == max(curve)
        assert max(curve) not in curve[rung + 1 :]


def test_controls_have_the_ticket_s_size(finished):
    rows = read_rows(finished.path / "results.jsonl")
    for task in TASKS:
        for k in (1, 2):
            sizes = {
                one(rows, stage=f"ladder/{kind}-{k}", task=task, metric="remaining").value
                for kind in ("winning", "random")
            }
            assert len(sizes) == 1


def test_models_reload_with_their_tickets(finished):
    for rule in ("own", "dense"):
        done = json.loads((finished.path / "stages" / "multi" / rule / "done.json").read_text())
        model = load(finished.path / done["model"])
        for task in TASKS:
            ticket = Ticket.load(finished.path / "tickets" / rule / f"{task}.safetensors", space=model.space)
            assert model.tickets[task] == ticket
            assert ticket.about.task == task


def test_a_finished_run_is_not_run_again(world, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    again = run_experiment(load_experiment(world))[0]
    assert again.rows == finished.rows
    after = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} <= {finished.path / ".lock"}


def test_a_stopped_run_wants_resume(world, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}"])
    (stopped,) = run_experiment(loaded, to="single")
    assert not stopped.finished
    with pytest.raises(CheckpointError, match="--resume"):
        run_experiment(loaded)
    stages = {path.name for path in (stopped.path / "stages").iterdir()}
    assert stages == {"yardstick", "single"}


def test_an_earlier_stage_asked_for_again_loses_no_row(world, finished, tmp_path):
    shutil.copytree(finished.path.parents[1], tmp_path, dirs_exist_ok=True)
    loaded = load_experiment(world, [f"output={tmp_path}"])
    folder = loaded.folder / "seed-1"
    not_finished(folder)
    run_experiment(loaded, to="single")
    assert sorted(results(folder).splitlines()) == sorted(results(finished.path).splitlines())
    run_experiment(loaded, resume=True)
    assert results(folder) == results(finished.path)


def test_data_that_changed_under_a_stopped_run_is_refused(tmp_path):
    loaded = load_experiment(write_world(tmp_path))
    run_experiment(loaded, to="yardsticks")
    for name, split in (("feelings-train.tsv", "feelings, split train"), ("same-dev.csv", "same, split dev")):
        file = tmp_path / name
        text = file.read_text()
        file.write_text(text + text.splitlines()[-1].replace("the", "a") + "\n")
        with pytest.raises(CheckpointError) as caught:
            run_experiment(loaded, resume=True)
        (problem,) = caught.value.problems
        assert str(problem).startswith(f"{file}: task {split}: ") and "--restart" in str(problem)
        file.write_text(text)
    run_experiment(loaded, to="yardsticks")
    file.write_text(text + text.splitlines()[-1] + "\n")
    run_experiment(loaded, restart=True, to="yardsticks")


def test_a_run_finds_its_data_where_it_was_moved_to_and_takes_no_other(world, finished, tmp_path):
    shutil.copytree(finished.path.parents[1], tmp_path / "runs")
    shutil.copytree(world.parent, tmp_path / "moved", ignore=shutil.ignore_patterns("runs", "encoder"))
    loaded = load_experiment(tmp_path / "moved" / "small.yaml", [f"output={tmp_path}/runs"])
    told = Counting()
    (again,) = run_experiment(loaded, progress=told)
    assert again.rows == finished.rows and told.done == 0
    told = Counting()  # by now it is known that the data lies here
    run_experiment(loaded, progress=told)
    assert told.stages == ()
    shutil.move(tmp_path / "moved", tmp_path / "other")
    (tmp_path / "other" / "likeness-dev.jsonl").write_text('{"a": "cat", "b": "dog", "score": 0.0}\n' * 3)
    with pytest.raises(CheckpointError, match=r"other/likeness-dev.jsonl: task likeness, split dev: "):
        run_experiment(load_experiment(tmp_path / "other" / "small.yaml", [f"output={tmp_path}/runs"]))


def test_an_unknown_stage_names_the_nearest(world):
    with pytest.raises(InputError, match="single"):
        run_experiment(load_experiment(world), to="singel")


def test_two_processes_do_not_write_one_run(world, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}"])

    class Meddler(Silent):
        def stage(self, name):
            if name == "single/same":
                assert in_a_process(world, tmp_path, Silent()) not in (0, None)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(loaded, progress=Meddler())


def test_a_sharing_rule_that_cannot_work_is_refused_before_training(world, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}", "recipe.sharing=[{kind: majority, k: 4}]"])
    with pytest.raises(InputError, match="only 3 tasks"):
        run_experiment(loaded)
    assert not list(tmp_path.rglob("stages"))


def test_one_process_runs_experiments_of_several_precisions(world, tmp_path):
    for precision in ("no", "bf16", "no"):
        overrides = [f"output={tmp_path}", f"mixed_precision='{precision}'", "recipe.train.epochs=1"]
        run_experiment(load_experiment(world, overrides), to="single")


def test_bad_data_is_refused_before_training(world, tmp_path):
    # the second of two faults would otherwise show after the first task was trained
    folder = tmp_path / "world"
    path = write_world_with_bad_rows(folder)
    with pytest.raises(InputError) as caught:
        run_experiment(load_experiment(path))
    text = str(caught.value)
    assert "feelings-train.tsv: line 3" in text
    assert "likeness-train.jsonl: line 2" in text
    assert not list(folder.rglob("stages"))


def write_world_with_bad_rows(folder):
    folder.mkdir()
    path = write_world(folder)
    for name, line, text in (
        ("feelings-train.tsv", 2, "the cat is fine\tmaybe\n"),
        ("likeness-train.jsonl", 1, '{"a": "cat", "b": "dog", "score": "high"}\n'),
    ):
        lines = (folder / name).read_text().splitlines(keepends=True)
        lines[line] = text
        (folder / name).write_text("".join(lines))
    return path


def test_seeds_differ_and_share_the_selection_rows(world, finished, tmp_path):
    other = run_experiment(load_experiment(world, [f"output={tmp_path}"]), seeds=[2])[0]
    pick = {"stage": "single", "task": "feelings", "split": "selection", "metric": "score"}
    rows = [read_rows(summary.path / "results.jsonl") for summary in (finished, other)]
    assert one(rows[0], **pick).n == one(rows[1], **pick).n
    assert {row.seed for row in rows[1]} == {2}


def test_random_weights_are_a_baseline_of_the_same_shape(world, finished, tmp_path):
    given = ["encoder.weights=random", f"output={tmp_path}"]
    runs = run_experiment(load_experiment(world, given), seeds=[1, 2], to="scores")
    pretrained = Scores.load(finished.path / "stages" / "scores" / TASKS[0] / "scores.safetensors")
    drawn = Scores.load(runs[0].path / "stages" / "scores" / TASKS[0] / "scores.safetensors")
    assert drawn.space.describe() == pretrained.space.describe()
    inputs = [json.loads((run.path / "inputs.json").read_text())["inputs"] for run in (finished, *runs)]
    assert len({known["encoder"]["key"] for known in inputs}) == 3


def test_reference_compat_runs_and_chooses_on_dev(world, tmp_path):
    loaded = load_experiment(world, [f"output={tmp_path}", "recipe.compat=reference", "recipe.sharing=[own]"])
    rows = read_rows(run_experiment(loaded)[0].path / "results.jsonl")
    for task in TASKS:
        for stage in ("single", "ladder/winning-1"):
            on_dev = one(rows, stage=stage, task=task, split="dev", metric="score")
            chosen_on = one(rows, stage=stage, task=task, split="selection", metric="score")
            assert (on_dev.value, on_dev.n) == (chosen_on.value, chosen_on.n)


def test_rows_longer_than_the_encoder_s_positions_are_refused_first(world, tmp_path):
    with pytest.raises(InputError, match=r"encoder.max_length: must not exceed the 32 positions"):
        run_experiment(load_experiment(world, [f"output={tmp_path}", "encoder.max_length=33"]))
