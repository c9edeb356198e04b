"""What stands under the table says what a reader must know."""

from mtl_tickets.evaluation.records import Row
from mtl_tickets.experiment import load_experiment
from mtl_tickets.report.summary import notes


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
