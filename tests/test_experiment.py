import pytest
import yaml

from mtl_tickets.errors import ConfigError
from mtl_tickets.experiment import load_experiment, shipped_experiments

RECIPE = {"kind": "super_tickets"}


def write(folder, **changes):
    content = {"name": "x", "tasks": ["rte", "mrpc"], "recipe": RECIPE, **changes}
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def problems(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_shipped_experiment_is_valid(name):
    loaded = load_experiment(name)
    assert loaded.experiment.name == name.replace("_", "-")


def test_five_mistakes_are_reported_at_once(tmp_path):
    path = write(
        tmp_path,
        tasks=["rte", "mrcp"],
        encoder={"name": "bert-base-uncased", "max_lenght": 64},
        mixed_precision="bf61",
        recipe={
            "kind": "super_tickets",
            "train": {"epochs": 0},
            "sharing": ["own", "adaptve"],
        },
    )
    found = problems(path)
    assert len(found) == 5
    for place, rule, value, near in (
        ("tasks[1] (line", "unknown task", "'mrcp'", "'mrpc'"),
        ("encoder.max_lenght (line", "unknown key", "'max_lenght'", "'max_length'"),
        ("mixed_precision (line", "known names", "'bf61'", "'bf16'"),
        ("recipe.train.epochs (line", "greater than 0", "0", ""),
        ("recipe.sharing[1]", "known", "'adaptve'", "'adaptive'"),
    ):
        assert any(all(part in text for part in (place, rule, value, near)) for text in found), (place, found)


def test_overrides_are_checked_like_the_file(tmp_path):
    (text,) = problems(write(tmp_path), "recipe.train.epoch=3")
    assert "--set" in text and "epochs" in text


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"tasks": ["rte", "rte"]}, "tasks[1]"),
        ({"tasks": []}, "tasks"),
        ({"tasks": ["hans"]}, "tasks"),
        ({"tasks": ["rte", "hans"]}, "tasks"),
        ({"data": {"source": "foldr"}}, "data.source"),
        ({"data": {"per_task": {"rt": {"source": "folder"}}}}, "data.per_task.rt"),
        ({"data": {"per_task": {"rte": {"source": "foldr"}}}}, "data.per_task.rte.source"),
        ({"recipe": {**RECIPE, "per_task": {"rt": {"epochs": 3}}}}, "recipe.per_task.rt"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"name": "../x"}, "name"),
        ({"recipe": {"kind": "super_ticket"}}, "recipe.kind"),
        ({"recipe": {**RECIPE, "sharing": ["own", {"kind": "own"}]}}, "recipe.sharing"),
        ({"recipe": {**RECIPE, "compat": "referense"}}, "recipe.compat"),
        ({"workers": 2, "recipe": {**RECIPE, "train": {"compile": True}}}, "recipe.train.compile"),
        (
            {"encoder": {"attention": "packed"}, "recipe": {**RECIPE, "train": {"compile": True}}},
            "recipe.train.compile",
        ),
    ],
)
def test_mistakes_are_placed(tmp_path, changes, place):
    assert any(f": {place} (line" in text for text in problems(write(tmp_path, **changes)))


TOKENS = {"train": {"batches": {"tokens": 500}}, "per_task": {"rte": {"batch_size": 8}, "mrpc": {"batch_size": 9}}}


def test_a_batch_size_that_a_token_budget_replaces_is_refused(tmp_path):
    recipe = {**RECIPE, **TOKENS, "multi": {"batch_size": 64}}
    found = problems(write(tmp_path, recipe=recipe))
    assert len(found) == 3
    for place in ("per_task.rte", "per_task.mrpc", "multi"):
        (text,) = [text for text in found if f": recipe.{place}.batch_size (line" in text]
        assert "train.batches.tokens (500)" in text
    # other changes are no contradiction, and fixed batches have a size and no budget
    load_experiment(write(tmp_path, recipe={**RECIPE, "train": TOKENS["train"], "multi": {"epochs": 1}}))
    load_experiment(write(tmp_path, recipe={**recipe, "compat": {"fixed_batches": True}}))


def test_an_unread_task_is_reported_once(tmp_path):
    changes = {"tasks": ["rte", "mnil", "hans"], "recipe": {**RECIPE, "per_task": {"mnil": {"epochs": 3}}}}
    (text,) = problems(write(tmp_path, **changes))
    assert "tasks[1]" in text and "'mnli'" in text


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"labels": ["yes", "no", "maybe"], "metrics": ["accuracy"]}, "must lead to a label"),
        ({"kind": "regression", "metrics": ["pearson"]}, "must be of the kind of rte"),
    ],
)
def test_a_task_that_its_head_cannot_answer_is_refused(tmp_path, changes, rule):
    files = {"kind": "files", "text": ["t"], "label": "l", "splits": {"dev": "b.csv"}}
    task = {"name": "odd", "head": "rte", "splits": {"dev": "labelled"}, "sources": {"files": files}, **changes}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(task))
    assert any(rule in text for text in problems(write(tmp_path, tasks=["rte", "odd"])))


def test_the_folder_is_named_by_what_changes_numbers(tmp_path):
    def digest(*overrides, **changes):
        return load_experiment(write(tmp_path, **changes), overrides).digest

    plain = digest()
    assert plain == digest(seeds=[7, 8], output="elsewhere", cache="there", description="words")
    # a default written out is still the default
    assert plain == digest("recipe.train.epochs=3")
    assert plain == digest("recipe.train.checkpoint_seconds=1")
    assert plain == digest("recipe.train.ahead=3")
    others = [
        digest("recipe.train.epochs=4"),
        digest(tasks=["rte"]),
        digest(tasks=["mrpc", "rte"]),
        digest(recipe={**RECIPE, "sharing": ["own"]}),
        digest(recipe={**RECIPE, "sharing": ["union"]}),
        digest(recipe={**RECIPE, "compat": "reference"}),
        digest(limit={"train": 5}),
        digest("recipe.train.compile=true"),
        digest("encoder.attention=packed"),
    ]
    assert len({plain, *others}) == 10


FILES = {"kind": "files", "text": ["t"], "label": "l", "splits": {"train": "a.csv", "dev": "b.csv"}}
TONE = {
    "name": "tone",
    "labels": ["calm", "angry"],
    "metrics": ["accuracy"],
    "splits": {"train": "labelled", "dev": "labelled"},
    "sources": {"files": FILES},
}


def loaded_with(folder, task=TONE, **changes):
    (folder / "tone.yaml").write_text(yaml.safe_dump(task))
    return load_experiment(write(folder, **{"tasks": ["tone"], **changes}))


def test_where_files_lie_and_how_they_are_described_names_no_folder(tmp_path):
    plain = loaded_with(tmp_path)
    (tmp_path / "moved").mkdir()
    others = [
        loaded_with(tmp_path / "moved"),
        loaded_with(tmp_path, {**TONE, "description": "words"}),
        loaded_with(tmp_path, tasks=[str(tmp_path / "tone.yaml")]),
        loaded_with(tmp_path, data={"root": str(tmp_path / "data")}),
        loaded_with(tmp_path, data={"per_task": {"tone": {"root": str(tmp_path), "source": "files"}}}),
        loaded_with(tmp_path, {**TONE, "sources": {"files": {**FILES, "root": str(tmp_path / "data")}}}),
        # a source that is not read
        loaded_with(tmp_path, {**TONE, "sources": {"files": FILES, "more": {**FILES, "folder": "more"}}}),
    ]
    assert {other.digest for other in others} == {plain.digest}
    # but the run directory is told
    assert len({str(other.places) for other in (plain, others[0], others[3])}) == 3


def test_what_is_read_names_the_folder(tmp_path):
    two = {"files": FILES, "more": {**FILES, "folder": "more"}}
    loaded = [
        loaded_with(tmp_path),
        loaded_with(tmp_path, {**TONE, "sources": two}, data={"source": "more"}),
        loaded_with(tmp_path, {**TONE, "sources": {"files": {**FILES, "label": "m"}}}),
        loaded_with(tmp_path, {**TONE, "sources": {"files": {**FILES, "splits": {"train": "c.csv", "dev": "b.csv"}}}}),
        loaded_with(tmp_path, {**TONE, "labels": ["angry", "calm"]}),
        loaded_with(tmp_path, {**TONE, "version": 2}),
    ]
    assert len({one.digest for one in loaded}) == len(loaded)


def test_a_root_that_changes_which_source_is_read_names_the_folder(tmp_path):
    without, given = (load_experiment(write(tmp_path), overrides) for overrides in ((), [f"data.root={tmp_path}"]))
    assert without.tasks["rte"].default_source == "hub"
    assert without.digest != given.digest


def test_a_task_file_beside_the_experiment_is_found(tmp_path):
    loaded = loaded_with(tmp_path, tasks=["tone", "rte"])
    assert list(loaded.tasks) == ["tone", "rte"]


def test_an_unknown_experiment_names_the_nearest():
    with pytest.raises(ConfigError, match="playground"):
        load_experiment("playgrund")
