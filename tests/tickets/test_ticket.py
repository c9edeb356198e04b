import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from mtl_tickets.errors import TicketError
from mtl_tickets.tickets.ticket import Ticket, TicketOrigin
from tests.tickets.worlds import BASE, NEURONS, SMALL, SPACES, WEIGHTS, scores_of, ticket_of

ABOUT = TicketOrigin(
    task="rte", encoder="bert", weight_hash="abc", score="first_order", budget={"heads": 3}, seed=7, kind="winning"
)


def rewritten(file, change_arrays=lambda arrays: None, **metadata):
    """The same file with some metadata and arrays changed, as a faulty writer would have left it."""
    with safe_open(file, framework="numpy") as opened:
        content = {**opened.metadata(), **metadata}
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change_arrays(arrays)
    save_file(arrays, file, {key: value for key, value in content.items() if value is not None})
    return file


@pytest.fixture
def file(tmp_path):
    return dataclasses.replace(ticket_of(SMALL, 1), about=ABOUT).save(tmp_path / "rte")


# ------------------------------------------------------------------------------------------------------ the value


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_set_algebra(space):
    a, b, dense = ticket_of(space, 1), ticket_of(space, 2), Ticket.dense(space)
    assert a & b == b & a
    assert a | b == ~(~a & ~b)
    assert a - b == a & ~b
    assert a ^ b == (a | b) - (a & b)
    assert a & dense == a | (a & b) == a
    assert (a | ~a) == dense
    assert a & b <= a <= a | b
    assert not (dense <= a)


@pytest.mark.parametrize("space", [BASE, SMALL, WEIGHTS])  # a neuron is free where its block is dropped: no sum there
def test_inclusion_and_exclusion_of_parameters(space):
    a, b = ticket_of(space, 1), ticket_of(space, 2)
    kept = [space.kept_parameters(t.units) for t in (a, b, a & b, a | b)]
    assert kept[0] + kept[1] == kept[2] + kept[3]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_measures(space):
    a, b, dense = ticket_of(space, 1), ticket_of(space, 2), Ticket.dense(space)
    assert dense.density() == 1
    assert dense.remaining_percent() == 100
    assert 0 <= (a & b).density() <= a.density() <= (a | b).density() <= 1
    assert a.jaccard(a) == 1
    assert a.jaccard(b) == b.jaccard(a)
    assert a.jaccard(~a) == 0
    assert (~dense).jaccard(~dense) == 1
    counts = a.counts()
    assert {part: size for part, (_, size) in counts.items()} == space.sizes
    assert all(a.dropped(part) == size - kept for part, (kept, size) in counts.items())


def test_equality_is_units_and_space_but_not_origin():
    a = ticket_of(SMALL, 1)
    assert a == a.where(task="rte", seed=5)
    assert hash(a) == hash(a.where(task="rte"))
    assert a.digest() == a.where(task="rte").digest()
    assert a != ticket_of(SMALL, 2)
    assert a.digest() != ticket_of(SMALL, 2).digest()
    assert Ticket.dense(SMALL) != Ticket.dense(BASE)
    assert a != "a"


def test_units_cannot_be_changed_from_either_side():
    heads = np.ones((3, 4), dtype=bool)
    ticket = Ticket(SMALL, {"heads": heads, "ffn": np.ones(3, dtype=bool)})
    heads[0, 0] = False
    assert ticket.dropped("heads") == 0
    with pytest.raises(ValueError, match="read-only"):
        ticket.units["heads"][0, 0] = False
    with pytest.raises(TypeError):
        ticket.units["heads"] = heads
    with pytest.raises(dataclasses.FrozenInstanceError):
        ticket.units = {}
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(pickle.dumps(ticket)).units["heads"][0, 0] = False


@pytest.mark.parametrize(
    ("units", "complaints"),
    [
        ({"heads": np.ones((3, 4), int), "ffn": np.ones(3, float)}, ["heads: .*int64", "ffn: .*float64"]),
        ({"heads": np.ones((4, 3), bool), "ffn": np.ones(4, bool)}, [r"heads: .*\[3, 4\]", r"ffn: .*\[3\]"]),
        ({"heads": np.ones((3, 4), bool), "fnn": np.ones(3, bool)}, ["ffn: .*missing", "fnn: .*no such part"]),
    ],
)
def test_everything_that_is_wrong_is_said_at_once(units, complaints):
    with pytest.raises(TicketError) as caught:
        Ticket(SMALL, units)
    assert len(caught.value.problems) == len(complaints)
    for complaint in complaints:
        assert caught.match(complaint)


def test_tickets_of_different_spaces_do_not_mix():
    for operation in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a.jaccard(b), lambda a, b: a <= b):
        with pytest.raises(TicketError, match="layers = 12 instead of 3"):
            operation(Ticket.dense(SMALL), Ticket.dense(BASE))


def test_combining_keeps_only_the_origin_both_share():
    a = ticket_of(SMALL, 1).where(task="rte", encoder="bert", weight_hash="x", kind="winning")
    b = ticket_of(SMALL, 2).where(task="mrpc", encoder="bert", weight_hash="y", kind="winning")
    assert (a | b).about == TicketOrigin(encoder="bert")


def test_the_picture_shows_each_layer():
    ticket = Ticket(
        SMALL,
        {"heads": np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], bool), "ffn": np.array([1, 0, 1], bool)},
    )
    assert ticket.picture() == {"heads": ["#.##", "####", "...#"], "ffn": ["#.#"]}


# ------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_round_trip(space, tmp_path):
    ticket = dataclasses.replace(ticket_of(space, 3), about=ABOUT)
    file = ticket.save(tmp_path / "deep" / "rte.v2")
    assert file.name == "rte.v2.safetensors"
    for path in (file, tmp_path / "deep" / "rte.v2"):
        loaded = Ticket.load(path, space=space, weight_hash="abc")
        assert loaded == ticket
        assert loaded.about == ABOUT


def test_the_file_is_packed_and_has_a_twin_for_people(file):
    with safe_open(file, framework="numpy") as opened:
        assert {name: opened.get_tensor(name).size for name in opened.keys()} == {"heads": 2, "ffn": 1}  # noqa: SIM118
    twin = json.loads(file.with_suffix(".json").read_text())
    ticket = Ticket.load(file)
    assert twin["units"] == ticket.picture()
    assert twin["origin"] == {**ABOUT.to_json()}
    assert twin["remaining_percent"] == pytest.approx(ticket.remaining_percent(), abs=1e-4)


def test_a_ticket_of_another_space_says_what_differs(file):
    with pytest.raises(TicketError) as caught:
        Ticket.load(file, space=NEURONS)
    assert str(file) in str(caught.value)
    assert caught.match("neurons = 0 instead of 24")
    with pytest.raises(TicketError, match="'structured' instead of 'weights'"):
        Ticket.load(file, space=WEIGHTS)


def test_a_ticket_of_other_weights_is_refused(file, tmp_path):
    with pytest.raises(TicketError, match="hash xyz; found 'abc'"):
        Ticket.load(file, weight_hash="xyz")
    by_hand = ticket_of(SMALL, 1).save(tmp_path / "by_hand")
    assert Ticket.load(by_hand, weight_hash="xyz") == ticket_of(SMALL, 1)


def set_bit(name, index, bit):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][index] ^= 1 << bit

    return change


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: rewritten(f, version="2"), "format version '1'; found '2'"),
        (lambda f: rewritten(f, version=None), "format version '1'; found 'no version'"),
        (lambda f: rewritten(f, format="pt"), "format 'mtl_tickets.ticket'; found 'pt'"),
        (lambda f: rewritten(f, space="{"), "space: must be JSON"),
        (lambda f: rewritten(f, space='{"kind": "structured", "layers": 3}'), "not a structured unit space"),
        (lambda f: rewritten(f, origin='{"sort": "winning"}'), "origin.sort: .*unexpected"),
        (lambda f: rewritten(f, origin='{"seed": "x"}'), "origin.seed: .*integer"),
        (lambda f: rewritten(f, lambda a: a.pop("ffn")), r"must hold the parts \['heads', 'ffn'\]"),
        (lambda f: rewritten(f, lambda a: a.update(ffn=np.zeros(2, np.uint8))), "ffn: must be 1 bytes for its 3 units"),
        (lambda f: rewritten(f, lambda a: a.update(ffn=np.zeros(1, np.int8))), "ffn: must be 1 bytes"),
        (lambda f: rewritten(f, set_bit("ffn", 0, 0)), "ffn: the unused bits of the last byte must be 0"),
        (lambda f: rewritten(f, set_bit("heads", 0, 3)), "the file is damaged"),
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), "must be a whole safetensors file"),
        (lambda f: f.write_bytes(f.read_bytes()[:40]), "must be a whole safetensors file"),
        (lambda f: f.write_bytes(b""), "must be a whole safetensors file"),
        (lambda f: f.write_text("heads: all of them"), "must be a whole safetensors file"),
        (lambda f: f.unlink(), "must exist"),
        (lambda f: scores_of(SMALL, 1).save(f), "found 'mtl_tickets.scores'"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(file, damage, complaint):
    damage(file)
    with pytest.raises(TicketError, match=complaint) as caught:
        Ticket.load(file)
    assert all(problem.file == str(file) for problem in caught.value.problems)


def test_every_single_flipped_bit_of_the_content_is_found(file):
    content = file.read_bytes()
    for position in range(len(content) - 3, len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(TicketError):
                Ticket.load(file)


def test_the_room_does_not_wait_for_torch():
    code = "import sys, mtl_tickets.tickets.sharing as s; s.RULES.names(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
