"""The table fits the modules, and costs follow from configurations alone."""

import pytest
import torch
from tiny_models import CONFIGS, HEADS, LAYERS, NEURONS, WIDTH, make_model
from transformers import AlbertConfig, AlbertModel, BertConfig, BertForMaskedLM

from mtl_tickets.errors import UnsupportedEncoder
from mtl_tickets.model.anatomy import ANATOMIES, anatomy_of, dimensions_of, layers_of, space_of
from mtl_tickets.tickets.space import StructuredSpace

LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_is_found_with_its_shape(name):
    model = make_model(name)
    layers = layers_of(model.encoder)
    assert len(layers) == LAYERS
    for layer in layers:
        shapes = {part: tuple(module.weight.shape) for part, module in model.anatomy.parts(layer).items()}
        square = dict.fromkeys(("query", "key", "value", "attention_output"), (WIDTH, WIDTH))
        assert shapes == {**square, "ffn_in": (NEURONS, WIDTH), "ffn_out": (WIDTH, NEURONS)}
        assert model.anatomy.find(layer, "ffn_end") is not None


def test_the_table_and_these_tests_name_the_same_architectures():
    assert set(ANATOMIES) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_total_counts_the_real_encoder_and_a_classifier(name):
    model = make_model(name)
    space = space_of(CONFIGS[name], neurons=True)
    real = sum(p.numel() for p in model.encoder.parameters())
    assert space.total == real + 2 * (WIDTH + 1)
    assert space_of(CONFIGS[name], classes=3).total == real + 3 * (WIDTH + 1)
    assert space.parts == {"heads": (LAYERS, HEADS), "ffn": (LAYERS,), "neurons": (LAYERS, NEURONS)}
    assert (space.head_cost, space.ffn_cost) == (4 * WIDTH * WIDTH // HEADS, 2 * WIDTH * NEURONS)
    assert space_of(CONFIGS[name]).neurons == 0


def test_published_sizes_of_bert():
    """METHODS 0.1."""
    base, large = space_of(BertConfig()), space_of(LARGE)
    assert (base.total, base.head_cost, base.ffn_cost) == (109_483_778, 196_608, 4_718_592)
    assert (large.total, large.head_cost, large.ffn_cost) == (335_143_938, 262_144, 8_388_608)


@pytest.mark.parametrize(
    ("config", "heads", "printed"),
    [
        (BertConfig(), [14, 28, 43, 57, 72, 86, 100, 115], [93.2, 86.4, 79.3, 72.5, 65.5, 58.7, 51.9, 44.9]),
        (LARGE, [19, 38, 57, 76, 96, 115, 134, 153], [96.0, 92.0, 88.0, 84.0, 80.0, 76.0, 72.0, 68.0]),
    ],
)
def test_published_remaining_percentages(config, heads, printed):
    """METHODS 1.3: rung k drops that many heads and k blocks; to the printed digit, from the configuration alone."""
    space = space_of(config)
    percentages = []
    for k, dropped in enumerate(heads, start=1):
        units = {part: torch.ones(shape, dtype=torch.bool).numpy() for part, shape in space.parts.items()}
        units["heads"].flat[:dropped] = False
        units["ffn"].flat[:k] = False
        percentages.append(round(100 * space.kept_parameters(units) / space.total, 1))
    assert percentages == printed


def test_space_of_draws_nothing_and_changes_no_config():
    config = CONFIGS["bert"]
    before, state = config.to_dict(), torch.get_rng_state()
    assert isinstance(space_of(config), StructuredSpace)
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_other_architectures_are_refused_with_the_list():
    albert = AlbertConfig(vocab_size=20, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    for thing in (albert, AlbertModel(albert), torch.nn.Linear(2, 2)):
        with pytest.raises(UnsupportedEncoder, match="supported are bert, roberta, xlm-roberta, electra, distilbert"):
            anatomy_of(thing)


def test_configurations_that_change_what_a_unit_is_are_refused_all_at_once():
    with pytest.raises(UnsupportedEncoder) as caught:
        anatomy_of(BertConfig(is_decoder=True, add_cross_attention=True))
    assert [problem.place for problem in caught.value.problems] == ["is_decoder", "add_cross_attention"]
    old = BertConfig()
    old.position_embedding_type = "relative_key"
    with pytest.raises(UnsupportedEncoder, match="relative positions"):
        anatomy_of(old)


def test_a_task_model_around_the_encoder_is_refused():
    with pytest.raises(UnsupportedEncoder, match="pass the AutoModel"):
        anatomy_of(BertForMaskedLM(CONFIGS["bert"]))


def test_heads_must_divide_the_width():
    config = BertConfig(hidden_size=30, num_attention_heads=4)
    with pytest.raises(UnsupportedEncoder, match="must divide the width 30"):
        dimensions_of(config)
