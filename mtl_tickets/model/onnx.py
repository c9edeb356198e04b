"""One task of a model as an ONNX graph, without the units its ticket drops, for ONNX Runtime and what reads ONNX.

Inputs: ``input_ids``, ``attention_mask`` and, for encoders with token types or heads that tell a pair's texts apart,
``token_type_ids``, int64 [batch, length], both sizes free. Output: ``logits``, float32 [batch, n_out].
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl_tickets.errors import InputError, MtlTicketsError, Problem
from mtl_tickets.files import written_whole
from mtl_tickets.model.anatomy import longest_input
from mtl_tickets.model.compact import compact
from mtl_tickets.model.multitask import MultiTaskModel

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# opset 20 has GELU; ONNX Runtime reads it since 1.17
OPSET = 20
# what the answers may differ by; kernels add in another order
TOLERANCE = 1e-4


class _OneTask(nn.Module):
    def __init__(self, model: MultiTaskModel):
        super().__init__()
        self.model = model
        (self.task,) = [info.name for info in model.tasks]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: Any) -> torch.Tensor:
        return self.model.forward_all(input_ids, attention_mask, token_type_ids)[self.task]


def save_onnx(model: MultiTaskModel, task: str, path: Path) -> float:
    """Writes the graph of ``task`` whole, and returns the largest difference of its logits from the model's, tried in
    ONNX Runtime on inputs of other sizes than it was made with.

    Raises :class:`InputError` where onnx, onnxscript or onnxruntime is not installed (``pip install
    mtl-tickets[onnx]``) or the model has no such task, :class:`MtlTicketsError` where the graph does not answer as the
    model does.
    """
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        hint = "pip install mtl-tickets[onnx]"
        raise InputError(Problem(f"ONNX needs the package {absent[0]}, which is not installed", hint=hint))
    small = compact(model, tasks=[task]).eval().float().cpu()
    small.gates.remove()  # the one task keeps all that is there
    with written_whole(path) as part:
        with _quiet():
            batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest_input(small.config))
            program = torch.onnx.export(
                _OneTask(small),
                _example(small, rows=3, tokens=9),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_shapes=[{0: batch, 1: length}] * len(INPUTS),
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            program.save(str(part))
        return _tried(small, part)


def _example(model: MultiTaskModel, rows: int, tokens: int) -> tuple[torch.Tensor, ...]:
    """Rows of several lengths, of two texts each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (rows, tokens), generator=generator)
    mask = (torch.arange(tokens) < tokens - torch.arange(rows)[:, None] % max(1, tokens - 1)).long()
    types = (torch.arange(tokens) >= tokens // 2).long() * mask
    return torch.where(mask == 1, ids, model.config.pad_token_id or 0), mask, types


def _tried(model: MultiTaskModel, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {entry.name: entry.shape for entry in session.get_inputs()}
    fixed = [size for shape in taken.values() for size in shape if isinstance(size, int)]
    if fixed:
        raise MtlTicketsError(f"the graph takes inputs of fixed size only: {taken}")
    worst = 0.0
    for rows, tokens in ((1, 4), (5, min(longest_input(model.config), 33))):
        tensors = _example(model, rows, tokens)
        given = {name: value.numpy() for name, value in zip(INPUTS, tensors, strict=True) if name in taken}
        (found,) = session.run(["logits"], given)
        with torch.inference_mode():
            (expected,) = model.forward_all(*tensors).values()
        worst = max(worst, float(np.abs(found - expected.numpy()).max()))
    if not worst <= TOLERANCE:
        raise MtlTicketsError(f"the graph's answers differ from the model's by {worst:.1e}")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its steps and of packages it does without; what goes wrong it raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
