import pytest
import torch
from torch import nn

from mtl_tickets.errors import MtlTicketsError
from mtl_tickets.training.rewind import Snapshot, content_hash


def trained(module):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p))


def test_restored_weights_are_bit_equal():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    snapshot = Snapshot(module)
    trained(module)
    assert content_hash(module.state_dict()) != snapshot.digest
    snapshot.restore(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert content_hash(module.state_dict()) == snapshot.digest


def test_training_does_not_reach_the_snapshot():
    # the defect of three published codes: state_dict() aliases the live weights
    module = nn.Linear(3, 3)
    snapshot = Snapshot(module)
    trained(module)
    assert content_hash(snapshot.state) == snapshot.digest


def test_a_snapshot_that_was_written_to_is_refused():
    module = nn.Linear(3, 3)
    snapshot = Snapshot(module)
    snapshot.state["weight"].zero_()
    with pytest.raises(MtlTicketsError, match="changed since it was taken"):
        snapshot.restore(module)


def test_hash_sees_names_shapes_types_and_values():
    a = {"w": torch.zeros(2, 3)}
    others = [
        {"v": torch.zeros(2, 3)},
        {"w": torch.zeros(3, 2)},
        {"w": torch.zeros(2, 3).double()},
        {"w": torch.ones(2, 3)},
    ]
    assert len({content_hash(state) for state in [a, *others]}) == 5
