import pickle

import pytest

from mtl_tickets import errors
from mtl_tickets.errors import ConfigError, InputError, MtlTicketsError, Problem, TicketError, nearest, shorten


def test_a_problem_says_where_what_and_how_to_mend_it():
    problem = Problem("must be positive", file="a.yaml", place="train.lr (line 3)", found=-1, hint="did you mean 1?")
    assert str(problem) == "a.yaml: train.lr (line 3): must be positive; found -1; did you mean 1?"
    assert str(Problem("must exist")) == "must exist"
    assert str(Problem("must exist", place="x", found=0)) == "x: must exist; found 0"


def test_an_error_carries_all_problems():
    problems = [Problem("one", place="a"), Problem("two", place="b")]
    assert InputError(iter(problems)).problems == problems
    assert str(InputError(problems)) == "a: one\nb: two"
    assert InputError(problems[0]).problems == problems[:1]


@pytest.mark.parametrize("name", ["InputError", "ConfigError", "DataError", "TicketError", "CheckpointError"])
def test_errors_survive_process_boundaries(name):
    error = getattr(errors, name)([Problem("one", place="a", found=[1]), Problem("two")])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.problems == error.problems
    assert str(copy) == str(error)


def test_every_user_error_is_an_input_error():
    assert issubclass(ConfigError, InputError)
    assert issubclass(TicketError, InputError)
    assert issubclass(InputError, MtlTicketsError)


@pytest.mark.parametrize("name", ["mrcp", "Mrpc", "MRPC", "mrp"])
def test_misspelt_names_find_the_nearest(name):
    assert nearest(name, ["rte", "mrpc", "cola"]) == "did you mean 'mrpc'?"


def test_the_nearest_name_is_spelt_as_it_is_valid():
    assert nearest("COla", ["CoLA", "RTE"]) == "did you mean 'CoLA'?"


def test_where_nothing_is_near_all_are_listed():
    assert nearest("xyz", ["rte", "mrpc"]) == "choose from mrpc, rte"
    assert nearest(17, ["rte"]) == "choose from rte"
    assert nearest("x", []) == ""


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000)), {"a": "b" * 500}])
def test_long_values_are_cut_in_the_middle(value):
    text = shorten(value)
    assert len(text) <= 120
    assert " ... " in text
    assert text[0] == repr(value)[0]
    assert text[-1] == repr(value)[-1]
    assert shorten("short") == "'short'"
