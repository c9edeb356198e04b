from pathlib import Path

import pytest

from mtl_tickets.documents import dotted, read_yaml
from mtl_tickets.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def put(text: str, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return put


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5E3", 5000.0),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("-3.", -3.0),
        (".inf", float("inf")),
        ("12", 12),
        ("-7", -7),
        ("010", 10),
        ("0x1f", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        # text, unlike YAML 1.1
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2024-05-01", "2024-05-01"),
        ("1_000", "1_000"),
        ("e5", "e5"),
        ("'12'", "12"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write, text, value):
    found = read_yaml(write(f"key: {text}\n")).data["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_as_written(write):
    data = read_yaml(write("1: a\ntrue: b\nno: c\nnull: d\n1.0: e\n")).data
    assert data == {"1": "a", "true": "b", "no": "c", "null": "d", "1.0": "e"}


def test_an_empty_file_is_an_empty_mapping_and_a_byte_order_mark_is_no_key(write):
    assert read_yaml(write("# nothing\n")).data == {}
    assert read_yaml(write("\ufeffname: x\n")).data == {"name": "x"}


def test_aliases_work(write):
    assert read_yaml(write("a: &x [1, 2]\nb: *x\n")).data == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", r"a \(line 3\): a key may stand only once"),
        ("a:\n  b: 1\n  b: 2\n", r"a\.b \(line 3\): a key may stand only once"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("a: [1, 2\n", "must be YAML.*line 2"),
        ("a: 1\n\tb: 2\n", "must be YAML.*line 2"),
        ("a: &x\n  b: *x\n", "line 1, column 4: an alias must not stand inside"),
        ("a: *nowhere\n", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "line 2.*another document"),
        ("a: !!python/object:os.system x\n", "line 1.*could not determine a constructor"),
        ("a: !!int abc\n", "line 1, column 4: invalid literal"),
        ("? [1, 2]\n: 3\n", "a key must be text"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n", "use include"),
        ("a: \0\n", "must be YAML"),
    ],
)
def test_what_is_no_settings_file_is_refused_with_its_place(write, text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_yaml(write(text))
    assert caught.value.problems[0].file.endswith("a.yaml")


def test_all_duplicates_are_told_at_once(write):
    with pytest.raises(ConfigError) as caught:
        read_yaml(write("a: 1\na: 2\nb: {c: 1, c: 2}\n"))
    assert len(caught.value.problems) == 2


def test_files_that_cannot_be_read(write, tmp_path):
    write("a: 1", "experiment.yaml")
    with pytest.raises(ConfigError, match=r"must exist; did you mean 'experiment\.yaml'"):
        read_yaml(tmp_path / "experimnet.yaml")
    with pytest.raises(ConfigError, match="not a folder"):
        read_yaml(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="byte 3: must be UTF-8"):
        read_yaml(tmp_path / "b.yaml")


# ------------------------------------------------------------------------------------------------------- includes


def test_includes_merge_below_the_files_own_keys(write):
    write("train: {lr: 1e-4, epochs: 3}\ntasks: [rte, mrpc]\nseed: 1\n", "base.yaml")
    document = read_yaml(write("include: base.yaml\ntrain: {lr: 5e-5}\ntasks: [cola]\n"))
    assert document.data == {"train": {"lr": 5e-5, "epochs": 3}, "tasks": ["cola"], "seed": 1}
    assert Path(document.origin["train", "epochs"][0]).name == "base.yaml"
    assert document.origin["train", "lr"] == (document.file, 2)
    assert Path(document.origin["seed",][0]).name == "base.yaml"
    assert ("tasks", 1) not in document.origin


def test_later_includes_stand_above_earlier_ones_and_includes_include(write, tmp_path):
    write("a: 1\nb: 1\nc: 1\n", "deep.yaml")
    write("include: deep.yaml\nb: 2\nc: 2\n", "one.yaml")
    write("c: 3\n", "two.yaml")
    assert read_yaml(write("include: [one.yaml, two.yaml]\n")).data == {"a": 1, "b": 2, "c": 3}


def test_includes_are_searched_for(write, tmp_path):
    write("a: 1\n", "shipped/base.yaml")
    path = write("include: base.yaml\n", "mine/b.yaml")
    assert read_yaml(path, search=[tmp_path / "shipped"]).data == {"a": 1}
    with pytest.raises(ConfigError, match=r"include \(line 1\): the included file must exist; found 'bse.yaml'.*'base"):
        read_yaml(write("include: bse.yaml\n", "mine/c.yaml"), search=[tmp_path / "shipped"])


def test_circles_and_odd_includes_are_refused(write):
    write("include: b.yaml\n", "c.yaml")
    path = write("include: c.yaml\n", "b.yaml")
    with pytest.raises(ConfigError, match=r"b\.yaml -> c\.yaml -> b\.yaml"):
        read_yaml(path)
    for odd in ("5", "{a: b}", "[a.yaml, 3]", ""):
        with pytest.raises(ConfigError, match=r"include.*name of a file or a list"):
            read_yaml(write(f"include: {odd}\n"))


# ------------------------------------------------------------------------------------------------------ overrides


@pytest.mark.parametrize(
    ("assignment", "place", "value"),
    [
        ("train.lr=5e-5", ("train", "lr"), 5e-5),
        ("tasks.1=cola", ("tasks", 1), "cola"),
        ("tasks=[a, b]", ("tasks",), ["a", "b"]),
        ("new.key.deep=true", ("new", "key", "deep"), True),
        ("empty.lr=1", ("empty", "lr"), 1),
        ("train=", ("train",), None),
        ("by_number.0=x", ("by_number", "0"), "x"),
        ("name=a=b", ("name",), "a=b"),
    ],
)
def test_overrides(write, assignment, place, value):
    document = read_yaml(write("train: {lr: 1, epochs: 3}\ntasks: [rte, mrpc]\nempty:\nby_number: {0: a}\n"))
    before = repr(document.data)
    changed = document.override([assignment])
    found = changed.data
    for key in place:
        found = found[key]
    assert found == value
    assert changed.origin[place] == ("--set", 0)
    assert repr(document.data) == before
    assert str(changed.problem(place, "must be odd")).startswith(f"--set: {dotted(place)}: must be odd")


def test_all_bad_overrides_are_told_at_once(write):
    document = read_yaml(write("train: {lr: 1}\ntasks: [rte]\n"))
    with pytest.raises(ConfigError) as caught:
        document.override(
            ["lr", "=3", "a..b=1", "tasks.5=x", "tasks.x=1", "train.lr.deep=1", "train.lr=[1", "a={b: 1, b: 2}"]
        )
    assert len(caught.value.problems) == 8
    assert all(problem.file == "--set" for problem in caught.value.problems)


def test_dotted():
    assert dotted(("tasks", 0, "name")) == "tasks[0].name"
    assert dotted(()) == ""
