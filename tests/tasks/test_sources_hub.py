"""The hub, on a local copy of a repository laid out like nyu-mll/glue: same files, configurations, features."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from mtl_tickets.errors import DataError
from mtl_tickets.tasks.sources import DataSettings, Rows, read_rows
from mtl_tickets.tasks.spec import TaskSpec, load_task

PAIR = {
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"]),
    "mnli": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"]),
    "ax": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"]),
    "sst2": (["sentence"], ["negative", "positive"]),
}
SPLITS = {
    "mrpc": ["train", "validation", "test"],
    "mnli": ["train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"],
    "ax": ["test"],
    "sst2": ["train", "validation", "test"],
    "stsb": ["train", "validation", "test"],
}
TEXTS = ["a cat sat", "it ran", "not a dog"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nyu-mll/glue in it: <config>/<split>-00000-of-00001.parquet and the configurations in README.md."""
    root = tmp_path_factory.mktemp("copies")
    repository = root / "nyu-mll" / "glue"
    card = ["---", "configs:"]
    for config, splits in SPLITS.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            (repository / config).mkdir(parents=True, exist_ok=True)
            file = f"{config}/{split}-00000-of-00001.parquet"
            dataset_of(config, split).to_parquet(str(repository / file))
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (repository / "README.md").write_text("\n".join([*card, "---", ""]))
    return root


def dataset_of(config: str, split: str) -> datasets.Dataset:
    """Three rows a split; the labels of test splits are -1, as on the hub."""
    columns, names = PAIR.get(config, (["sentence1", "sentence2"], []))
    hidden = split.startswith("test")
    label: Any = datasets.ClassLabel(names=names) if names else datasets.Value("float32")
    values: list[Any] = [0, 1, len(names) - 1] if names else [0.0, 2.5, 5.0]
    features = {column: datasets.Value("string") for column in columns}
    rows = {column: [f"{text} {column} {split}" for text in TEXTS] for column in columns}
    return datasets.Dataset.from_dict(
        rows | {"label": [-1] * 3 if hidden else values, "idx": [0, 1, 2]},
        features=datasets.Features({**features, "label": label, "idx": datasets.Value("int32")}),
    )


def read(name: str, split: str, copies: Path, tmp_path: Path) -> Rows:
    return read_rows(load_task(name), split, DataSettings(source="hub", root=copies, hub_cache=tmp_path))


@pytest.mark.parametrize(
    ("name", "split", "there", "labels"),
    [
        ("mrpc", "train", "train", [0, 1, 1]),
        ("mnli", "dev_matched", "validation_matched", [0, 1, 2]),
        ("mnli", "dev_mismatched", "validation_mismatched", [0, 1, 2]),
        ("sst2", "dev", "validation", [0, 1, 1]),
        ("stsb", "dev", "validation", [0.0, 2.5, 5.0]),
        ("sst2", "test", "test", None),
        ("ax", "test", "test", None),
    ],
)
def test_glue_reads_from_a_copy_of_its_repository(
    copies: Path, tmp_path: Path, name: str, split: str, there: str, labels: list[float] | None
) -> None:
    rows = read(name, split, copies, tmp_path)
    columns = PAIR.get(name, (["sentence1", "sentence2"], []))[0]
    assert rows.texts == [[f"{text} {column} {there}" for text in TEXTS] for column in columns]
    assert (None if rows.labels is None else rows.labels.tolist()) == labels
    assert (list(rows.lines), rows.unit) == ([1, 2, 3], "row")


def test_a_split_the_hub_lacks_names_the_source_that_has_it(copies: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source 'hub' must have the split \(it has test\); found 'dev'.*'folder'"):
        read("ax", "dev", copies, tmp_path)


def test_the_hidden_labels_of_a_test_split_are_no_labels(copies: Path, tmp_path: Path) -> None:
    spec = load_task("mrpc").model_copy(update={"splits": {"test": "labelled"}})
    with pytest.raises(DataError, match=r"nyu-mll/glue/mrpc \[test\]: row 1: a label is required; found -1"):
        read_rows(spec, "test", DataSettings(source="hub", root=copies, hub_cache=tmp_path))


def own(copies: Path, labels: list[str], **settings: Any) -> TaskSpec:
    source = {"kind": "hub", "path": str(copies / "nyu-mll" / "glue"), "name": "mrpc", "text": ["sentence1"]}
    source |= {"label": "label", "splits": {"train": "train"}}
    task = {"name": "t", "labels": labels, "metrics": ["accuracy"], "splits": {"train": "labelled"}}
    return TaskSpec.model_validate(task | {"sources": {"hub": source | settings}})


def labels_of(spec: TaskSpec, tmp_path: Path) -> Any:
    return read_rows(spec, "train", DataSettings(hub_cache=tmp_path)).labels.tolist()


def test_class_names_decide_before_class_numbers(copies: Path, tmp_path: Path) -> None:
    """The task orders its labels the other way round than the dataset does."""
    assert labels_of(own(copies, ["equivalent", "not_equivalent"]), tmp_path) == [1, 0, 0]


def test_class_numbers_are_indices_where_no_class_name_is_known(copies: Path, tmp_path: Path) -> None:
    assert labels_of(own(copies, ["other", "same"]), tmp_path) == [0, 1, 1]
    with pytest.raises(DataError, match="row 1: this label is not listed; found 0"):
        labels_of(own(copies, ["other", "same", "third"]), tmp_path)


def test_class_names_and_numbers_can_be_mapped(copies: Path, tmp_path: Path) -> None:
    by_name = {"label_map": {"not_equivalent": "b", "equivalent": "a"}}
    by_number = {"label_map": {"0": "b", "1": "a"}}
    assert labels_of(own(copies, ["a", "b"], **by_name), tmp_path) == [1, 0, 0]
    assert labels_of(own(copies, ["a", "b"], **by_number), tmp_path) == [1, 0, 0]


def test_a_half_known_set_of_class_names_is_refused(copies: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this label is not listed; found 0"):
        labels_of(own(copies, ["equivalent", "other"]), tmp_path)


def test_rows_with_a_dropped_class_are_left_out_and_placed(copies: Path, tmp_path: Path) -> None:
    spec = own(copies, ["not_equivalent", "equivalent"], drop_labels=["not_equivalent"])
    rows = read_rows(spec, "train", DataSettings(hub_cache=tmp_path))
    assert (rows.labels.tolist(), rows.lines.tolist(), rows.dropped) == ([1, 1], [2, 3], {"label": [1]})


def test_given_data_files_are_read(copies: Path, tmp_path: Path) -> None:
    files = {"name": None, "data_files": {"train": "mrpc/validation-*.parquet"}}
    spec = own(copies, ["not_equivalent", "equivalent"], **files)
    rows = read_rows(spec, "train", DataSettings(hub_cache=tmp_path))
    assert rows.texts[0][0].endswith("validation")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mrcp"}, r"cannot be loaded \(BuilderConfig 'mrcp' not found"),
        ({"splits": {"train": "trian"}}, r"cannot be loaded.*found 'trian'; did you mean 'train'\?"),
        ({"text": ["sentence"]}, r"this column is missing; found 'sentence'; did you mean 'sentence"),
        ({"label": "lable"}, r"this column is missing; found 'lable'; did you mean 'label'\?"),
    ],
)
def test_what_does_not_fit_the_repository_is_said(
    copies: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        labels_of(own(copies, ["not_equivalent", "equivalent"], **settings), tmp_path)


def test_a_missing_copy_lists_what_is_there(copies: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a copy of the dataset repository must be here.*holds nyu-mll/"):
        read("snli", "dev", copies, tmp_path)


def test_offline_without_a_copy_is_said(tmp_path: Path) -> None:
    assert datasets.config.HF_HUB_OFFLINE, "tests never ask the network"
    with pytest.raises(DataError, match=r"nyu-mll/glue: mrpc: cannot be loaded .* HF_HUB_OFFLINE is set"):
        read_rows(load_task("mrpc"), "dev", DataSettings(hub_cache=tmp_path))
