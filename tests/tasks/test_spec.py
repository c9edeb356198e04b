from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_tickets.errors import ConfigError, InputError
from mtl_tickets.tasks.sources import read_rows
from mtl_tickets.tasks.spec import TaskSpec, load_task, shipped_tasks, task_config_folder

Write = Callable[[str, str], Path]

OWN = """\
name: mood
labels: [sad, glad]
metrics: [accuracy]
splits: {train: labelled, dev: labelled, test: unlabelled}
sources:
  here:
    kind: files
    text: [sentence]
    label: mood
    splits: {train: data/train.csv, dev: data/dev.csv, test: data/test.csv}
"""


@pytest.mark.parametrize("name", shipped_tasks())
def test_every_shipped_task_loads_and_is_called_like_its_file(name: str) -> None:
    spec = load_task(name)
    assert spec.name == name
    assert spec.dev_splits
    assert spec.description
    assert set(spec.splits) == {split for source in spec.sources.values() for split in source.split_names}


def test_all_the_tasks_that_are_promised_are_shipped() -> None:
    glue = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"}
    others = {"snli", "scitail", "hans", "paws", "paws-qqp", "fever", "fever-symmetric", "fever-symmetric-v2"}
    assert glue | others <= set(shipped_tasks())
    for name in glue:
        assert {"hub", "folder"} <= set(load_task(name).sources)


def test_published_head_dropouts_and_metrics() -> None:
    dropout = {name: load_task(name).head_dropout for name in ("mnli", "cola", "rte", "stsb")}
    assert dropout == {"mnli": 0.2, "cola": 0.05, "rte": 0.1, "stsb": 0.1}
    metrics = {name: load_task(name).metrics for name in ("mnli", "cola", "mrpc", "qqp", "stsb")}
    assert metrics == {
        "mnli": ["accuracy"],
        "cola": ["mcc"],
        "mrpc": ["accuracy", "f1"],
        "qqp": ["accuracy", "f1"],
        "stsb": ["pearson", "spearman"],
    }


@pytest.mark.parametrize("name", [n for n in shipped_tasks() if load_task(n).head is not None])
def test_tasks_answered_by_another_head_cover_its_labels(name: str) -> None:
    spec = load_task(name)
    head = load_task(str(spec.head))
    ids = spec.ids_from_head(head.labels)
    assert len(ids) == len(head.labels)
    assert set(ids.tolist()) == set(range(len(spec.labels)))


def test_hans_counts_neutral_and_contradiction_as_non_entailment() -> None:
    spec, head = load_task("hans"), load_task("mnli")
    answers = dict(zip(head.labels, [spec.labels[i] for i in spec.ids_from_head(head.labels)], strict=True))
    assert answers == {"entailment": "entailment", "neutral": "non-entailment", "contradiction": "non-entailment"}


def test_a_head_label_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'hans'.*found 'maybe'|hans: collapse: .*found 'maybe'"):
        load_task("hans").ids_from_head(["entailment", "maybe"])


def test_a_variant_takes_away_what_it_includes() -> None:
    assert set(load_task("paws").sources) == {"hub", "folder", "headerless"}
    variant = load_task("paws-qqp")
    assert set(variant.sources) == {"folder"}
    assert variant.sources["folder"].split_names == ["train", "dev"]
    assert variant.labels == load_task("paws").labels


def test_a_task_of_ones_own_needs_one_file_and_reads_beside_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("tasks/mood.yaml", OWN)
    write("tasks/data/dev.csv", "sentence,mood\nfine day,glad\nrain,sad\n")
    monkeypatch.chdir("/")
    spec = load_task(path)
    rows = read_rows(spec, "dev")
    assert rows.texts == [["fine day", "rain"]]
    assert rows.labels.tolist() == [1, 0]
    assert read_rows(load_task("mood", search=[path.parent]), "dev").fingerprint == rows.fingerprint


def test_a_variant_of_a_shipped_task(write: Write) -> None:
    path = write("rte-small.yaml", "include: rte.yaml\nname: rte-small\nhead_dropout: 0.3\n")
    spec = load_task(str(path))
    assert (spec.name, spec.head_dropout, spec.labels) == ("rte-small", 0.3, load_task("rte").labels)


def test_a_task_is_reported_on_the_splits_that_it_names() -> None:
    spec = load_task("fever-symmetric-v2")
    assert spec.dev_splits == ["test"] and spec.splits["dev"] == "labelled"
    assert spec.model_copy(update={"report": ()}).dev_splits == ["dev"]


def test_a_spec_survives_being_written_and_read() -> None:
    for name in shipped_tasks():
        spec = load_task(name)
        assert TaskSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mrpc'"):
        load_task("mrcp")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: this file must exist"):
        load_task(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("metrics: [accuracy]", "metrics: [acuracy]", r"metrics.*unknown metric.*'acuracy'.*did you mean 'accuracy'"),
        ("metrics: [accuracy]", "metrics: [pearson]", r"needs metrics for classification.*'pearson'"),
        ("metrics: [accuracy]", "metric: [accuracy]", r"metric \(line 3\): unknown key.*did you mean 'metrics'"),
        ("kind: files", "kind: filles", r"sources\.here.*found 'filles'.*did you mean 'files'"),
        ("    label: mood\n", "", r"sources\.here: a labelled split needs label"),
        ("text: [sentence]", "text: [a, b, c]", r"sources\.here\.text"),
        ("text: [sentence]", "texts: [sentence]", r"texts \(line 8\): unknown key.*did you mean 'text'"),
        ("labels: [sad, glad]", "labels: [sad]", r"two or more different names; found \['sad'\]"),
        ("labels: [sad, glad]", "labels: [sad, sad]", r"two or more different names"),
        ("{train: labelled, dev", "{train: labeled, dev", r"splits\.train.*'labeled'.*did you mean 'labelled'"),
        ("test: data/test.csv", "tets: data/test.csv", r"sources\.here: unknown split; found 'tets'.*'test'"),
        ("name: mood", "name: my.mood", r"name \(line 1\)"),
        ("name: mood", "name: mood\nkind: regression", r"a regression task has no labels"),
        ("name: mood", "name: mood\ncollapse: {x: glat}\nhead: y", r"collapse.*found 'glat'.*'glad'"),
        ("name: mood", "name: mood\ndefault_source: her", r"default_source.*found 'her'.*'here'"),
        ("label: mood", "label: mood\n    label_map: {'1': glat}", r"label_map: '1'.*found 'glat'.*'glad'"),
        ("label: mood", "label: mood\n    columns: [a]\n    header: true", r"say header: false"),
        ("name: mood", "name: mood\nreport: [dve]", r"report\.0.*labelled split.*found 'dve'.*did you mean 'dev'"),
        ("name: mood", "name: mood\nreport: [test]", r"report\.0.*labelled split, and not train.*found 'test'"),
        ("name: mood", "name: mood\nreport: [dev, dev]", r"report.*each may stand only once"),
    ],
)
def test_what_is_wrong_with_a_task_file_is_said(write: Write, line: str, instead: str, message: str) -> None:
    assert line in OWN
    with pytest.raises(InputError, match=message):
        load_task(write("mood.yaml", OWN.replace(line, instead)))


def test_all_problems_come_at_once(write: Write) -> None:
    text = OWN.replace("labels: [sad, glad]", "labels: [sad]").replace("test: data", "tets: data")
    with pytest.raises(ConfigError) as error:
        load_task(write("mood.yaml", text + "default_source: nowhere\n"))
    assert len(error.value.problems) == 3


def test_the_folder_of_shipped_tasks_exists() -> None:
    assert (task_config_folder() / "tasks" / "mnli.yaml").is_file()
