import pytest
import yaml

from mtl_tickets.errors import ConfigError
from mtl_tickets.study import load_study
from mtl_tickets.study.plan import shipped_studies

GRID = {"limit.train": [50, 100], "recipe.train.batches.regime": ["mixed", "one_task"]}


def write(folder, **changes):
    content = {"name": "s", "experiment": "playground", "rules": ["own"], "seeds": [1, 2], **changes}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def problems(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_study(path, overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_is_valid(name):
    study = load_study(name)
    assert study.points and all(point.loaded.folder.is_relative_to(study.folder) for point in study.points)


def test_an_unknown_study_names_the_nearest():
    (text,) = problems("sharing_playgrund")
    assert "'sharing_playground'" in text


def test_every_combination_of_the_grid_is_a_point_with_its_own_folder(tmp_path):
    study = load_study(write(tmp_path, grid=GRID, set={"recipe.train.epochs": 2}))
    assert len(study.points) == 4
    assert len({point.loaded.folder for point in study.points}) == 4
    for point in study.points:
        experiment = point.loaded.experiment
        assert experiment.limit.train == point.values["limit.train"]
        assert experiment.recipe.train.batches.regime == point.values["recipe.train.batches.regime"]
        assert experiment.recipe.train.epochs == 2
        assert [rule.kind for rule in experiment.recipe.sharing] == ["own"]
        assert experiment.seeds == (1, 2)
    assert study.points[0].name == "limit.train=50, recipe.train.batches.regime=mixed"


def test_without_a_grid_there_is_one_point():
    (point,) = load_study("sharing_playground", ["seeds=[7]"]).points
    assert point.name == "" and point.loaded.experiment.seeds == (7,)


def test_the_folder_is_named_by_what_changes_numbers(tmp_path):
    def folder(*overrides, **changes):
        return load_study(write(tmp_path, **changes), overrides).folder.name

    plain = folder()
    assert plain == folder(seeds=[5], description="words", baselines=["own"])
    others = [folder(grid=GRID), folder(set={"limit.train": 5}), folder("set.limit.train=6"), folder(rules=["union"])]
    assert len({plain, *others}) == 5


def test_overrides_reach_dotted_keys(tmp_path):
    path = write(tmp_path, grid=GRID, set={"limit.dev": 10})
    study = load_study(path, ["grid.limit.train=[7]", "set.limit.dev=20", "set.recipe.train.epochs=3"])
    assert len(study.points) == 2
    assert {point.loaded.experiment.limit.train for point in study.points} == {7}
    assert {point.loaded.experiment.limit.dev for point in study.points} == {20}
    assert {point.loaded.experiment.recipe.train.epochs for point in study.points} == {3}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"experiment": "playgrund"}, "'playground'"),
        ({"rules": ["adaptve"]}, "'adaptive'"),
        ({"rules": ["own", "own"]}, "recipe.sharing"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"grid": {"limit.train": []}}, "grid"),
        ({"grid": {"limit.train": [5, 5]}}, "grid"),
        ({"grid": {"limit.trian": [5]}}, "limit.trian"),
        ({"grid": {"limit.train": [-5]}}, "limit.train"),
        ({"set": {"recipe.train.epochs": "many"}}, "recipe.train.epochs"),
        ({"name": "../x"}, "name"),
        ({"grdi": {}}, "'grid'"),
        ({"grid": {"recipe.train.epochs": [3, 4], "recipe.train.checkpoint_seconds": [1, 2]}}, "same settings"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path, changes, expected):
    assert any(expected in text for text in problems(write(tmp_path, **changes)))


def test_an_experiment_may_lie_beside_the_study(tmp_path):
    content = {"name": "mine", "tasks": ["play_sentiment"], "recipe": {"kind": "super_tickets"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    (point,) = load_study(write(tmp_path, experiment="mine.yaml")).points
    assert point.loaded.experiment.name == "mine"


def test_an_unknown_or_doubled_baseline_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError) as unknown:
        load_study(write(tmp_path, rules=["own", "union"], baselines=["dense", "unoin", "dense"]))
    problems = unknown.value.problems
    assert [(problem.place.partition(" ")[0], problem.found) for problem in problems] == [
        ("baselines[1]", "unoin"),
        ("baselines[2]", "dense"),
    ]
    assert "union" in problems[0].hint


def test_a_baseline_must_be_a_rule_of_every_point(tmp_path):
    grid = {"recipe.sharing": [["own", "union"], ["union"]]}
    with pytest.raises(ConfigError, match="every point") as missing:
        load_study(write(tmp_path, grid=grid, baselines=["own"]))
    assert missing.value.problems[0].found == "own"
    load_study(write(tmp_path, grid=grid, baselines=["union"]))


def test_who_does_the_runs_can_be_said_on_the_command_line_and_changes_no_run(tmp_path):
    study = {"name": "x", "experiment": "playground", "executor": {"kind": "ray", "cpus": 2}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(study))
    kinds = [load_study(tmp_path / "x.yaml", executor=kind) for kind in (None, "ray", "local")]
    assert [one.settings.executor.kind for one in kinds] == ["ray", "ray", "local"]
    assert kinds[1].settings.executor.cpus == 2 and len({one.folder for one in kinds}) == 1
    with pytest.raises(ConfigError, match=r"executor.*rya.*"):
        load_study(tmp_path / "x.yaml", executor="rya")
