"""A name leads to a folder or to the hub, or is refused with the nearest names; a named encoder is built once."""

import shutil
import threading

import pytest
from transformers import AutoModel, AutoTokenizer

from mtl_tickets.errors import InputError
from mtl_tickets.pretraining.encoders import ENCODERS, PLAYGROUND, _turn, built, resolve_encoder
from mtl_tickets.pretraining.settings import ShapeSettings

TINY = PLAYGROUND.model_copy(
    update={
        "playground_tokens": 3000,
        "tokens": 3000,
        "shape": ShapeSettings(layers=1, hidden=16, heads=2, positions=64),
        "vocabulary_size": 300,
        "reports": 1,
    }
)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google/bert_uncased_L-2_H-128_A-2", "gpt2", "roberta-base"])
def test_names_on_the_hub_are_left_alone(name, tmp_path):
    assert resolve_encoder(name, tmp_path) == name


def test_folders_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "weights" / "mini-bert").mkdir(parents=True)
    (tmp_path / "weights" / "mini-bert" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("weights/mini-bert", str(tmp_path / "weights" / "mini-bert")):
        assert resolve_encoder(name, tmp_path) == name
    with pytest.raises(InputError, match=r"config\.json"):
        resolve_encoder("weights", tmp_path)
    with pytest.raises(InputError, match="did you mean 'mini-bert'"):
        resolve_encoder("weights/mini-brt", tmp_path)


@pytest.mark.parametrize("name", ["playgroud", "Playground", "no such thing", "./missing", "/missing/too", "bert"])
def test_names_that_lead_nowhere_are_refused(name, tmp_path):
    with pytest.raises(InputError) as error:
        resolve_encoder(name, tmp_path)
    assert name in str(error.value)
    if "play" in name.lower():
        assert "did you mean 'playground'" in str(error.value)


def test_the_default_encoder_is_registered_and_described():
    assert "playground" in ENCODERS.names()
    assert "BERT" in ENCODERS.summaries()["playground"]


def test_an_encoder_is_built_once_and_again_when_its_settings_change(tmp_path):
    folder = built("tiny", TINY, tmp_path)
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 1
    assert len(AutoTokenizer.from_pretrained(folder)) <= 300
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert built("tiny", TINY, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert built("tiny", TINY.model_copy(update={"seed": 1}), tmp_path) != folder


def test_who_needs_an_encoder_that_another_builds_waits_for_it(tmp_path):
    folder = built("tiny", TINY, tmp_path)
    shutil.rmtree(folder)
    second = threading.Thread(target=built, args=("tiny", TINY, tmp_path))
    with _turn(folder):
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
        assert not folder.with_name(folder.name + ".unfinished").exists()
        # the first one finishes
        folder.mkdir()
        (folder / "pretraining.json").write_text("{}", encoding="utf-8")
    second.join(timeout=30)
    assert not second.is_alive()
    assert [path.name for path in folder.iterdir()] == ["pretraining.json"]
