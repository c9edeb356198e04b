"""What is measured of trainings, and what is told of them."""

import pytest

from mtl_tickets.experiment import load_experiment
from mtl_tickets.progress import Silent
from mtl_tickets.recipes.measured import tell_unmoved
from mtl_tickets.running import run_experiment
from tests.end_to_end.world import write_world


class Heard(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.parametrize(("rate", "moves"), [("1e-3", True), ("1e-12", False)])
def test_a_task_whose_loss_stands_still_is_told_of(tmp_path, rate, moves):
    changes = [f"recipe.train.optimiser.lr={rate}", "recipe.train.optimiser.head_lr=null", "tasks=[feelings, likeness]"]
    heard = Heard()
    (run,) = run_experiment(load_experiment(write_world(tmp_path), changes), to="single", progress=heard)
    said = [text for text in heard.said if "has not moved" in text]
    assert bool(said) is not moves
    if not moves:
        assert said[0].startswith("single/feelings: the loss of feelings has not moved from 0.6")
        assert "the loss of likeness has not moved" in (run.path / "log.txt").read_text()


def test_one_epoch_says_nothing_of_moving():
    class Bench:
        run = progress = None

    assert tell_unmoved(Bench(), "single/a", [{"selection_loss": {"a": 0.7}}]) == []
