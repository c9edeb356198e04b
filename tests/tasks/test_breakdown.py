"""Accuracy apart for groups of rows, from any kind of source."""

import dataclasses

import numpy as np
import pytest

from mtl_tickets.errors import ConfigError, DataError
from mtl_tickets.tasks.breakdown import Part, broken_down, values_of
from mtl_tickets.tasks.sources import DataSettings, read_file, read_rows
from mtl_tickets.tasks.spec import load_task

LINES = [
    ("a cat sat", "yes", "order", 1),
    ("a dog sat", "no", "order", 2),
    ("a cow ate", "no", "place", 2),
    ("a hen ate", "yes", "place", 1),
    ("an ox ran", "no", "order", 1),
]
TASK = """
name: probe
labels: [yes_, no_]
metrics: [accuracy]
breakdown: {breakdown}
splits: {{dev: labelled}}
sources:
  folder:
    kind: {kind}
    text: [text]
    label: label
    label_map: {{"yes": yes_, "no": no_}}
    groups: {groups}
    splits: {{dev: {file}}}
"""


def task(folder, file="rows.tsv", kind="files", groups="[heuristic, depth]", breakdown="[[label], [heuristic, label]]"):
    path = folder / "probe.yaml"
    path.write_text(TASK.format(kind=kind, groups=groups, file=file, breakdown=breakdown))
    return load_task(path)


def write(folder, kind):
    columns = dict(zip(("text", "label", "heuristic", "depth"), map(list, zip(*LINES, strict=True)), strict=True))
    if kind == "tsv":
        rows = ["\t".join(columns), *("\t".join(map(str, line)) for line in LINES)]
        (folder / "rows.tsv").write_text("\n".join(rows))
        return "rows.tsv"
    import datasets

    made = datasets.Dataset.from_dict(columns)
    if kind == "disk":
        made.save_to_disk(str(folder / "rows"))
        return "rows"
    getattr(made, "to_parquet" if kind == "parquet" else "to_json")(str(folder / f"rows.{kind}"))
    return f"rows.{kind}"


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet", "disk"])
def test_every_row_is_in_one_part_of_each_breakdown(tmp_path, kind):
    spec = task(tmp_path, write(tmp_path, kind), "disk" if kind == "disk" else "files")
    rows = read_rows(spec, "dev")
    assert rows.groups == {"heuristic": [line[2] for line in LINES], "depth": [str(line[3]) for line in LINES]}
    answers = np.array([0, 0, 1, 1, 1])
    parts = {part.metric: (part.rows, part.accuracy) for part in broken_down(spec, rows, answers)}
    assert parts == {
        "accuracy[label=no_]": (3, pytest.approx(2 / 3)),
        "accuracy[label=yes_]": (2, 0.5),
        "accuracy[heuristic=order,label=no_]": (2, 0.5),
        "accuracy[heuristic=order,label=yes_]": (1, 1.0),
        "accuracy[heuristic=place,label=no_]": (1, 1.0),
        "accuracy[heuristic=place,label=yes_]": (1, 0.0),
    }
    for names in (1, 2):
        of_size = [part for part in broken_down(spec, rows, answers) if len(part.values) == names]
        assert sum(part.rows for part in of_size) == len(rows)
        right = sum(part.rows * part.accuracy for part in of_size)
        assert right == pytest.approx((answers == np.array(rows.labels)).sum())


def test_groups_go_with_their_rows(tmp_path):
    spec = task(tmp_path, write(tmp_path, "tsv"))
    chosen = read_rows(spec, "dev").select(np.array([3, 0]))
    assert chosen.groups["heuristic"] == ["place", "order"]
    assert [part.rows for part in broken_down(spec, chosen, np.array([0, 0]))] == [2, 1, 1]
    assert chosen.fingerprint != read_rows(spec, "dev").select(np.array([0, 3])).fingerprint


def test_a_file_given_by_hand_needs_no_groups(tmp_path):
    spec = task(tmp_path, write(tmp_path, "tsv"))
    (tmp_path / "other.tsv").write_text("text\tlabel\na cat\tyes\na dog\tno\n")
    rows = read_file(spec, tmp_path / "other.tsv")
    assert [part.metric for part in broken_down(spec, rows, np.array([0, 0]))] == [
        "accuracy[label=no_]",
        "accuracy[label=yes_]",
    ]


def test_a_column_that_is_not_there_is_an_error(tmp_path):
    spec = task(tmp_path, write(tmp_path, "tsv"), groups="[heuristic, dept]")
    with pytest.raises(DataError, match=r"this column is missing.*'dept'.*did you mean 'depth'"):
        read_rows(spec, "dev", DataSettings())


def test_an_empty_group_names_its_line(tmp_path):
    spec = task(tmp_path, write(tmp_path, "tsv"))
    text = (tmp_path / "rows.tsv").read_text().replace("\tplace\t", "\t \t", 1)
    (tmp_path / "rows.tsv").write_text(text)
    with pytest.raises(DataError, match=r"line 4: heuristic must be a word or a whole number"):
        read_rows(spec, "dev")


@pytest.mark.parametrize(
    ("breakdown", "message"),
    [
        ("[[label], [colour]]", r"sources.folder.groups must have every column of breakdown.*'colour'"),
        ("[[]]", r"must be names, each once"),
        ("[[label, label]]", r"must be names, each once"),
    ],
)
def test_a_breakdown_that_cannot_be_is_refused(tmp_path, breakdown, message):
    with pytest.raises(ConfigError, match=message):
        task(tmp_path, breakdown=breakdown)


@pytest.mark.parametrize("value", ["a", "a,b=c]", "x[y=z]", "100 %", "ä%2C", "ln_subject/object_swap"])
def test_a_part_is_read_again_from_its_metric(value):
    part = Part((("kind", value), ("label", "no")), 3, 0.5)
    assert values_of(part.metric) == part.values


def test_other_metrics_are_of_no_part():
    assert [values_of(name) for name in ("accuracy", "score", "f1", "accuracy[")] == [None] * 4


def test_a_task_that_asks_for_none_has_none(tmp_path):
    spec = task(tmp_path, write(tmp_path, "tsv"), breakdown="[]")
    assert broken_down(spec, read_rows(spec, "dev"), np.zeros(len(LINES))) == []
    regression = spec.model_copy(update={"kind": "regression", "labels": []})
    scored = dataclasses.replace(read_rows(spec, "dev"), labels=[0.5] * len(LINES), label_names=[])
    assert broken_down(regression, scored, np.zeros(len(LINES))) == []
