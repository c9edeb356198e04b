"""The small English encoder that lies in the package."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from mtl_tickets.files import read_json
from mtl_tickets.model.encoders import encoder_hash, load_encoder
from mtl_tickets.pretraining.encoders import resolve_encoder

MINI = resolve_encoder("mini")


def test_the_encoder_in_the_package_is_what_its_record_says():
    record = read_json(Path(MINI) / "pretraining.json")
    encoder = load_encoder(MINI)
    assert encoder_hash(encoder) == record["encoder_hash"]
    assert sum(file.stat().st_size for file in Path(MINI).iterdir()) <= 12 * 10**6
    assert record["held_out_loss"] <= 3.6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the film was released in the united [MASK] in 1998.", {"states", "kingdom"}),
        ("she opened the [MASK] and walked into the room.", {"door", "window", "doors"}),
    ],
)
def test_the_encoder_in_the_package_knows_english(text, words):
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    model = AutoModelForMaskedLM.from_pretrained(MINI, dtype=torch.float32).eval()
    ids = tokenizer(text, return_tensors="pt")
    place = int((ids["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    with torch.inference_mode():
        best = tokenizer.convert_ids_to_tokens(model(**ids).logits[0, place].topk(3).indices.tolist())
    assert words & set(best), best
