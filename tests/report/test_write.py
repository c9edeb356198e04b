"""The verb: files in the folder, the same each time, and errors that say what is wrong."""

import re

import pytest
from typer.testing import CliRunner

from mtl_tickets.cli import app
from mtl_tickets.report.write import write, write_report
from tests.report.made import World


def invoke(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def written(awkward):
    done = invoke("report", awkward)
    assert done.exit_code == 0, done.output
    return done.stdout


def files(folder) -> dict[str, bytes]:
    found = [folder / "report.html", folder / "report.md", *(folder / "figures").iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_the_verb_writes_a_page_a_text_and_figures_and_says_where(awkward, written):
    assert written == f"report: {awkward / 'report.html'}\n"
    there = files(awkward)
    linked = re.findall(r"\]\((figures/[^)]+)\)", there["report.md"].decode())
    assert {name for name in there if name.endswith(".svg")} == set(linked)
    assert {name.replace(".svg", ".png") for name in linked} == {name for name in there if name.endswith(".png")}
    assert len(there["report.html"]) < 1_000_000


def test_the_same_runs_give_the_same_bytes_and_old_figures_go(awkward, written, made, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/old.svg").write_text("old")
    write(made, tmp_path)  # of the same runs, gathered and drawn anew
    assert files(tmp_path) == files(awkward)


def test_an_unfinished_run_is_reported_and_says_so(tmp_path):
    world = World(tmp_path / "made", controls=[], rungs=1)
    run = world.write(1, "single")
    page = write_report(run).read_text(encoding="utf-8")
    assert "This report is of an unfinished experiment." in page
    assert "There is nothing to compare yet" in page
    assert (run / "report.md").is_file()


def test_a_place_without_runs_is_an_error_without_a_traceback(tmp_path):
    done = invoke("report", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
