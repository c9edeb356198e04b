"""What a split looks like, in numbers and one example: the answer of ``check`` to a task file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_tickets.tasks.encode import EncodedTask
from mtl_tickets.tasks.sources import Rows

if TYPE_CHECKING:
    from mtl_tickets.tasks.spec import TaskSpec

QUANTILES = {"min": 0.0, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "max": 1.0}


def describe(spec: TaskSpec, rows: Rows, encoded: EncodedTask, tokenizer: Any) -> dict[str, Any]:
    """JSON-able facts about one split.

    ``labels``: rows of each label (classification), or minimum, mean and maximum (regression), or None. ``lengths``:
    quantiles in tokens. ``at_limit``: examples as long as the limit, so possibly cut. ``left_out``: rows that the task
    file or the limit left out, by reason. ``sample``: the first example, from its line to its tokens and back.
    """
    lengths = encoded.lengths
    left_out = {reason: len(places) for reason, places in rows.dropped.items()}
    if len(encoded) < len(rows):
        left_out["length"] = len(rows) - len(encoded)
    return {
        "task": spec.name,
        "file": rows.file,
        "rows": len(encoded),
        "left_out": left_out,
        "labels": _labels(spec, encoded),
        "lengths": {name: int(np.quantile(lengths, q, method="higher")) for name, q in QUANTILES.items()},
        "max_length": encoded.max_length,
        "at_limit": int(np.sum(lengths >= encoded.max_length)),
        "sample": _sample(spec, rows, encoded, tokenizer),
    }


def _labels(spec: TaskSpec, encoded: EncodedTask) -> dict[str, int] | dict[str, float] | None:
    if encoded.labels is None:
        return None
    if spec.kind == "regression":
        values = encoded.labels
        return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
    counts = Counter(encoded.labels.tolist())
    return {name: counts[i] for i, name in enumerate(spec.labels)}


def _sample(spec: TaskSpec, rows: Rows, encoded: EncodedTask, tokenizer: Any) -> dict[str, Any]:
    row = int(encoded.rows[0])
    ids = encoded.input_ids(0).tolist()
    label = None if rows.labels is None else rows.labels[row].item()
    return {
        rows.unit: int(rows.lines[row]),
        "texts": [column[row] for column in rows.texts],
        "label": spec.labels[int(label)] if label is not None and spec.kind == "classification" else label,
        "tokens": tokenizer.convert_ids_to_tokens(ids),
        "token_types": encoded.token_type_ids(0).tolist(),
        "decoded": tokenizer.decode(ids),
    }
