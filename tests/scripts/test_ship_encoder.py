"""What the script makes of a pre-training: the same encoder in bfloat16, and a card whose numbers are the record's."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from mtl_tickets.files import read_json
from mtl_tickets.model.encoders import encoder_hash, load_encoder
from mtl_tickets.pretraining import PretrainSettings
from mtl_tickets.pretraining.pretrain import pretrain

from .loading import script

ship_encoder = script("ship_encoder")


SCORES = "Some words.\n\n| task | mini |\n|---|---:|\n| a | 1.0 |\n\nMore words.\n"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """An encoder of two phases, shipped; the folder and the second phase's record."""
    folder = tmp_path_factory.mktemp("ship")
    first = PretrainSettings.model_validate(
        {
            "text": ["playground"],
            "playground_tokens": 20_000,
            "vocabulary_size": 300,
            "shape": {"layers": 1, "hidden": 16, "heads": 2, "positions": 32},
            "tokens": 20_000,
            "stop_after": 10_000,
            "length": 32,
            "short_length": 16,
            "held_out": 0.1,
            "reports": 4,
        }
    )
    pretrain(first, folder / "one", cache=folder / "cache")
    second = first.model_copy(
        update={"start": str(folder / "one"), "shape": type(first.shape)(), "stop_after": None, "next_sentence": True}
    )
    record = pretrain(second, folder / "two", cache=folder / "cache")
    ship_encoder.ship(folder / "two", folder / "mini", 1.2345, SCORES)
    return folder / "mini", record


def test_weights_are_those_of_the_pre_training_in_bfloat16(shipped):
    folder, _ = shipped
    ours = load_encoder(folder).state_dict()
    theirs = load_encoder(folder.parent / "two").state_dict()
    for name, tensor in theirs.items():
        if not name.startswith("pooler."):  # a masked-language model has none
            assert torch.equal(ours[name], tensor.bfloat16().float()), name
    assert (
        AutoTokenizer.from_pretrained(folder).get_vocab()
        == AutoTokenizer.from_pretrained(folder.parent / "two").get_vocab()
    )


def test_record_and_card_tell_of_both_phases_and_of_no_folder(shipped):
    folder, record = shipped
    kept = read_json(folder / "pretraining.json")
    assert kept["started_from"]["losses"] == record["started_from"]["losses"]
    assert str(folder.parent) not in json.dumps(kept)
    assert kept["encoder_hash"] == encoder_hash(load_encoder(folder))
    card = (folder / "README.md").read_text()
    assert "\n\n| task | mini |\n|---|---:|\n| a | 1.0 |\n\n## Limits" in card
    assert max(len(line) for line in card.splitlines()) <= 120
    first, second = record["started_from"]["training"]["tokens"], record["training"]["tokens"]
    for told in (f"{first:,} tokens of 20,000 that", f"{second:,} tokens", f"{first + second:,} tokens seen", "(1.234"):
        assert told in " ".join(card.split())
    rows = [line for line in card.splitlines() if line.startswith("| ") and "tokens |" in line and line[2].isdigit()]
    seen = [int(row.split("|")[1].replace(",", "")) for row in rows]
    assert seen == sorted(seen) and seen[-1] == first + second


def test_the_figure_has_a_line_for_each_kind_of_sequences(shipped, tmp_path):
    pytest.importorskip("matplotlib")
    _, record = shipped
    ship_encoder.draw(record, tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    for form in ("packed, 16 tokens", "pairs, 16 tokens", "pairs, 32 tokens"):
        assert form in text


def test_too_large_is_refused_and_leaves_nothing(shipped, tmp_path, monkeypatch):
    folder, _ = shipped
    monkeypatch.setattr(ship_encoder, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000"):
        ship_encoder.ship(folder.parent / "two", tmp_path / "mini", 1.0, SCORES)
    assert not (tmp_path / "mini").exists()


def test_scores_without_a_table_are_refused(shipped, tmp_path):
    folder, _ = shipped
    with pytest.raises(ValueError, match="must hold a table"):
        ship_encoder.ship(folder.parent / "two", tmp_path / "mini", 1.0, "no table")
    assert not (tmp_path / "mini").exists()
