"""A pre-training learns, goes on bit for bit after any stop, and leaves a whole folder or none."""

import multiprocessing
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from mtl_tickets.errors import CheckpointError, DataError, InputError
from mtl_tickets.files import read_json
from mtl_tickets.pretraining import PretrainSettings
from mtl_tickets.pretraining.pretrain import pretrain

from .conftest import TOPICS

SHAPE = {"layers": 1, "hidden": 32, "heads": 2, "positions": 32}
SMALL = {
    "shape": SHAPE,
    "vocabulary_size": 200,
    "tokens": 60_000,
    "length": 32,
    "batch_size": 8,
    "lr": 1e-2,
    "held_out": 0.05,
    "reports": 4,
}


def settings_for(text_file, **changes) -> PretrainSettings:
    return PretrainSettings.model_validate(SMALL | {"text": [str(text_file)]} | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_bit_equal(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def done(text_file, tmp_path_factory) -> Path:
    """A finished pre-training."""
    folder = tmp_path_factory.mktemp("pretrain") / "animals"
    pretrain(settings_for(text_file), folder, cache=folder.parent / "cache")
    return folder


def test_the_loss_falls_where_there_is_something_to_learn(done):
    record = read_json(done / "pretraining.json")
    curve = [row["held_out_loss"] for row in record["losses"]]
    assert [row["tokens"] for row in record["losses"]][-1] >= 60_000
    assert len(curve) == 5
    # a chunk's other words tell the topic: far below the 3.3 nats of guessing by frequency
    assert curve[0] > 4
    assert curve[-1] < 2.5
    assert record["loss"] < record["losses"][1]["loss"]


def test_the_folder_is_one_that_transformers_reads(done):
    tokenizer = AutoTokenizer.from_pretrained(done)
    model = AutoModelForMaskedLM.from_pretrained(done).eval()
    ids = tokenizer("milk paws [MASK] . sofa paws mouse milk cat paws purrs paws .", return_tensors="pt")
    place = int((ids["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    assert tokenizer.decode(model(**ids).logits[0, place].argmax()) in TOPICS[0]
    encoder = AutoModel.from_pretrained(done)
    assert encoder.config.vocab_size == len(tokenizer)
    assert sorted(path.name for path in done.parent.iterdir()) == ["animals", "cache"]


FORMS = {
    "packed": {},
    "pairs, short ones first": {"next_sentence": True, "short_length": 16, "short_share": 0.5},
    "neighbours told from others": {"contrast": 0.3},
    "the informed start": {
        "init_embeddings": "ppmi",
        "init_attention": "neighbours",
        "optimiser": "muon",
        "dropout": 0.1,
    },
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_killed_process_goes_on_bit_for_bit(done, form, text_file, tmp_path):
    settings = settings_for(text_file, checkpoint_seconds=0, **form)
    if form:
        done = tmp_path / "undisturbed" / "animals"
        pretrain(settings_for(text_file, **form), done, cache=tmp_path / "cache")
    folder = tmp_path / "animals"
    process = multiprocessing.get_context("fork").Process(
        target=pretrain, args=(settings, folder), kwargs={"cache": tmp_path / "cache"}
    )
    checkpoint = tmp_path / "animals.unfinished" / "checkpoint.safetensors"
    process.start()
    while not checkpoint.exists() and process.is_alive():
        time.sleep(0.005)
    time.sleep(0.2)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not folder.exists()
    pretrain(settings_for(text_file, **form), folder, cache=tmp_path / "cache", resume=True)
    assert_bit_equal(folder, done)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()
    again, once = read_json(folder / "pretraining.json"), read_json(done / "pretraining.json")
    assert again["losses"] == once["losses"]


def test_ending_early_is_the_beginning_of_the_whole(done, text_file, tmp_path):
    early = settings_for(text_file, stop_after=29_000)
    record = pretrain(early, tmp_path / "early", cache=tmp_path / "cache")
    whole = read_json(done / "pretraining.json")
    assert record["losses"] == whole["losses"][:3]
    assert record["training"]["tokens"] == pytest.approx(30_000, rel=0.05)
    assert pretrain(early, tmp_path / "early", cache=tmp_path / "cache") == record
    with pytest.raises(CheckpointError, match="other settings"):
        pretrain(settings_for(text_file), tmp_path / "early", cache=tmp_path / "cache")


def test_the_record_of_a_start_is_kept(done, text_file, tmp_path):
    settings = settings_for(text_file, shape={}, start=str(done), tokens=2_000)
    record = pretrain(settings, tmp_path / "further", cache=tmp_path / "cache")
    assert record["started_from"] == read_json(done / "pretraining.json")
    assert record["started_from"]["started_from"] is None


class Stop(Exception):
    pass


class StopsAfter:
    """Progress that ends the process's work after some steps, as an interrupt does."""

    def __init__(self, steps):
        self.left = steps
        self.said = []

    def begin(self, run, work): ...

    def stage(self, name): ...

    def advance(self, work):
        self.left -= work
        if self.left <= 0:
            raise Stop

    def say(self, text):
        self.said.append(text)


def stopped(text_file, tmp_path, steps=20, **changes):
    folder = tmp_path / "animals"
    with pytest.raises(Stop):
        pretrain(
            settings_for(text_file, checkpoint_seconds=0, **changes),
            folder,
            cache=tmp_path,
            progress=StopsAfter(steps),
        )
    return folder


def test_a_stopped_pretraining_is_neither_forgotten_nor_mixed_up(text_file, tmp_path):
    folder = stopped(text_file, tmp_path, tokens=15_000)
    short = settings_for(text_file, tokens=15_000)
    with pytest.raises(CheckpointError, match="--resume"):
        pretrain(short, folder, cache=tmp_path)
    with pytest.raises(CheckpointError, match="settings, text and start of this one"):
        pretrain(settings_for(text_file, tokens=15_000, lr=1e-3), folder, cache=tmp_path, resume=True)
    pretrain(short, folder, cache=tmp_path, restart=True)
    other = tmp_path / "other"
    pretrain(short, other, cache=tmp_path)
    assert_bit_equal(folder, other)


def test_finished_work_is_not_done_again(done, text_file):
    before = (done / "model.safetensors").stat().st_mtime_ns
    record = pretrain(settings_for(text_file), done, cache=done.parent / "cache")
    assert record == read_json(done / "pretraining.json")
    assert (done / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="other settings"):
        pretrain(settings_for(text_file, seed=1), done)


def test_a_folder_of_something_else_is_never_replaced(text_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(CheckpointError, match="would be lost"):
        pretrain(settings_for(text_file), tmp_path / "mine", restart=True)


def test_continued_training_starts_from_the_weights_given(done, text_file, tmp_path):
    once = read_json(done / "pretraining.json")
    settings = settings_for(text_file, start=str(done), shape={}, tokens=10_000, dropout=0.2, lr=1e-3)
    record = pretrain(settings, tmp_path / "more", cache=tmp_path)
    assert record["losses"][0]["held_out_loss"] == pytest.approx(once["held_out_loss"], rel=1e-6)
    assert record["held_out_loss"] < once["held_out_loss"] + 0.02
    assert (tmp_path / "more" / "vocab.txt").read_bytes() == (done / "vocab.txt").read_bytes()
    # its dropout is for pre-training only
    assert AutoModel.from_pretrained(tmp_path / "more").config.hidden_dropout_prob == 0.1


def test_minutes_become_tokens_once(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr("mtl_tickets.pretraining.plan.MEASURED_SECONDS", 0.3)
    settings = {"minutes": 0.03, "tokens": 10**9}
    folder = stopped(text_file, tmp_path, steps=2, **settings)
    planned = read_json(tmp_path / "animals.unfinished" / "plan.json")["tokens"]
    assert 1_000 < planned < 10**7
    record = pretrain(settings_for(text_file, **settings), folder, cache=tmp_path, resume=True)
    assert planned <= record["training"]["tokens"] < planned + 8 * 30


def test_what_does_not_fit_a_start_is_refused(done, text_file, tokenizer, tmp_path):
    with pytest.raises(InputError, match="32 positions"):
        pretrain(settings_for(text_file, start=str(done), shape={}, length=64), tmp_path / "a", cache=tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(400))]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    other = settings_for(text_file, start=str(done), shape={}, tokenizer=str(tmp_path / "vocab.txt"))
    with pytest.raises(InputError, match="must not have more than"):
        pretrain(other, tmp_path / "b", cache=tmp_path)
    with pytest.raises(CheckpointError):
        pretrain(settings_for(text_file, start=str(tmp_path / "nothing"), shape={}), tmp_path / "c", cache=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name in "abc"]


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "little.txt").write_text("one cat only\n", encoding="utf-8")
    with pytest.raises(DataError, match="must fill a sequence of 32"):
        pretrain(settings_for(tmp_path / "little.txt"), tmp_path / "out", cache=tmp_path)


@pytest.mark.real
def test_a_real_start_goes_on_where_it_was(shared, tmp_path):
    import lzma

    with lzma.open(shared / "data/text/english_sample.txt.xz", "rb") as file:
        (tmp_path / "sample.txt").write_bytes(file.read(300_000).rsplit(b"\n", 1)[0])
    settings = PretrainSettings(
        text=(str(tmp_path / "sample.txt"),),
        start=str(shared / "weights/mini-bert"),
        tokens=12_000,
        batch_size=16,
        held_out=0.1,
        mask_share=0.2,
        reports=2,
    )
    record = pretrain(settings, tmp_path / "bert", cache=tmp_path)
    first, last = record["losses"][0]["held_out_loss"], record["held_out_loss"]
    assert 4.0 < first < 5.2
    assert last < first + 0.05
