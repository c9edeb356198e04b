from typing import Annotated, Literal

import pydantic
import pytest

from mtl_tickets.errors import ConfigError, Problem
from mtl_tickets.files import digest
from mtl_tickets.registry import Registry
from mtl_tickets.settings import InvalidSetting, Settings, check, member_of, named, one_of, read_yaml

KINDS: Registry = Registry("shape", "tests.test_settings")


@KINDS.register("circle")
class Circle(Settings):
    kind: Literal["circle"] = "circle"
    radius: pydantic.PositiveFloat = 1.0


@KINDS.register("square")
class Square(Settings):
    kind: Literal["square"] = "square"
    side: pydantic.PositiveFloat = 1.0
    circle: Circle | None = None


class Reference(Settings):
    name: str
    weight: float = 1.0


class Train(Settings):
    lr: pydantic.PositiveFloat = 1e-3
    epochs: pydantic.PositiveInt = 3
    optimiser: Literal["adam", "adamax"] = "adam"

    @pydantic.model_validator(mode="after")
    def _sensible(self):
        if self.lr > 1:
            raise InvalidSetting([Problem("must be small", place="lr", found=self.lr), Problem("so nothing learns")])
        return self


class Whole(Settings):
    name: str
    train: Train = Train()
    tasks: tuple[str | Reference, ...] = ()
    shape: one_of(KINDS) = Circle()
    shapes: tuple[Annotated[Circle | Square, pydantic.Discriminator("kind")], ...] = ()
    limit: int | Literal["all", "none"] = "all"
    per_task: dict[str, Train] = pydantic.Field({})
    source: str = "hub"

    @pydantic.field_validator("source")
    @classmethod
    def _known(cls, value):
        return named(value, ["hub", "files"], "source")


@pytest.fixture
def problems(tmp_path):
    """The problems of a YAML text, as (place without line, rule, found, hint)."""

    def of(text: str) -> list[tuple]:
        path = tmp_path / "a.yaml"
        path.write_text("name: x\n" + text)
        with pytest.raises(ConfigError) as caught:
            check(Whole, read_yaml(path))
        assert all(problem.file == str(path) for problem in caught.value.problems)
        return [(p.place.partition(" (")[0], p.rule, p.found, p.hint) for p in caught.value.problems]

    return of


def test_good_settings_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "name: x\ntrain: {lr: 5e-5}\ntasks: [rte, {name: cola}]\nshape: square\nlimit: 5\nshapes: [{kind: circle}]\n"
    )
    whole = check(Whole, read_yaml(path))
    assert whole.train.lr == 5e-5
    assert whole.tasks == ("rte", Reference(name="cola"))
    assert whole.shape == Square()


def test_every_problem_is_told_at_once_with_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train:\n  lr: -1\n  epoch: 3\n  optimiser: adm\nlimits: 3\n")
    with pytest.raises(ConfigError) as caught:
        check(Whole, read_yaml(path))
    assert sorted(str(caught.value).replace(str(path), "F").splitlines()) == [
        "F: limits (line 5): unknown key; found 'limits'; did you mean 'limit'?",
        "F: name: this key is required",
        "F: train.epoch (line 3): unknown key; found 'epoch'; did you mean 'epochs'?",
        "F: train.lr (line 2): must be greater than 0; found -1",
        "F: train.optimiser (line 4): must be one of the known names; found 'adm'; did you mean 'adam' or 'adamax'?",
    ]


def test_the_types_a_value_is_not_meant_to_be_are_not_reported(problems):
    assert problems("tasks: [rte, {nam: cola, name: x}]") == [
        ("tasks[1].nam", "unknown key", "nam", "did you mean 'name'?")
    ]
    assert problems("tasks: [{weight: 1}]") == [("tasks[0].name", "this key is required", None, "")]
    assert problems("tasks: [{name: x, weight: [heavy]}]") == [
        ("tasks[0].weight", "must be a valid number", ["heavy"], "")
    ]


def test_a_value_of_no_allowed_type_is_one_problem(problems):
    assert problems("tasks: [5]") == [("tasks[0]", "must be a valid string, or a mapping of keys to values", 5, "")]
    (place, rule, found, hint) = problems("limit: al")[0]
    assert (place, found, hint) == ("limit", "al", "did you mean 'all'?")
    assert rule.startswith("must be a valid integer")
    assert rule.endswith("or one of the known names")
    assert len(problems("limit: al")) == 1
    assert len(problems("limit: {a: b}")) == 1


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("shape: {kind: square, sid: 2}", "shape.sid", "did you mean 'side'?"),
        ("shape: {kind: square, radius: 2}", "shape.radius", "choose from circle, kind, side"),
        ("shapes: [{kind: circle}, {kind: circle, radus: 2}]", "shapes[1].radus", "did you mean 'radius'?"),
        ("shape: {kind: square, circle: {kind: circle, radus: 1}}", "shape.circle.radus", "did you mean 'radius'?"),
        ("per_task: {lr: {lrr: 1}}", "per_task.lr.lrr", "did you mean 'lr'?"),
    ],
)
def test_unknown_keys_under_a_union_are_placed_and_hinted(problems, text, place, hint):
    assert [(p, rule, h) for p, rule, _, h in problems(text)] == [(place, "unknown key", hint)]


def test_keys_that_are_called_like_tags_are_not_taken_for_them(problems):
    # loc is (shapes, 0, square, side), (shape, square, circle, radius): tags stand between keys
    text = "shape: {kind: square, circle: {radius: -1}, side: -2}"
    assert [(place, found) for place, _, found, _ in problems(text)] == [
        ("shape.side", -2),
        ("shape.circle.radius", -1),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shape: {kind: sqare}", ("shape.kind", "must be one of the known kinds", "sqare", "did you mean 'square'?")),
        ("shape: sqare", ("shape.kind", "must be one of the known kinds", "sqare", "did you mean 'square'?")),
        ("shape: {side: 3}", ("shape.kind", "this key is required", None, "")),
        ("shape: [1]", None),
        ("shape: 3", None),
    ],
)
def test_kinds(problems, text, expected):
    found = problems(text)
    assert len(found) == 1
    if expected:
        assert found == [expected]
    assert found[0][0].startswith("shape")


def test_problems_of_our_own_validators_keep_their_place(problems):
    assert problems("train: {lr: 2}") == [
        ("train.lr", "must be small", 2.0, ""),
        ("train", "so nothing learns", None, ""),
    ]
    assert problems("per_task: {rte: {lr: 2}}")[0][0] == "per_task.rte.lr"
    assert problems("source: hubb") == [("source", "unknown source", "hubb", "did you mean 'hub'?")]


def test_overridden_values_are_placed_at_the_override(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"^--set: train\.lr: must be greater than 0; found -1$"):
        check(Whole, read_yaml(path).override(["train.lr=-1"]))


def test_settings_cannot_change():
    with pytest.raises(pydantic.ValidationError):
        Train().lr = 3


def test_a_default_that_breaks_a_rule_is_found():
    class Bad(Settings):
        lr: pydantic.PositiveFloat = -1

    with pytest.raises(pydantic.ValidationError):
        Bad()


def test_a_new_option_with_a_default_changes_no_name():
    assert Whole(name="x").non_defaults() == {"name": "x"}
    assert Whole(name="x", train=Train(lr=1e-3)).non_defaults() == {"name": "x"}
    assert Whole(name="x", train=Train(epochs=1)).non_defaults() == {"name": "x", "train": {"epochs": 1}}


def test_settings_of_another_kind_have_another_name():
    names = [Whole(name="x", shapes=[kind]).non_defaults() for kind in (Circle(), Square())]
    assert names[0]["shapes"] == [{"kind": "circle"}]
    assert digest(names[0]) != digest(names[1])
    assert Whole(name="x", shape=Square()).non_defaults() == {"name": "x", "shape": {"kind": "square"}}


def test_settings_survive_being_written_out():
    whole = Whole(name="x", tasks=["rte", {"name": "cola"}], shape="square", shapes=[Square(side=2)])
    for dump in (whole.model_dump(mode="json"), whole.non_defaults()):
        assert Whole.model_validate(dump) == whole


def test_members_are_read_from_names_mappings_and_themselves():
    assert member_of(KINDS, "square") == member_of(KINDS, {"kind": "square"}) == member_of(KINDS, Square())
    with pytest.raises(ConfigError, match="unknown shape; found 'sqare'; did you mean 'square'"):
        member_of(KINDS, "sqare")
    with pytest.raises(ConfigError, match="shape: sid: unknown key; found 'sid'; did you mean 'side'"):
        member_of(KINDS, {"kind": "square", "sid": 3})
    for odd in (None, [], 3, {"kind": []}):
        with pytest.raises(ConfigError):
            member_of(KINDS, odd)
