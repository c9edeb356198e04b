"""check_files: facts of what is right, all problems of what is not."""

import pytest
import yaml
from typer.testing import CliRunner

from mtl_tickets.checking import check_files
from mtl_tickets.cli import app
from mtl_tickets.errors import InputError
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.encoders import encoder_hash, load_encoder, read_config
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket
from tests.end_to_end.world import write_world


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    return tmp_path


def test_an_experiment_and_a_task_are_told_apart_by_their_keys(world):
    kinds = [item.kind for item in check_files(["small.yaml", "same.yaml"], data=False)]
    assert kinds == ["experiment", "task"]


def test_an_experiment_reads_the_splits_its_run_reads(world):
    (item,) = check_files(["small.yaml"])
    assert [(split["task"], split["split"]) for split in item.splits] == [
        (task, split) for task in ("feelings", "likeness", "same") for split in ("train", "dev")
    ]
    assert [split["rows"] for split in item.splits] == [90, 30, 60, 24, 40, 24]
    assert all(split["lengths"]["max"] <= 24 for split in item.splits)


def test_label_counts_agree_with_and_without_an_encoder(world):
    plain, measured = (check_files(["feelings.yaml"], encoder=encoder)[0] for encoder in (None, "encoder"))
    assert [s["labels"] for s in plain.splits] == [s["labels"] for s in measured.splits]
    assert sum(plain.splits[0]["labels"].values()) == plain.splits[0]["rows"]
    assert all("tokens" in s["sample"] for s in measured.splits)


def test_bad_rows_of_several_tasks_are_reported_together(world):
    names = ("feelings-train.tsv", "same-train.csv")
    for name in names:
        with open(world / name, "a", encoding="utf-8") as file:
            file.write("one column\n")
    with pytest.raises(InputError) as error:
        check_files(["small.yaml"])
    assert {p.file.rpartition("/")[2] for p in error.value.problems} == set(names)
    assert check_files(["small.yaml"], data=False)[0].splits == []


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "../../x", "a b", "", "\u202etask", "-x"])
def test_a_task_s_name_that_is_no_name_of_a_file_is_refused(world, name):
    content = yaml.safe_load((world / "feelings.yaml").read_text(encoding="utf-8"))
    (world / "named.yaml").write_text(yaml.safe_dump({**content, "name": name}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        check_files(["named.yaml"])
    assert [(problem.place.partition(" ")[0], problem.found) for problem in error.value.problems] == [("name", name)]
    assert invoke("check", world / "named.yaml").exit_code == 2


def test_problems_of_all_files_come_at_once(world):
    (world / "a.yaml").write_text("recipe: super_tikcets\ntasks: [feelings]\nname: a\n", encoding="utf-8")
    (world / "b.yaml").write_text("name: b\nlabels: [x, y]\nmetrics: [acuracy]\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        check_files(["a.yaml", "b.yaml", "c.yaml"], data=False)
    assert {p.file for p in error.value.problems} >= {"a.yaml", "b.yaml", "c.yaml"}


def test_shipped_experiments_and_tasks_have_no_problem():
    from mtl_tickets.tasks.spec import shipped_tasks, task_config_folder

    experiments = sorted((task_config_folder() / "experiments").glob("*.yaml"))
    checked = check_files([*experiments, *shipped_tasks()], data=False)
    assert len(checked) == len(experiments) + len(shipped_tasks())


def test_they_pass_without_a_network_too(tmp_path, monkeypatch):
    from mtl_tickets.pretraining.encoders import MADE_FROM
    from mtl_tickets.tasks.spec import shipped_tasks, task_config_folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    experiments = sorted((task_config_folder() / "experiments").glob("*.yaml"))
    # an encoder that builds itself would take a minute
    files = [path for path in experiments if not any(f"name: {name}" in path.read_text() for name in MADE_FROM)]
    checked = check_files([*files, *shipped_tasks()])
    assert len(checked) == len(files) + len(shipped_tasks())
    with pytest.raises(InputError, match="must have a tokenizer"):
        check_files(["glue_base"], data=True)


def with_base(world, ticket, name="base"):
    ticket.save(world / name)
    return [f"recipe.base={name}"]


def test_a_base_is_compared_with_the_encoder(world):
    space = space_of(read_config(world / "encoder"))
    right = with_base(world, Ticket.dense(space).where(weight_hash=encoder_hash(load_encoder(world / "encoder"))))
    for data in (None, False):
        (item,) = check_files(["small.yaml"], data=data, overrides=right)
        assert item.facts["base"] == "base.safetensors"
    other = StructuredSpace.of(layers=3, heads=4, hidden=32, intermediate=48, total=10**6)
    for ticket, place, found in (
        (Ticket.dense(other), "", None),
        (Ticket.dense(space).where(weight_hash="0" * 16), "origin.weight_hash", "0" * 16),
        (~Ticket.dense(space), "heads", "none in layers 0, 1"),
    ):
        with pytest.raises(InputError) as error:
            check_files(["small.yaml"], overrides=with_base(world, ticket, "unfit"))
        problem = error.value.problems[0]
        assert (problem.file, problem.place, problem.found) == ("unfit.safetensors", place, found)


def test_a_missing_base_is_refused_with_its_place(world):
    with_base(world, Ticket.dense(space_of(read_config(world / "encoder"))))
    answer = invoke("check", world / "small.yaml", "--set", "recipe.base=bsae", "--no-data")
    assert answer.exit_code == 2
    for part in ("recipe.base", "this file must exist", "'bsae'", "did you mean 'base.safetensors'"):
        assert part in " ".join(answer.output.split())


def test_a_text_that_is_not_there_is_named(world):
    content = yaml.safe_load((world / "small.yaml").read_text(encoding="utf-8"))
    content["recipe"] = {"kind": "imp", "language": {"text": ["nowhere.txt"]}}
    (world / "small.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (item,) = check_files([world / "small.yaml"])
    assert "nowhere.txt" in item.not_read["text"] and "must exist" in item.not_read["text"]
    with pytest.raises(InputError, match=r"nowhere\.txt: this file must exist"):
        check_files([world / "small.yaml"], data=True)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'mrpc'"):
        check_files(["mprc"])
