"""The command line as a user meets it: real processes for exit statuses and streams, one small run for the rest."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mtl_tickets.cli import app
from tests.end_to_end.world import write_world

SMALL = [
    *("--set", "recipe.train.epochs=1", "--set", "recipe.ladder.heads=[0.5]", "--set", "recipe.ladder.ffn=[0.5]"),
    *("--set", "recipe.controls=[]", "--set", "recipe.sharing=[own, union]"),
    *("--set", "recipe.train.checkpoint_seconds=60"),
]


def command(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """``mtl-tickets`` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "100"}
    call = [sys.executable, "-m", "mtl_tickets.cli", *map(str, arguments)]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options)


def invoke(*arguments: object, text: str | bytes | None = None):
    """The same in this process: quicker, for what needs no process of its own."""
    return CliRunner().invoke(app, list(map(str, arguments)), input=text, env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    # an evaluation-only task, with markup in its name's neighbourhood
    hard = yaml.safe_load((folder / "same.yaml").read_text(encoding="utf-8"))
    hard |= {"name": "hard", "head": "same", "description": "[bold]markup[/bold]"}
    (folder / "hard.yaml").write_text(yaml.safe_dump(hard), encoding="utf-8")
    experiment = yaml.safe_load((folder / "small.yaml").read_text(encoding="utf-8"))
    experiment["tasks"].append("hard")
    (folder / "small.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(world) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of two seeds, stopped once on the way: the folder, and what the last process said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        arguments = ["run", "small.yaml", "--seeds", "1,2", *SMALL]
        patch.setattr(sys, "argv", ["mtl-tickets", *arguments, "--to", "single"])
        first = invoke(*arguments, "--to", "single")
        assert first.exit_code == 0, first.stderr
        assert "seed 2: done yardsticks, single; still to do scores, ladder, choose, share, multi" in first.stdout
        go_on = first.stdout.splitlines()[-1].removeprefix("go on with: mtl-tickets ")
    done = command(*shlex.split(go_on), cwd=world)
    assert done.returncode == 0, done.stderr
    (folder,) = (world / "runs").iterdir()
    return folder, done


def test_help_is_quick_and_imports_nothing_heavy(tmp_path):
    code = "import atexit, sys; sys.argv[1:] = ['--help']; from mtl_tickets.cli import main\n"
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & {"torch", "transformers", "datasets", "accelerate", "sklearn", "scipy", "pydantic", "numpy"}


def test_the_table_stands_on_stdout_and_nothing_on_stderr(finished):
    _, done = finished
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    for word in ("majority", "single-task", "dense multi-task", "own tickets", "union", "average", "remaining %"):
        assert word in done.stdout
    assert "± sample standard deviation over 2 seeds (1, 2)" in " ".join(done.stdout.split())
    assert "100.0 x 3" in done.stdout
    assert "tasks answered by another task's head" in done.stdout
    without_paths = re.sub(r"^(table|models|tickets|all rows|report).*", "", done.stdout, flags=re.M)
    assert max(map(len, without_paths.splitlines())) <= 100


def test_the_table_is_written_too_and_all_its_numbers_are_those_of_the_rows(finished):
    folder, done = finished
    written = (folder / "summary.md").read_text(encoding="utf-8")
    assert str(folder / "summary.md") in done.stdout
    rows = [
        json.loads(line)
        for seed in (1, 2)
        for line in (folder / f"seed-{seed}/results.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for task in ("feelings", "likeness", "same"):
        (line,) = [line for line in written.splitlines() if line.startswith(f"| {task} |")]
        which = ("multi/own", task, "dev", "score")
        dev = [r["value"] for r in rows if (r["stage"], r["task"], r["split"], r["metric"]) == which]
        assert len(dev) == 2
        assert f"{sum(dev) / 2:.1f} ±" in line


def test_a_report_of_all_seeds_is_written_too(finished):
    folder, done = finished
    assert str(folder / "report.html") in done.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2 seeds (1, 2)" in page
    assert "unfinished" not in page
    # the whole way, from a real run: verdicts, ladders, tickets and trainings
    for name in ("differences-dense", "ladder-feelings", "ticket-same", "overlap", "training-loss"):
        assert (folder / f"figures/{name}.svg").is_file()


def test_a_finished_run_is_not_run_again(finished, world, monkeypatch):
    folder, done = finished
    monkeypatch.chdir(world)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("results.jsonl")}
    again = invoke("run", "small.yaml", "--seeds", "1,2", *SMALL)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.splitlines()[-8:] == done.stdout.splitlines()[-8:]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("results.jsonl")} == before


def test_all_mistakes_of_all_files_are_shown_at_once_without_traceback(world):
    (world / "wrong.yaml").write_text("name: a\nlables: [x]\nmetrics: [acuracy]\n", encoding="utf-8")
    done = command("check", "wrong.yaml", "smal.yaml", cwd=world)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("error: ") for line in lines)
    assert "'labels'" in done.stderr
    assert "'accuracy'" in done.stderr
    assert "'small.yaml'" in done.stderr
    shown = command("check", "smal.yaml", "--debug", cwd=world)
    assert shown.returncode == 2
    assert "Traceback" in shown.stderr


def test_an_interrupt_says_how_to_go_on(world):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = ["run", "small.yaml", "--set", "recipe.train.epochs=500", "--set", "output=elsewhere"]
    # a shell starts what runs in its background deaf to interrupts, and a test's children would be so too
    hears = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    call = [sys.executable, "-c", hears + "runpy.run_module('mtl_tickets', run_name='__main__')", *arguments]
    with subprocess.Popen(
        call, cwd=world, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.rstrip().endswith("steps"):
                break
        # again after a while, as a person would: a first one may fall into an import that swallows it
        for _ in range(6):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith(f"go on with: mtl-tickets {' '.join(arguments)} --resume")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "playgruond"], "'playground'"),
        (["run", "small.yaml", "--seeds", "1,x"], "--seeds"),
        (["run", "small.yaml", "--seeds", "1,1"], "only once"),
        (["run", "small.yaml", "--resume", "--restart"], "exclude"),
        (["run", "small.yaml", "--to", "mutli"], "'multi'"),
        (["run", "small.yaml", "--set", "recipe.trian.epochs=1"], "'train'"),
        (["predict", "nowhere", "--task", "rte"], "must exist"),
        (["tickets", "show", "nothing.safetensors"], "must exist"),
        (["pretrain", "enc", "--text", "playground", "--set", "shcedule=cosine"], "'schedule'"),
        (["rnu"], "run"),
        (["predict"], "Missing"),
    ],
)
def test_bad_input_ends_with_status_2_and_a_line_that_helps(arguments, said, world, monkeypatch):
    monkeypatch.chdir(world)
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_version():
    from mtl_tickets import __version__

    assert invoke("--version").stdout == f"mtl-tickets {__version__}\n"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("experiments", "playground"),
        ("tasks", "not_equivalent"),
        ("recipes", "super_tickets"),
        ("rules", "adaptive"),
        ("scores", "first_order"),
        ("samplers", "proportional"),
        ("encoders", "distilbert"),
    ],
)
def test_lists_show_what_is_registered(command, word):
    done = invoke(command)
    assert done.exit_code == 0
    assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_evaluate_gives_the_numbers_of_the_table(finished):
    folder, _ = finished
    done = invoke("evaluate", folder, "--task", folder.parents[1] / "same.yaml", "--rule", "union", "--json")
    assert done.exit_code == 0, done.stderr
    for item in json.loads(done.stdout):
        rows = map(json.loads, (folder / f"seed-{item['seed']}/results.jsonl").read_text().splitlines())
        which = ("multi/union", "same", "dev", "score")
        (value,) = [r["value"] for r in rows if (r["stage"], r["task"], r["split"], r["metric"]) == which]
        assert item["score"] == pytest.approx(value)


def test_evaluate_shows_each_seed_and_the_mean(finished):
    folder, _ = finished
    done = invoke("evaluate", folder, "--task", folder.parents[1] / "same.yaml", "--rule", "own")
    assert done.exit_code == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("seed", "mean"))] == [
        ["seed", "1"],
        ["seed", "2"],
        ["mean", "dev"],
    ]


def test_predict_answers_line_by_line(finished):
    folder, _ = finished
    task = folder.parents[1] / "same.yaml"
    lines = "the cat is good\tthe dog is bad\n" * 3
    done = invoke("predict", folder / "seed-1", "--task", task, "--rule", "own", "--batch", 2, text=lines)
    assert done.exit_code == 0, done.stderr
    labels = yaml.safe_load(task.read_text(encoding="utf-8"))["labels"]
    answers = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] in labels
    assert 1 / len(labels) <= float(answers[0][1]) <= 1


def test_predict_answers_several_tasks_side_by_side(finished):
    folder, _ = finished
    tasks = [folder.parents[1] / f"{name}.yaml" for name in ("same", "likeness")]
    lines = "the cat is good\tthe dog is bad\na ship\tthe house\n"
    place = ("predict", folder / "seed-1", "--rule", "own")
    alone = [invoke(*place, "--task", task, text=lines).stdout.splitlines() for task in tasks]
    both = ("--task", tasks[0], "--task", tasks[1])
    done = invoke(*place, *both, text=lines)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == ["\t".join(answers) for answers in zip(*alone, strict=True)]
    as_json = [json.loads(line) for line in invoke(*place, *both, "--json", text=lines).stdout.splitlines()]
    assert [(list(line), sorted(line["likeness"])) for line in as_json] == [(["same", "likeness"], ["value"])] * 2


def test_predict_refuses_lines_that_are_no_pairs(finished):
    folder, _ = finished
    task = folder.parents[1] / "same.yaml"
    done = invoke("predict", folder / "seed-1", "--task", task, "--rule", "own", text="a\tb\n\nc\nd\te\tf\n")
    assert done.exit_code == 2
    assert [f"line {n}" in done.stderr for n in (1, 2, 3, 4)] == [False, True, True, True]
    done = invoke("predict", folder / "seed-1", "--task", task, "--rule", "own", text=b"a\tb\n\xff\tc\n")
    assert done.exit_code == 2
    assert "line 2" in done.stderr


def test_tickets_of_a_run_are_shown_and_compared(finished):
    folder, _ = finished
    done = invoke("tickets", "show", folder / "seed-1", "--json")
    assert sorted(json.loads(done.stdout)) == ["feelings", "likeness", "same"]
    assert invoke("tickets", "overlap", folder / "seed-1").exit_code == 0
    done = invoke("tickets", "diff", folder / "seed-1", "--rule", "own", "--task", "same", "--task", "feelings")
    assert done.exit_code == 0
    assert "feelings" in done.stdout
    assert invoke("tickets", "diff", folder / "seed-1").exit_code == 2


def test_check_shows_labels_lengths_and_a_sample_and_no_markup_is_obeyed(world, monkeypatch):
    monkeypatch.chdir(world)
    for split in ("train", "dev"):
        lines = (world / f"feelings-{split}.tsv").read_text(encoding="utf-8").splitlines()
        lines[1] = "the [red]cat[/red] is good\t1"
        (world / f"feelings-{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = invoke("check", "feelings.yaml", "--encoder", world / "encoder")
    assert done.exit_code == 0, done.stderr
    assert "[red]cat[/red]" in done.stdout
    assert "[CLS]" in done.stdout
    assert "90" in done.stdout


def test_check_of_a_dataset_that_cannot_be_reached_is_no_failure_unless_data_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("check", "mrpc")
    assert done.exit_code == 0, done.stderr
    assert "not read" in done.stdout
    assert invoke("check", "mrpc", "--data").exit_code == 2
    assert invoke("check", "mrpc", "--no-data").exit_code == 0
