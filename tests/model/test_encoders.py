"""Encoders come out the same whatever the global generators did, and checkpoints are used or refused."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, KINDS, largest
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from transformers.utils import logging

from mtl_tickets.errors import CheckpointError, UnsupportedEncoder
from mtl_tickets.model.encoders import (
    draw_linear,
    empty_encoder,
    encoder_hash,
    fresh_linear,
    load_encoder,
    load_tokenizer,
    random_encoder,
)


def language_model(name, folder, dtype=torch.float32):
    """A checkpoint as they are found: a language model's, without pooler."""
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(copy.deepcopy(CONFIGS[name])).to(dtype)
    model.save_pretrained(folder)
    return model


def same(first, second) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_language_model_checkpoints_load_as_float32(name, attention, tmp_path):
    source = language_model(name, tmp_path, torch.bfloat16)
    encoder = load_encoder(tmp_path, attention)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert encoder.config._attn_implementation == attention
    for parameter, value in source.base_model.named_parameters():
        assert torch.equal(encoder.get_parameter(parameter), value.float())


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
def test_a_missing_pooler_depends_on_the_seed_alone(name, tmp_path):
    language_model(name, tmp_path)
    torch.manual_seed(5)
    first = load_encoder(tmp_path, seed=1)
    torch.manual_seed(6)
    torch.randn(100)
    assert same(first, load_encoder(tmp_path, seed=1))
    other = load_encoder(tmp_path, seed=2)
    assert not torch.equal(first.pooler.dense.weight, other.pooler.dense.weight)
    assert first.pooler.dense.bias.count_nonzero() == 0
    assert float(first.pooler.dense.weight.detach().std()) == pytest.approx(0.15, rel=0.1)
    assert encoder_hash(first) == encoder_hash(other)


def test_a_pooler_in_the_checkpoint_is_kept(tmp_path):
    original = random_encoder(CONFIGS["bert"], seed=3)
    original.save_pretrained(tmp_path)
    assert same(original, load_encoder(tmp_path, seed=9))


def test_nothing_is_drawn_from_the_global_generator(tmp_path):
    language_model("bert", tmp_path)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    load_encoder(tmp_path)
    random_encoder(CONFIGS["electra"])
    empty_encoder(CONFIGS["roberta"])
    fresh_linear(4, 4, 0.02, 0, "head/a")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", CONFIGS)
def test_random_encoders_depend_on_the_seed_alone(name):
    torch.manual_seed(1)
    first = random_encoder(CONFIGS[name], seed=4)
    torch.manual_seed(2)
    assert same(first, random_encoder(CONFIGS[name], seed=4))
    assert not same(first, random_encoder(CONFIGS[name], seed=5))


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_an_empty_encoder_is_whole_once_weights_are_assigned(name, attention):
    encoder = random_encoder(CONFIGS[name], attention, seed=4).eval()
    empty = empty_encoder(CONFIGS[name], attention).eval()
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.load_state_dict(encoder.state_dict(), assign=True)
    ids = torch.arange(5, 25).reshape(2, 10)
    mask = torch.ones_like(ids)
    results = [e(input_ids=ids, attention_mask=mask).last_hidden_state for e in (encoder, empty)]
    assert torch.equal(*results)


def test_random_encoders_are_float32_whatever_the_configuration_was_stored_with():
    config = copy.deepcopy(CONFIGS["bert"])
    config.dtype = torch.bfloat16
    for encoder in (random_encoder(config), empty_encoder(config)):
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert config.dtype == torch.bfloat16


def test_the_hash_sees_values_and_names_but_not_the_pooler():
    encoder = random_encoder(CONFIGS["bert"])
    before = encoder_hash(encoder)
    with torch.no_grad():
        encoder.pooler.dense.weight.add_(1)
    assert encoder_hash(encoder) == before == encoder_hash(random_encoder(CONFIGS["bert"]))
    with torch.no_grad():
        encoder.encoder.layer[2].output.dense.bias[0].add_(1e-3)
    assert encoder_hash(encoder) != before
    assert encoder_hash(random_encoder(CONFIGS["roberta"])) != before
    assert encoder_hash(encoder.to(torch.bfloat16)) != encoder_hash(encoder.float())


def test_linear_layers_are_drawn_by_name():
    layers = [fresh_linear(8, 5, 0.5, seed, name) for seed, name in ((0, "a"), (0, "b"), (1, "a"), (0, "a"))]
    assert largest(layers[0].weight, layers[3].weight) == 0
    assert largest(layers[0].weight, layers[1].weight) > 0
    assert largest(layers[0].weight, layers[2].weight) > 0
    draw_linear(layers[1], 0.5, 0, "a")
    assert largest(layers[0].weight, layers[1].weight) == 0


def test_loading_says_nothing_and_leaves_logging_as_it_was(tmp_path, capfd):
    language_model("bert", tmp_path)
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    capfd.readouterr()
    try:
        load_encoder(tmp_path)
        assert capfd.readouterr() == ("", "")
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


def test_a_checkpoint_that_lacks_encoder_weights_is_refused_by_name(tmp_path):
    random_encoder(CONFIGS["bert"]).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.bias: the checkpoint must have this"):
        load_encoder(tmp_path)


def test_other_shapes_damage_and_absence_are_refused(tmp_path):
    folder = tmp_path / "encoder"
    random_encoder(CONFIGS["bert"]).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 24}))
    with pytest.raises(CheckpointError, match="must be a pretrained encoder"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="must be a pretrained encoder"):
        load_encoder(folder)
    with pytest.raises(CheckpointError, match="is the name right"):
        load_encoder(tmp_path / "nowhere")


def test_unsupported_architectures_are_refused_before_weights_are_read(tmp_path):
    AutoConfig.for_model("albert").save_pretrained(tmp_path)  # there are no weights to read
    with pytest.raises(UnsupportedEncoder, match="found 'albert'") as caught:
        load_encoder(tmp_path)
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path)]


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must have a tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.real
def test_the_starter_encoder_loads(shared):
    folder = shared / "weights" / "mini-bert"
    encoder, tokenizer = load_encoder(folder), load_tokenizer(folder)
    assert encoder_hash(encoder) == encoder_hash(AutoModel.from_pretrained(folder))
    tokens = tokenizer(["the cat", "a dog ran"], padding=True, return_tensors="pt")
    assert encoder.eval()(**tokens).last_hidden_state.shape[::2] == (2, 256)
