import contextlib
import copy
import shutil

import pytest
import torch
from tiny_models import make_batch, make_model, some_tickets

from mtl_tickets.errors import InputError
from mtl_tickets.model.anatomy import layers_of
from mtl_tickets.model.compiled import compiled
from mtl_tickets.model.packed import PACKED

MIXED, ONE = [(0, 0, 3), (2, 3, 4), (1, 4, 7)], [(1, 0, 7)]
# dynamo without a code generator: what is compiled and how often is the same
BACKEND = "aot_eager"


def trained(model, tickets, segments, length):
    """Logits and gradients."""
    model.set_tickets(some_tickets(model) if tickets else {})
    batch = make_batch(model, segments, length=length, padding=2)
    logits = torch.cat([one.flatten() for one in model(**batch)])
    model.zero_grad()
    logits.square().sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([logits.detach(), *gradients])


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_compiled_layers_compute_the_same_through_any_gates(architecture):
    plain, quick = make_model(architecture), make_model(architecture)
    plain.train()
    quick.train()
    with compiled(quick, BACKEND):
        for length in (12, 15):
            for segments in (MIXED, ONE):
                for tickets in (True, False):
                    expected = trained(plain, tickets, segments, length)
                    found = trained(quick, tickets, segments, length)
                    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_few_graphs_serve_all_lengths_and_all_mixtures_of_tasks():
    model = make_model().train()
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with compiled(model, counted):
        for length in range(12, 30, 3):
            for segments in (MIXED, ONE, [(0, 0, 2), (1, 2, 5)]):
                trained(model, True, segments, length)
    # one, and one more where the number of rows turned out to vary
    assert 1 <= len(graphs) <= 3


def test_nothing_is_compiled_in_evaluation_and_nothing_is_left_behind():
    model = make_model()
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    steady = model.gates.steady
    with contextlib.suppress(KeyError), compiled(model, counted):
        model(**make_batch(model, MIXED))
        assert not graphs
        model.train()
        model(**make_batch(model, MIXED))
        raise KeyError
    assert graphs
    assert all("forward" not in vars(layer) for layer in layers_of(model.encoder))
    assert model.gates.steady == steady


def test_a_copy_made_inside_has_weights_of_its_own():
    model = make_model().train()
    with compiled(model, BACKEND):
        copied = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in copied.encoder.parameters():
                parameter.mul_(0.5)
        batch = make_batch(model, MIXED)
        found = torch.cat([one.flatten() for one in copied(**batch)])
    expected = make_model().train()
    expected.load_state_dict(copied.state_dict())
    assert torch.allclose(found, torch.cat([one.flatten() for one in expected(**batch)]), atol=1e-5)


def test_a_compiler_s_failure_is_one_clear_error():
    def broken(graph, inputs):
        raise RuntimeError("no such compiler")

    model = make_model().train()
    with compiled(model, broken), pytest.raises(InputError, match="C\\+\\+ compiler"):
        model(**make_batch(model, MIXED))


def test_what_cannot_be_compiled_is_refused_with_the_reason():
    with pytest.raises(InputError, match="another longest text"), compiled(make_model(attention=PACKED)):
        pass
    with pytest.raises(InputError, match="multi-task model"), compiled(torch.nn.Linear(2, 2)):
        pass


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_generated_code_computes_the_same():
    plain, quick = make_model().train(), make_model().train()
    expected = trained(plain, True, MIXED, 12)
    with compiled(quick):
        found = trained(quick, True, MIXED, 12)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
