"""A base under a sharing experiment: which files are refused, what it decides, and that nothing leaves it."""

import json
import shutil

import numpy as np
import pytest
import yaml

from mtl_tickets.errors import ConfigError, InputError, TicketError
from mtl_tickets.evaluation.records import read_rows
from mtl_tickets.experiment import load_experiment
from mtl_tickets.model import weight_masks
from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.encoders import read_config
from mtl_tickets.model.store import load
from mtl_tickets.model.weight_masks import weight_space_of
from mtl_tickets.recipes.base_ticket import fitting_base, read_base
from mtl_tickets.running import run_experiment
from mtl_tickets.tickets.gradients import GradientProducts
from mtl_tickets.tickets.scores import Scores
from mtl_tickets.tickets.space import StructuredSpace, WeightSpace
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin
from tests.end_to_end.world import write_world

TASKS = ("feelings", "likeness", "same")
SHORT = (
    "recipe.train.epochs=1",
    "recipe.ladder={kind: free, heads: [0.34, 0.67], ffn: [0.0, 0.0]}",
    "recipe.controls=[]",
    "recipe.sharing=[]",
    "recipe.yardsticks=[]",
    "recipe.gradients=null",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def config(world):
    return read_config(world.parent / "encoder")


def structured(config, neurons=False, ffn=(0,)):
    """Without two of eight heads and the first block; where neurons are units, without every third one."""
    units = {part: kept.copy() for part, kept in Ticket.dense(space_of(config, neurons)).units.items()}
    units["heads"][[0, 1], [1, 3]] = False
    units["ffn"][list(ffn)] = False
    if neurons:
        units["neurons"][:, ::3] = False
    return Ticket(space_of(config, neurons), units, TicketOrigin(kind="winning", allocation="global"))


def weights(config, seed=0):
    generator = np.random.default_rng(seed)
    space = weight_space_of(config, embeddings=True, pooler=True)
    return Ticket(space, {name: generator.random(shape) < 0.6 for name, shape in space.matrices.items()})


def experiment(world, base, output, *more):
    return load_experiment(world, [*SHORT, f"recipe.base={base}", f"output={output}", *more])


def run(*arguments):
    loaded = experiment(*arguments)
    (summary,) = run_experiment(loaded)
    assert summary.finished
    return summary.path


def values(folder):
    return {(r.stage, r.task, r.split, r.metric): r.value for r in read_rows(folder / "results.jsonl")}


def tickets_of(folder):
    return {path: Ticket.load(path) for path in sorted(folder.rglob("tickets/**/*.safetensors"))}


# ------------------------------------------------------------------------------------------------ files that do not fit


def test_a_base_fits_its_encoder(config, tmp_path):
    for ticket in (structured(config), structured(config, neurons=True), weights(config)):
        file = ticket.where(weight_hash="abc").save(tmp_path / "base")
        assert read_base(file) == fitting_base(file, config) == fitting_base(file, config, "abc") == ticket
        with pytest.raises(TicketError, match=r"base.*origin.weight_hash: must come.*def.*found 'abc'"):
            fitting_base(file, config, "def")


def test_a_base_of_weights_may_leave_matrices_alone(config, tmp_path):
    all_of_them = weights(config)
    some = dict(list(all_of_them.units.items())[:3])
    file = Ticket(WeightSpace({name: kept.shape for name, kept in some.items()}), some).save(tmp_path / "some")
    assert fitting_base(file, config).counts() == {name: all_of_them.counts()[name] for name in some}


def test_a_layer_without_a_head_is_named(config, tmp_path):
    space = space_of(config)
    file = Ticket(space, {"heads": np.array([[False] * 4, [True] * 4]), "ffn": np.ones(2, bool)}).save(tmp_path / "x")
    with pytest.raises(TicketError) as caught:
        read_base(file)
    assert str(caught.value) == f"{file}: heads: a base must keep a head in every layer; found 'none in layers 0'"


def test_a_base_of_another_encoder_says_what_differs(config, tmp_path):
    other = StructuredSpace.of(layers=3, heads=4, hidden=32, intermediate=48, total=10**6)
    file = Ticket.dense(other).save(tmp_path / "other")
    with pytest.raises(TicketError, match="layers = 3 instead of 2") as caught:
        fitting_base(file, config)
    assert {problem.file for problem in caught.value.problems} == {str(file)}

    known = weight_space_of(config, embeddings=True, pooler=True).matrices
    first, second, *_ = known
    space = WeightSpace({first: (3, 3), second.replace("weight", "wieght"): known[second]})
    file = Ticket.dense(space).save(tmp_path / "matrices")
    with pytest.raises(TicketError) as caught:
        fitting_base(file, config)
    shape, name = sorted(map(str, caught.value.problems), key=lambda text: "no such" in text)
    assert f"{file}: space.matrices.{first}: must have the shape {list(known[first])}" in shape and "[3, 3]" in shape
    assert "no such matrix" in name and f"did you mean '{second}'" in name


# ------------------------------------------------------------------------------------------------------ in experiments


def test_a_base_lies_beside_the_experiment_or_here(world, config, tmp_path, monkeypatch):
    own = shutil.copytree(world.parent, tmp_path / "own")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    file = structured(config).save(own / "beside")
    only_here = weights(config).save("only-here")
    for given, found in (("beside.safetensors", file), ("beside", file), (file, file), ("only-here", only_here)):
        loaded = load_experiment(own / "small.yaml", [f"recipe.base={given}"])
        assert loaded.experiment.recipe.base.resolve() == found.resolve()
        assert loaded.places["base"] == str(found.resolve())


@pytest.mark.parametrize("given", ["bsae", "bsae.safetensors", "elsewhere/base.safetensors"])
def test_a_missing_base_names_place_and_value(world, config, tmp_path, given):
    own = shutil.copytree(world.parent, tmp_path / "own")
    structured(config).save(own / "base")
    content = yaml.safe_load((own / "small.yaml").read_text(encoding="utf-8"))
    content["recipe"]["base"] = given
    (own / "with.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(own / "with.yaml")
    (problem,) = caught.value.problems
    assert problem.file == str(own / "with.yaml") and problem.place.startswith("recipe.base (line ")
    assert (problem.rule, problem.found) == ("this file must exist", given)
    assert ("base.safetensors" in problem.hint) == ("/" not in given)


def test_what_is_no_ticket_is_refused_before_anything_is_read(world, config, tmp_path):
    Scores.random(space_of(config), 0).save(tmp_path / "scores")
    (tmp_path / "text.safetensors").write_text("no ticket")
    for name, complaint in (("scores", "must have the format 'mtl_tickets.ticket'"), ("text", "whole safetensors")):
        with pytest.raises(ConfigError, match=complaint) as caught:
            experiment(world, tmp_path / name, tmp_path)
        assert caught.value.problems[0].file == str(tmp_path / f"{name}.safetensors")


def test_the_content_of_a_base_names_a_run_and_not_its_place(world, config, tmp_path):
    ticket = structured(config)
    one_place, other_place = ticket.save(tmp_path / "a"), ticket.where(note="copied").save(tmp_path / "b" / "c")
    others = [structured(config, ffn=(1,)).save(tmp_path / "d"), weights(config).save(tmp_path / "e")]
    digests = [experiment(world, base, tmp_path).digest for base in (one_place, other_place, *others)]
    without = load_experiment(world, SHORT).digest
    assert digests[0] == digests[1]
    assert len({without, *digests}) == 4
    assert load_experiment(world, [*SHORT, "recipe.base=null"]).digest == without


def test_a_base_of_another_encoder_stops_a_run_before_its_first_stage(world, tmp_path):
    other = StructuredSpace.of(layers=3, heads=4, hidden=32, intermediate=48, total=10**6)
    loaded = experiment(world, Ticket.dense(other).save(tmp_path / "other"), tmp_path)
    with pytest.raises(InputError, match="layers = 3 instead of 2"):
        run_experiment(loaded)
    assert not list(tmp_path.rglob("stages"))


# -------------------------------------------------------------------------------------------------------- inside a base


EVERYTHING = (
    "recipe.controls=[random, losing]",
    "recipe.sharing=[own, adaptive, union, {kind: intersection, budget: own}, random, losing, tall, learned]",
    "recipe.gradients=20",
)


@pytest.fixture(scope="module")
def finished(world, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inside")
    return run(world, structured(config).save(folder / "base"), folder, *EVERYTHING)


def test_no_task_keeps_a_unit_that_the_base_drops(finished, config):
    base, found = structured(config), tickets_of(finished)
    rules = {path.parent.name for path in found}
    assert {"own", "dense", "adaptive", "union", "intersection", "random", "losing", "tall", "learned"} <= rules
    assert all(ticket <= base for ticket in found.values())
    assert any(ticket != base for ticket in found.values())
    assert all(ticket.units["heads"].any(axis=1).all() for ticket in found.values())


def test_what_is_whole_or_dense_is_the_base(finished, config):
    base, rows = structured(config), values(finished)
    for task in TASKS:
        for stage in ("single", "multi/dense"):
            assert rows[stage, task, "all", "remaining"] == base.remaining_percent()
        assert load(finished / "model" / "dense").tickets[task] == base
        ladder = [
            [rows[f"ladder/{kind}-{k}", task, "all", "remaining"] for k in (1, 2)]
            for kind in ("winning", "random", "losing")
        ]
        assert ladder[0] == ladder[1] == ladder[2]
        assert base.remaining_percent() > ladder[0][0] > ladder[0][1]
    assert rows["multi/dense", "average", "all", "remaining"] == base.remaining_percent()


def test_importance_is_that_of_the_encoder_in_the_base(finished, config):
    base = structured(config)
    for task in TASKS:
        scores = Scores.load(finished / "stages" / "scores" / task / "scores.safetensors")
        for part, kept in base.units.items():
            assert (scores.values[part][kept] > 0).all() and (scores.values[part][~kept] == 0).all()


def test_gradients_are_compared_at_the_encoder_in_the_base(finished, config):
    products = GradientProducts.load(finished / "stages" / "gradients" / "products.safetensors")
    for part, kept in structured(config).units.items():
        of_unit = np.abs(products.values[part]).reshape(*kept.shape, -1).max(axis=-1)
        assert (of_unit[kept] > 0).all() and (of_unit[~kept] == 0).all()


def test_a_run_keeps_what_its_base_was(finished, config):
    kept = json.loads((finished / "inputs.json").read_text())
    base = finished.parents[1] / "base.safetensors"
    assert kept["inputs"]["base"] == {"file": str(base), "key": structured(config).digest()}
    assert kept["places"]["base"] == str(base.resolve())


def test_a_finished_run_is_found_again_when_its_base_has_moved(world, finished, config, tmp_path):
    moved = experiment(world, structured(config).save(tmp_path / "moved"), finished.parents[1], *EVERYTHING)
    assert moved.folder / "seed-1" == finished
    before = (finished / "results.jsonl").stat().st_mtime_ns
    (summary,) = run_experiment(moved)
    assert summary.finished and (finished / "results.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "more",
    [
        ("recipe.search={kind: halving, looks: [0.5], keep: [1]}",),
        ("recipe.choice.borrow=100", "workers=2"),
        ("recipe.compat=reference", "recipe.controls=[random]"),
        ("recipe.ladder={kind: coupled, step: 0.25, rungs: 2, allocation: per_matrix}",),
    ],
    ids=["halving", "borrow", "reference", "coupled"],
)
def test_every_way_to_choose_stays_inside(world, config, tmp_path, more):
    base = structured(config)
    folder = run(
        world, base.save(tmp_path / "base"), tmp_path, "tasks=[feelings, same]", "recipe.sharing=[adaptive]", *more
    )
    found = tickets_of(folder)
    assert found and all(ticket <= base for ticket in found.values())
    assert values(folder)["multi/dense", "average", "all", "remaining"] == pytest.approx(base.remaining_percent())


def test_neurons_that_a_base_drops_stay_dropped(world, config, tmp_path):
    base = structured(config, neurons=True)
    more = ("tasks=[feelings, same]", "recipe.sharing=[own, tall, learned]", "recipe.gradients=20")
    folder = run(world, base.save(tmp_path / "base"), tmp_path, *more)
    found = tickets_of(folder)
    assert found and all(ticket <= base for ticket in found.values())
    assert all((ticket.units["neurons"] == base.units["neurons"]).all() for ticket in found.values())


def test_the_whole_encoder_is_a_base_that_changes_no_number(world, config, tmp_path):
    more = ("tasks=[feelings, same]", "recipe.sharing=[adaptive]", "recipe.controls=[random]", "recipe.gradients=20")
    (plain,) = run_experiment(load_experiment(world, [*SHORT, f"output={tmp_path}", *more]))
    inside = run(world, Ticket.dense(space_of(config)).save(tmp_path / "base"), tmp_path, *more)
    assert inside.parent != plain.path.parent
    assert values(inside) == values(plain.path)


def test_a_base_of_weights_is_under_every_training(world, config, tmp_path):
    base = weights(config)
    folder = run(world, base.save(tmp_path / "base"), tmp_path, "recipe.sharing=[own, union]")
    rows, space = values(folder), space_of(config)
    expected = weight_masks.remaining(space, None, base)
    assert expected < 80
    for task in TASKS:
        assert rows["single", task, "all", "remaining"] == pytest.approx(expected)
        assert rows["multi/dense", task, "all", "remaining"] == pytest.approx(expected)
        own = Ticket.load(folder / "tickets" / "own" / f"{task}.safetensors", space=space)
        assert rows["choose", task, "all", "remaining"] == pytest.approx(weight_masks.remaining(space, own, base))
    assert rows["multi/dense", "average", "all", "remaining"] == pytest.approx(expected)
    for rule in ("dense", "union"):
        encoder = load(folder / "model" / rule).encoder
        for name, kept in base.units.items():
            if name in dict(encoder.named_parameters()):
                matrix = encoder.get_parameter(name).detach().numpy()
                assert (matrix[~kept] == 0).all() and (matrix[kept] != 0).any()
    assert json.loads((folder / "inputs.json").read_text())["inputs"]["base"]["key"] == base.digest()
