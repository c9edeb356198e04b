"""Rows -> token ids, once: an Arrow file per task and split, memory-mapped when it is read.

Each file is named by everything that can change its bytes (:func:`cache_key`), so that a stale file is never found.
It carries a checksum of its content; a file that does not match is made anew.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mtl_tickets.errors import DataError, Problem
from mtl_tickets.files import digest, written_whole
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spool import Spool, TextColumn

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

FORMAT = 2  # part of every key: raised when the file's layout or the way of encoding changes
CHUNK = 4096  # rows tokenised at a time: enough for the tokenizer's threads, little memory
SIZE = 1 << 22  # bytes of a text column that are tokenised at a time


@dataclass(frozen=True)
class EncodedTask:
    """N encoded examples over shared flat arrays.

    Example i is ``ids[starts[i]:stops[i]]`` (int32) with token types ``types[...]`` (int8). ``labels``: int64 [N]
    (classification), float32 [N] (regression) or None. ``rows``: int64 [N], which row of the split each example is
    (rows longer than ``max_length`` may have been dropped).
    """

    ids: np.ndarray
    types: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    labels: np.ndarray | None
    rows: np.ndarray
    max_length: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        """int32 [N]: tokens of each example, special tokens included."""
        return (self.stops - self.starts).astype(np.int32)

    def input_ids(self, i: int) -> np.ndarray:
        """int32: the token ids of example i; no copy."""
        return self.ids[self.starts[i] : self.stops[i]]

    def token_type_ids(self, i: int) -> np.ndarray:
        """int8: 0 for the first text, 1 for the second. Special tokens are the tokenizer's choice, 0 where it has no
        token types; the slow tokenizers among these have 0 everywhere."""
        return self.types[self.starts[i] : self.stops[i]]

    def gather(self, indices: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Token ids and token types of several examples, as views of the flat arrays."""
        spans = list(zip(self.starts[indices].tolist(), self.stops[indices].tolist(), strict=True))
        return [self.ids[a:b] for a, b in spans], [self.types[a:b] for a, b in spans]

    def select(self, indices: np.ndarray) -> EncodedTask:
        """A view of these examples in this order; token ids are not copied."""
        labels = None if self.labels is None else self.labels[indices]
        return EncodedTask(
            self.ids,
            self.types,
            self.starts[indices],
            self.stops[indices],
            labels,
            self.rows[indices],
            self.max_length,
        )


def joined(one: EncodedTask, other: EncodedTask, labels: np.ndarray) -> EncodedTask:
    """The examples of ``one``, then those of ``other`` with these ``labels``; token ids are copied. ``rows`` go on
    counting behind the last row of ``one``."""
    if one.labels is None:
        raise ValueError("labelled and unlabelled examples cannot be joined")
    behind, after = len(one.ids), int(one.rows.max(initial=-1)) + 1
    return EncodedTask(
        np.concatenate([one.ids, other.ids]),
        np.concatenate([one.types, other.types]),
        np.concatenate([one.starts, other.starts + behind]),
        np.concatenate([one.stops, other.stops + behind]),
        np.concatenate([one.labels, labels.astype(one.labels.dtype)]),
        np.concatenate([one.rows, other.rows + after]),
        max(one.max_length, other.max_length),
    )


def encode(
    spec: TaskSpec,
    split: str,
    rows: Rows,
    tokenizer: Any,
    max_length: int,
    cache_dir: Path | None,
    longer: Literal["truncate", "drop"] = "truncate",
) -> EncodedTask:
    """Token ids of ``rows`` with the tokenizer's special tokens, at most ``max_length`` tokens each.

    ``longer``: what happens to longer rows. ``truncate`` cuts the longer of two texts first; ``drop`` leaves the row
    out, as Super Tickets does in training (Liang et al. 2021, published code). ``cache_dir=None`` keeps everything in
    memory; else the file is ``<cache_dir>/encoded/<task>-<split>-<key>.arrow``.

    Raises DataError where no row is left, or where ``max_length`` leaves no room for text.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=len(rows.texts) == 2)
    if room < len(rows.texts):
        rule = f"max_length must leave room for the text beside {max_length - room} special tokens"
        raise DataError(Problem(rule, file=spec.name, place="max_length", found=max_length))
    if cache_dir is None:
        return _opened(_table(spec, split, rows, tokenizer, max_length, longer), spec, max_length)
    key = cache_key(spec, rows, tokenizer, max_length, longer)
    path = cache_dir / "encoded" / f"{spec.name}-{split}-{key}.arrow"
    if path.exists():
        try:
            return _opened(_read(path), spec, max_length)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            logger.warning("%s is damaged (%s) and is made anew", path, error)
    table = _table(spec, split, rows, tokenizer, max_length, longer)
    with written_whole(path) as part, pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return _opened(_read(path), spec, max_length)


def cache_key(spec: TaskSpec, rows: Rows, tokenizer: Any, max_length: int, longer: str) -> str:
    """A short hash of everything that decides the bytes of an encoded file."""
    return digest(
        {
            "format": FORMAT,
            "task": [spec.name, spec.version, spec.kind, list(spec.labels)],
            "rows": rows.fingerprint,
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "max_length": max_length,
            "longer": longer,
        },
        length=16,
    )


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of what a tokenizer does to text; two copies of one tokenizer agree wherever they were loaded from.

    The padding and truncation of the last call, which fast tokenizers remember, are left out.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        # cut out as text: parsing the JSON of a large vocabulary costs more than tokenising a small task
        text = re.sub(
            r'^(\s*\{"version":[^,]*),"truncation":.*?,"padding":.*?,"added_tokens"',
            r'\1,"added_tokens"',
            backend.to_str(),
        )
    else:
        text = json.dumps([type(tokenizer).__name__, tokenizer.get_vocab()], sort_keys=True)
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return digest([text, special, tokenizer.truncation_side, _has_types(tokenizer)], length=32)


def _table(spec: TaskSpec, split: str, rows: Rows, tokenizer: Any, max_length: int, longer: str) -> pa.Table:
    ids, types, offsets, kept = Spool(np.int32), Spool(np.int8), Spool(np.int64), Spool(np.int64)
    labels = Spool(np.int64 if spec.kind == "classification" else np.float32)
    row = stop = 0
    offsets.add([0])
    for some_ids, some_types in _tokenised(rows, tokenizer, max_length, longer == "truncate"):
        lengths = np.fromiter(map(len, some_ids), dtype=np.int64, count=len(some_ids))
        fit = lengths <= max_length
        kept.add(row + np.flatnonzero(fit))
        offsets.add(stop + np.cumsum(lengths[fit]))
        if rows.labels is not None:
            labels.add(rows.labels[row : row + len(fit)][fit])
        for spool, lists in ((ids, some_ids), (types, some_types)):
            spool.add(list(itertools.chain.from_iterable(itertools.compress(lists, fit))))
        row, stop = row + len(fit), stop + int(lengths[fit].sum())
    here = kept.array()
    if not len(here):
        rule = f"split {split!r} must have a row of at most {max_length} tokens"
        raise DataError(Problem(rule, file=rows.file or spec.name, found=f"none among {len(rows)}"))
    ends = offsets.array()
    columns = {
        # 64-bit offsets: a large corpus has more than 2^31 tokens
        "input_ids": pa.LargeListArray.from_arrays(ends, ids.array()),
        "token_type_ids": pa.LargeListArray.from_arrays(ends, types.array()),
        "row": pa.array(here),
    }
    if rows.labels is not None:
        columns["label"] = pa.array(labels.array())
    table = pa.table(columns)
    return table.replace_schema_metadata({"checksum": str(_checksum(table))})


def _tokenised(
    rows: Rows, tokenizer: Any, max_length: int, truncate: bool
) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    has_types = _has_types(tokenizer)
    columns = [TextColumn.of(column) for column in rows.texts]
    for start, stop in _pieces(columns):
        encoded = tokenizer(
            *(column[start:stop] for column in columns),
            truncation="longest_first" if truncate else False,
            max_length=max_length if truncate else None,
            padding=False,
            return_token_type_ids=has_types,
            return_attention_mask=False,
            verbose=False,  # it would warn of rows that are longer than the model; those are dropped below
        )
        ids = encoded["input_ids"]
        if has_types:
            yield ids, encoded["token_type_ids"]
        elif len(columns) == 2 and encoded.is_fast:
            # the encoder knows no types, a head may want to know which text a token is of
            yield ids, [[int(text == 1) for text in encoded.sequence_ids(i)] for i in range(len(ids))]
        else:
            yield ids, [[0] * len(one) for one in ids]


def _pieces(columns: Sequence[TextColumn]) -> Iterator[tuple[int, int]]:
    """From which row to before which to tokenise together."""
    start = 0
    while start < len(columns[0]):
        stop = min(column.fitting(start, CHUNK, SIZE) for column in columns)
        yield start, stop
        start = stop


def _has_types(tokenizer: Any) -> bool:
    return "token_type_ids" in tokenizer.model_input_names


def _read(path: Path) -> pa.Table:
    """The table of a cache file, memory-mapped. Raises ValueError where its content is not what was written."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    stored = (table.schema.metadata or {}).get(b"checksum", b"").decode()
    if stored != str(_checksum(table)):
        raise ValueError("its checksum does not match")
    return table


def _checksum(table: pa.Table) -> int:
    value = 0
    for name in table.column_names:
        for array in _flat(table, name):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _flat(table: pa.Table, name: str) -> list[np.ndarray]:
    """The buffers of a column as numpy arrays: [values], or [offsets, values] of lists."""
    column = table.column(name)
    if column.num_chunks != 1:
        raise ValueError(f"column {name} is in {column.num_chunks} pieces")
    chunk = column.chunk(0)
    arrays = [chunk.offsets, chunk.values] if pa.types.is_large_list(chunk.type) else [chunk]
    return [array.to_numpy(zero_copy_only=True) for array in arrays]


def _opened(table: pa.Table, spec: TaskSpec, max_length: int) -> EncodedTask:
    offsets, ids = _flat(table, "input_ids")
    _, types = _flat(table, "token_type_ids")
    labels = _flat(table, "label")[0] if "label" in table.column_names else None
    return EncodedTask(ids, types, offsets[:-1], offsets[1:], labels, _flat(table, "row")[0], max_length)
