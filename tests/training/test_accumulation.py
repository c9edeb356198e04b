import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtl_tickets.training.accumulation import accumulation_device


class WithoutFloat64(TorchDispatchMode):
    """The device ``meta`` as one that refuses float64, when a tensor is made or when something is computed."""

    def __init__(self, refused: str):
        super().__init__()
        self.refused = refused

    def __torch_dispatch__(self, operation, types, arguments=(), settings=None):
        result = operation(*arguments, **(settings or {}))
        computes = operation.name().startswith("aten::add")
        if result.dtype == torch.float64 and result.device.type == "meta" and computes == (self.refused == "adding"):
            raise TypeError("this device has no float64") if self.refused == "making" else RuntimeError("fp64")
        return result


@pytest.fixture(autouse=True)
def _asked_anew():
    accumulation_device.cache_clear()
    yield
    accumulation_device.cache_clear()


@pytest.mark.parametrize("refused", ["making", "adding"])
def test_sums_are_kept_on_the_cpu_where_the_device_has_no_float64(refused):
    with WithoutFloat64(refused):
        assert accumulation_device(torch.device("meta")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_sums_stay_where_float64_is(device):
    assert accumulation_device(torch.device(device)) == torch.device(device)
