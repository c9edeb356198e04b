"""What later stages take over from a training."""

import torch
from safetensors.torch import save_file
from transformers import DistilBertConfig

from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.recipes.jobs import Origin, put_on_top
from tests import tiny


def model(seed):
    """With a pooler of its own: DistilBERT has none."""
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=16)
    return MultiTaskModel(random_encoder(config, seed=seed), [tiny.info("a"), tiny.info("b", 3)], seed=seed)


def test_a_kept_model_is_taken_over_whole_its_own_pooler_too(tmp_path):
    kept, other = model(1), model(2)
    (tmp_path / "full").mkdir()
    save_file({k: v.contiguous() for k, v in kept.state_dict().items()}, tmp_path / "full" / "weights.safetensors")
    names = {name for name in kept.state_dict() if not name.startswith("encoder.")}
    assert any(name.startswith("own_pooler.") for name in names) and any(name.startswith("heads.") for name in names)
    before = {name: weight.clone() for name, weight in other.encoder.state_dict().items()}
    put_on_top(other, tmp_path / "full")
    assert all(torch.equal(other.state_dict()[name], kept.state_dict()[name]) for name in names)
    assert all(torch.equal(other.encoder.state_dict()[name], weight) for name, weight in before.items())
    Origin("stage", stage="full").put_into(other.encoder, tmp_path)
    assert all(torch.equal(weight, kept.state_dict()[name]) for name, weight in other.state_dict().items())
