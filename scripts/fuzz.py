"""Inputs that nobody has thought of (hypothesis): configurations, data files, tickets, model folders.

    python scripts/fuzz.py [--inputs 10000] [--kind config,data,ticket,model] > scripts/results/fuzz.md

Each input is a good file that was changed: bytes, pieces, values, or what its head says of it. It must be read or be
refused with one of the errors that are documented, within five seconds, and with no more memory than a good one takes
by much. Everything else is printed with the input that did it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mtl_tickets.errors import InputError
from mtl_tickets.provenance import versions

SLOW = 5.0  # seconds of the processor

# -- how good files are changed ----------------------------------------------------------------------------------------

HOSTILE_TEXT = [
    *(
        "",
        "\0",
        "null",
        "~",
        "yes",
        "[]",
        "{}",
        "[[[]]]",
        "-1",
        "0",
        "'",
        '"',
        "|",
        ">",
        "1e-5",
        "1e999",
        "-1e999",
        ".nan",
    ),
    *(".inf", "9" * 5000, "0x" + "f" * 5000, "../../../../etc/passwd", "/dev/zero", "\u202e", "a" * 10_000, "[" * 3000),
    *("{a: " * 500, "&a [*a]", "&a {b: *a}", "!!python/object/apply:os.system [echo]", "!!binary aGk=", "!!set {a}"),
    *("? [a]", "<<: {a: 1}", "%TAG ! tag:x,2000:", "--- a\n--- b", "x: &x [1]\ny: [*x, *x, *x]"),
]
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


def edited(good: bytes) -> st.SearchStrategy[bytes]:
    """A good file after some edits of bytes: replaced, put in, cut out, doubled, cut off."""
    place = st.integers(0, max(0, len(good)))
    edit = st.tuples(st.sampled_from(["replace", "insert", "delete", "double", "cut"]), place, st.binary(max_size=12))

    def apply(edits: list[tuple[str, int, bytes]]) -> bytes:
        content = good
        for how, at, piece in edits:
            end = at + len(piece)
            content = {
                "replace": content[:at] + piece + content[end:],
                "insert": content[:at] + piece + content[at:],
                "delete": content[:at] + content[end:],
                "double": content[:end] + content[at:],
                "cut": content[:at],
            }[how]
        return content

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def reshaped(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value in which one value, anywhere, is another."""
    places = list(_places(value))
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]),
        st.just({}),
        st.just([[[]]]), st.sampled_from(["../../x", "/etc/passwd", "\0", "a" * 5000, -1, 0, 2**63, 1e308]),
    )  # fmt: skip
    return st.tuples(st.sampled_from(places), odd).map(lambda pair: _with(value, pair[0], pair[1]))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _with(changed[path[0]], path[1:], new)
    return changed


def safetensors_changed(good: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file with a head that lies, in one value, or with other bytes."""
    (length,) = struct.unpack("<Q", good[:8])
    head, body = json.loads(good[8 : 8 + length]), good[8 + length :]

    def again(changed: Any) -> bytes:
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body

    lengths = st.integers(0, 2**64 - 1).map(lambda n: struct.pack("<Q", n) + good[8:])
    inside = head.get("__metadata__", {})
    json_texts = [key for key, text in inside.items() if text[:1] in "[{"]
    lies: list[st.SearchStrategy[bytes]] = [reshaped(head).map(again), edited(good), lengths]
    for key in json_texts:
        lies.append(
            reshaped(json.loads(inside[key])).map(
                lambda v, k=key: again({**head, "__metadata__": {**inside, k: json.dumps(v)}})  # type: ignore[misc]
            )
        )
    return st.one_of(lies)


# -- what is read ------------------------------------------------------------------------------------------------------


def config_inputs(folder: Path) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], object]]:
    from mtl_tickets.experiment import load_experiment
    from mtl_tickets.tasks.spec import task_config_folder

    good = (task_config_folder() / "experiments" / "playground.yaml").read_bytes()
    plain = yaml.safe_load(good)
    values = reshaped(plain).map(lambda value: yaml.safe_dump(value).encode("utf-8", "surrogatepass"))
    pieces = st.tuples(st.integers(0, len(good)), st.sampled_from([*HOSTILE_TEXT, BOMB]))
    put = pieces.map(lambda pair: good[: pair[0]] + pair[1].encode() + good[pair[0] :])
    lines = good.decode().splitlines()
    valued = st.tuples(st.integers(0, len(lines) - 1), st.sampled_from(HOSTILE_TEXT)).map(
        lambda pair: "\n".join(
            [*lines[: pair[0]], lines[pair[0]].partition(":")[0] + ": " + pair[1], *lines[pair[0] + 1 :]]
        ).encode()
    )
    file = folder / "experiment.yaml"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return load_experiment(file)

    return st.one_of(edited(good), values, put, valued), read


TASK = """
name: fuzzed
labels: ["no", "yes"]
metrics: [accuracy]
splits: {train: labelled, dev: labelled}
sources:
  tsv: {kind: files, text: [one, two], label: label, splits: {train: train.tsv, dev: train.tsv}}
  jsonl: {kind: files, text: [one, two], label: label, splits: {train: train.jsonl, dev: train.jsonl}}
  parquet: {kind: files, text: [one, two], label: label, splits: {train: train.parquet, dev: train.parquet}}
"""


def data_inputs(folder: Path) -> tuple[st.SearchStrategy[tuple[str, bytes]], Callable[[tuple[str, bytes]], object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mtl_tickets.tasks.sources import DataSettings, read_rows
    from mtl_tickets.tasks.spec import load_task

    (folder / "fuzzed.yaml").write_text(TASK, encoding="utf-8")
    rows = [{"one": f"a house {i}", "two": "the tree", "label": "yes" if i % 2 else "no"} for i in range(12)]
    tsv = ("one\ttwo\tlabel\n" + "".join("\t".join(row.values()) + "\n" for row in rows)).encode()
    jsonl = "".join(json.dumps(row) + "\n" for row in rows).encode()
    pq.write_table(pa.Table.from_pylist(rows), folder / "good.parquet")
    odd = st.sampled_from(["\0", "\u2028", "\ud800", "nan", "", "2", "a" * 100_000, '"', "\r", "{}", "[1]", "null"])
    tsv_odd = st.tuples(st.integers(0, len(tsv)), odd).map(
        lambda pair: tsv[: pair[0]] + pair[1].encode("utf-8", "surrogatepass") + tsv[pair[0] :]
    )
    json_odd = reshaped(rows).map(
        lambda value: "\n".join(map(json.dumps, value if isinstance(value, list) else [value])).encode()
    )
    inputs = st.one_of(
        st.tuples(st.just("tsv"), st.one_of(edited(tsv), tsv_odd)),
        st.tuples(st.just("jsonl"), st.one_of(edited(jsonl), json_odd)),
        st.tuples(st.just("parquet"), edited((folder / "good.parquet").read_bytes())),
    )
    spec = load_task(str(folder / "fuzzed.yaml"))

    def read(pair: tuple[str, bytes]) -> object:
        kind, content = pair
        (folder / f"train.{kind}").write_bytes(content)
        return read_rows(spec, "train", DataSettings(source=kind))

    return inputs, read


def ticket_inputs(folder: Path) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], object]]:
    import numpy as np

    from mtl_tickets.tickets.space import StructuredSpace
    from mtl_tickets.tickets.ticket import Ticket, TicketOrigin

    space = StructuredSpace(layers=2, heads=4, head_cost=1024, ffn_cost=4096, total=20_000, neurons=64)
    units = {part: np.ones(shape, dtype=bool) for part, shape in space.parts.items()}
    Ticket(space, units, TicketOrigin(kind="winning", task="a")).save(folder / "good")
    good, file = (folder / "good.safetensors").read_bytes(), folder / "bad.safetensors"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return Ticket.load(file)

    return safetensors_changed(good), read


def model_inputs(folder: Path) -> tuple[st.SearchStrategy[tuple[str, bytes]], Callable[[tuple[str, bytes]], object]]:
    from transformers import BertConfig

    from mtl_tickets.model import store
    from mtl_tickets.model.encoders import random_encoder
    from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    infos = [TaskInfo("a", "classification", ("no", "yes"), 2, 0.0, 1)]
    store.save(
        MultiTaskModel(random_encoder(config, seed=0), infos), folder / "good", extra={"about": [1, {"a": None}]}
    )
    good = {file.name: file.read_bytes() for file in (folder / "good").iterdir() if file.is_file()}
    changed = []
    for name, content in good.items():
        if name.endswith(".json"):
            values = reshaped(json.loads(content)).map(lambda value: json.dumps(value).encode())
            changed.append(st.tuples(st.just(name), st.one_of(values, edited(content))))
        else:
            changed.append(st.tuples(st.just(name), safetensors_changed(content)))

    def read(pair: tuple[str, bytes]) -> object:
        place = folder / "bad"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "good", place)
        (place / pair[0]).write_bytes(pair[1])
        return store.load(place)

    return st.one_of(changed), read


KINDS: dict[str, Callable[[Path], Any]] = {
    "config": config_inputs,
    "data": data_inputs,
    "ticket": ticket_inputs,
    "model": model_inputs,
}


@dataclass
class Found:
    """What became of the inputs of a kind."""

    inputs: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    megabytes: float = 0.0
    escaped: list[str] = field(default_factory=list)


def fuzz(kind: str, inputs: int, folder: Path, first: int = 0) -> Found:
    """Reads so many inputs of a kind, drawn from the seed ``first``."""
    strategy, read = KINDS[kind](folder)
    found = Found()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(first)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(content: Any) -> None:
        found.inputs += 1
        started = time.process_time()  # other work on the machine is no hang
        try:
            read(content)
            found.read += 1
        except InputError as error:
            found.refused[type(error).__name__] += 1
            if not all(problem.file and problem.rule for problem in error.problems):
                found.escaped.append(f"an error that names no file: {error}")
        except Exception as error:
            found.escaped.append(f"{type(error).__name__}: {str(error)[:200]} from {str(content)[:300]!r}")
        seconds = time.process_time() - started
        found.slowest = max(found.slowest, seconds)
        if seconds > SLOW:
            found.escaped.append(f"{seconds:.1f} s for {str(content)[:300]!r}")

    one()
    found.megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    known = versions()
    print("# Inputs that nobody has thought of\n")
    print(f"    python scripts/fuzz.py --inputs {asked.inputs} --kind {asked.kind} --seed {asked.seed}\n")
    software = f"torch {known['torch']}, transformers {known['transformers']}, python {known['python']}"
    print(f"{os.cpu_count()} cores; {software}.\n")
    print("| what | inputs | read | refused | slowest, s | memory gained, MB | other errors, hangs |\n"
          "|---|---:|---:|---|---:|---:|---:|")  # fmt: skip
    escaped = []
    for kind in asked.kind.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = fuzz(kind, asked.inputs, Path(folder), asked.seed)
        refused = ", ".join(f"{name} {count:,}" for name, count in found.refused.most_common())
        figures = f"{found.slowest:.2f} | {found.megabytes:.0f} | {len(found.escaped)}"
        print(f"| {kind} | {found.inputs:,} | {found.read:,} | {refused} | {figures} |", flush=True)
        escaped += [f"- {kind}: {text}" for text in found.escaped[:20]]
    if escaped:
        print("\n" + "\n".join(escaped))


if __name__ == "__main__":
    main()
