"""The shipped task files on real data in the official folder layout."""

from pathlib import Path

import numpy as np
import pytest

from mtl_tickets.tasks.encode import encode
from mtl_tickets.tasks.sources import DataSettings, Rows, read_rows
from mtl_tickets.tasks.spec import load_task

pytestmark = pytest.mark.real

GLUE = {
    ("cola", "train"): 8551,
    ("cola", "dev"): 1043,
    ("cola", "test"): 1063,
    ("sst2", "dev"): 872,
    ("sst2", "test"): 1821,
    ("mrpc", "train"): 3668,
    ("mrpc", "dev"): 408,
    ("stsb", "train"): 5749,
    ("stsb", "dev"): 1500,
    ("rte", "train"): 2490,
    ("rte", "dev"): 277,
    ("rte", "test"): 3000,
    ("wnli", "train"): 635,
    ("wnli", "dev"): 71,
    ("wnli", "test"): 146,
    ("qnli", "train"): 9999,
    ("qnli", "dev"): 5463,
    ("qqp", "dev"): 7600,
    ("mnli", "dev_matched"): 9815,
    ("mnli", "dev_mismatched"): 3912,
    ("ax", "dev"): 1104,
    ("ax", "test"): 1104,
}
OTHERS = {
    ("hans", "dev", "folder"): 30000,
    ("paws", "dev", "headerless"): 2000,
    ("fever-symmetric", "test", "folder"): 956,
    ("fever-symmetric-v2", "dev", "folder"): 708,
    ("snli", "dev", "folder"): 9842,
}


def read(shared: Path, name: str, split: str, folder: str = "glue", source: str = "folder") -> Rows:
    return read_rows(load_task(name), split, DataSettings(source=source, root=shared / "data" / folder))


@pytest.mark.parametrize(("name", "split"), GLUE)
def test_glue_folders_have_the_rows_they_should(shared: Path, name: str, split: str) -> None:
    rows = read(shared, name, split)
    spec = load_task(name)
    assert len(rows) == GLUE[name, split]
    assert not rows.dropped
    assert not any(text.endswith(("\r", "\n")) for column in rows.texts for text in column)
    if spec.splits[split] == "unlabelled":
        assert rows.labels is None
    elif spec.kind == "classification":
        assert set(rows.labels.tolist()) == set(range(len(spec.labels)))
    else:
        assert 0.0 <= rows.labels.min() < rows.labels.max() <= 5.0


@pytest.mark.parametrize(("name", "split", "source"), OTHERS)
def test_challenge_sets_have_the_rows_they_should(shared: Path, name: str, split: str, source: str) -> None:
    rows = read(shared, name, split, "ood", source)
    assert len(rows) == OTHERS[name, split, source]
    assert len(set(rows.labels.tolist())) == {"snli": 3}.get(name, 2)


def test_quotes_are_text_in_mrpc(shared: Path) -> None:
    rows = read(shared, "mrpc", "train")
    assert rows.texts[0][0] == (
        'Amrozi accused his brother , whom he called " the witness " , of deliberately distorting his evidence .'
    )
    assert rows.lines[0] == 2
    assert read(shared, "cola", "train").lines[0] == 1


def test_a_real_tokenizer_and_the_cache(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "weights" / "mini-bert")
    spec, rows = load_task("rte"), read(shared, "rte", "dev")
    encoded = encode(spec, "dev", rows, tokenizer, 128, tmp_path)
    again = encode(spec, "dev", rows, AutoTokenizer.from_pretrained(shared / "weights" / "mini-bert"), 128, tmp_path)
    assert len(list(tmp_path.rglob("*.arrow"))) == 1
    assert np.array_equal(encoded.ids, again.ids)
    expected = tokenizer(rows.texts[0][5], rows.texts[1][5], truncation=True, max_length=128)
    assert encoded.input_ids(5).tolist() == expected["input_ids"]
    assert encoded.lengths.max() <= 128
