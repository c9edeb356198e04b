"""What stands under the table says what a reader must know."""

import json

import pytest
import yaml

from mtl_tickets.errors import CheckpointError
from mtl_tickets.evaluation.records import Row
from mtl_tickets.experiment import load_experiment
from mtl_tickets.report.summary import LANGUAGE, notes, summarise, write_markdown, written
from mtl_tickets.running import RunSummary
from tests.report.made import lose_row
from tests.report.pruned import PrunedWorld


def rungs(tasks, chosen, seeds) -> list[Row]:
    return [
        Row("run", "choose", task, "selection", "rung", float(chosen[seed]), 9, seed, 0, "digest")
        for task in tasks
        for seed in seeds
    ]


def test_caps_and_held_out_selection_are_stated():
    loaded = load_experiment("glue_four_capped", ["limit.train=2000", "limit.dev=10"])
    learned = [name for name, spec in loaded.tasks.items() if spec.head is None]
    said = notes(loaded, rungs(learned, {1: 3}, [1]), learned, [1])
    assert (
        said["caps"] == "at most 2,000 train rows a task and 10 dev rows a task: not comparable with scores on all rows"
    )
    assert "never on dev" in said["selection"]
    assert "compat" not in said
    assert "no spread" in said["scores"]


def test_published_selection_and_every_defect_are_stated():
    loaded = load_experiment("glue_base_reference")
    learned = [name for name, spec in loaded.tasks.items() if spec.head is None]
    said = notes(loaded, rungs(learned, {1: 3, 2: 0}, [1, 2]), learned, [1, 2])
    assert "caps" not in said
    assert "optimistic" in said["selection"]
    for switch in type(loaded.experiment.recipe.compat).model_fields:
        assert switch in said["compat"]


def test_the_chosen_rung_of_each_task_and_seed_is_stated():
    loaded = load_experiment("glue_four_capped")
    said = notes(loaded, rungs(["rte", "mrpc"], {1: 3, 2: 0}, [1, 2]), ["rte", "mrpc"], [1, 2])
    assert said["rungs"].startswith("rte 3/0, mrpc 3/0 (0 drops nothing, 8 the most")
    assert "2 seeds (1, 2)" in said["scores"]


@pytest.fixture
def pruned(tmp_path):
    """An experiment of IMP tickets and the folders of two runs."""
    tasks = ["play_sentiment", "play_question"]
    world = PrunedWorld(tmp_path / "made", tasks)
    file = tmp_path / "made.yaml"
    content = {"name": "made", "tasks": tasks, "recipe": world.config["recipe"], "output": str(tmp_path)}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_experiment(file), [world.write(seed) for seed in (1, 2)]


def summaries(folders):
    for seed, folder in enumerate(folders, 1):
        lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
        yield RunSummary(folder, seed, True, [json.loads(line) for line in lines])


def test_a_text_has_a_table_of_its_own_below_the_tasks(pruned, tmp_path):
    loaded, folders = pruned
    runs = list(summaries(folders))
    summary = summarise(loaded, runs)
    assert list(summary.tables) == ["", LANGUAGE]
    assert "mlm" not in summary.main.lines
    assert len(summary.language.headings) == 6
    assert "mlm" in summary.notes and "selection" not in summary.notes  # nothing is chosen
    write_markdown(summary, tmp_path / "summary.md")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert text.index("| play\\_question |") < text.index("Masked-language modelling") < text.index("| loss |")
    assert "models" not in written(loaded, runs)  # such a run keeps none


@pytest.mark.parametrize("lost", [{"stage": "imp/40", "metric": "loss"}, {"stage": "full", "metric": "loss"}])
def test_a_row_of_the_text_that_is_missing_is_an_error(pruned, lost):
    loaded, folders = pruned
    lose_row(folders[1], **lost)
    with pytest.raises(CheckpointError, match=lost["stage"]):
        summarise(loaded, list(summaries(folders)))
