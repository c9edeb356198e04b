import numpy as np
import pytest
import torch

from mtl_tickets.model.anatomy import anatomy_of, layers_of, space_of
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.scoring.tall import tall_shares
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return tiny.model({"a": 2})


def weights(model, seed=None, scale=1.0):
    draw = torch.Generator().manual_seed(seed or 0)
    named = dict(model.encoder.named_parameters())
    if seed is None:
        return {name: w.detach().clone() for name, w in named.items()}
    return {name: w.detach() + scale * torch.randn(w.shape, generator=draw) for name, w in named.items()}


def names_of_a_head(model, layer, head):
    """(name, rows or columns) of every weight matrix that a head has a part of."""
    anatomy, width = anatomy_of(model.encoder), model.config.hidden_size // model.config.num_attention_heads
    part = slice(head * width, (head + 1) * width)
    prefix = f"{anatomy.layers}.{layer}."
    places = [(f"{prefix}{getattr(anatomy, place)}.weight", (part, slice(None))) for place in ("query", "key", "value")]
    return [*places, (f"{prefix}{anatomy.attention_output}.weight", (slice(None), part))]


def test_a_unit_s_share_is_that_of_its_weights(model):
    space = space_of(model.config, neurons=True)
    before, alone, together = weights(model), weights(model, 1), weights(model, 2)
    found = tall_shares(model.encoder, space, before, alone, together, 0.7)
    own = {name: (alone[name] - before[name]).abs() > 0.7 * (together[name] - alone[name]).abs() for name in before}
    for layer in range(space.layers):
        for head in range(space.heads):
            mine = torch.cat([own[name][part].flatten() for name, part in names_of_a_head(model, layer, head)])
            assert found["heads"][layer, head] == pytest.approx(float(mine.double().mean()))
        anatomy = anatomy_of(model.encoder)
        into, out = (
            own[f"{anatomy.layers}.{layer}.{getattr(anatomy, place)}.weight"] for place in ("ffn_in", "ffn_out")
        )
        each = torch.cat([into, out.T], dim=1).double().mean(1)
        assert np.allclose(found["neurons"][layer], each.numpy())
        assert found["ffn"][layer] == pytest.approx(float(each.mean()))


def test_nothing_is_a_task_s_that_did_not_move_and_all_is_of_one_that_went_its_own_way(model):
    space, before, far = space_of(model.config), weights(model), weights(model, 1)
    still = tall_shares(model.encoder, space, before, before, far, 0.4)
    gone = tall_shares(model.encoder, space, before, far, far, 0.4)
    assert all((values == 0).all() for values in still.values())
    assert all((values == 1).all() for values in gone.values())


def test_a_higher_threshold_gives_a_task_less(model):
    space, before, alone, together = space_of(model.config), weights(model), weights(model, 1), weights(model, 2)
    few, many = (tall_shares(model.encoder, space, before, alone, together, x) for x in (1.0, 0.3))
    assert all((few[part] < many[part]).all() for part in space.parts)


def test_the_encoder_s_own_weights_do_not_matter():
    one = tiny.model({"a": 2})
    other = MultiTaskModel.from_encoder(one.config, [TaskInfo("a")], seed=9)
    space, before, alone, together = space_of(one.config), weights(one), weights(one, 1), weights(one, 2)
    found = [tall_shares(m.encoder, space, before, alone, together, 0.5) for m in (one, other)]
    assert all(np.array_equal(found[0][part], found[1][part]) for part in space.parts)
    assert len(layers_of(one.encoder)) == space.layers
