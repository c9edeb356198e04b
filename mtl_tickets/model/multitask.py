"""One encoder, a head for each task, a ticket for each task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PretrainedConfig

from mtl_tickets.errors import InputError, MtlTicketsError, Problem, nearest
from mtl_tickets.model.anatomy import anatomy_of, dimensions_of, space_of
from mtl_tickets.model.encoders import (
    draw_linear,
    fresh_linear,
    initializer_range,
    load_encoder,
    random_encoder,
    with_dropout,
)
from mtl_tickets.model.fork import Fork, forked
from mtl_tickets.model.gates import Gates, Segment
from mtl_tickets.model.packed import PACKED, Packing
from mtl_tickets.model.pooling import APART, POOLINGS, Pooling, embedded, read, views
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket


@dataclass(frozen=True)
class TaskInfo:
    """What the model must know of a task. ``n_out``: classes, or 1 for regression. ``texts``: 2 for pairs."""

    name: str
    kind: Literal["classification", "regression"] = "classification"
    labels: tuple[str, ...] = ()
    n_out: int = 2
    head_dropout: float = 0.1
    texts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        problems = []
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name) or hasattr(nn.ModuleDict, self.name):
            rule = "a task's name must be made of letters, digits, _ and -, and be no word of torch's module lists"
            problems.append(Problem(rule, place="name", found=self.name, hint=f"for example {self.name + '_task'!r}"))
        if self.kind not in ("classification", "regression"):
            problems.append(Problem("must be classification or regression", place="kind", found=self.kind))
        if self.n_out < 1 or (self.kind == "regression" and self.n_out != 1):
            problems.append(Problem("must be the number of classes, 1 for regression", place="n_out", found=self.n_out))
        if self.labels and len(self.labels) != self.n_out and self.kind == "classification":
            problems.append(Problem(f"must be {self.n_out} names", place="labels", found=list(self.labels)))
        if self.texts not in (1, 2):
            problems.append(Problem("must be 1, or 2 for pairs", place="texts", found=self.texts))
        if not 0 <= self.head_dropout < 1:
            problems.append(Problem("must be in [0, 1)", place="head_dropout", found=self.head_dropout))
        if problems:
            raise InputError([Problem(p.rule, f"task {self.name!r}", p.place, p.found, p.hint) for p in problems])


class TaskHead(nn.Module):
    """Dropout and one linear layer on the pooled output: [rows, inputs] -> [rows, n_out]."""

    def __init__(self, linear: nn.Linear, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = linear

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(pooled))


class Pooler(nn.Module):
    """Linear and tanh on the first token, for architectures that have none of their own: [B, S, d] -> [B, d]."""

    def __init__(self, dense: nn.Linear):
        super().__init__()
        self.dense = dense

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))


class MultiTaskModel(nn.Module):
    """The shared encoder with per-task heads and per-task gates.

    Use :meth:`from_encoder`. The model takes the encoder over: with another ``pooling`` than ``"pooler"`` it drops the
    encoder's pooler, whose weights would otherwise be parameters that nothing uses.

    What heads read, ``pooling``: ``"pooler"``, the pooler's output, as published; ``"first"``, the first token;
    ``"mean"``; ``"texts"`` and ``"aligned"``, for which the texts of a pair are read apart and compared by the head
    (:mod:`mtl_tickets.model.pooling`).

    ``present`` is given for an encoder from which units were removed (see :mod:`mtl_tickets.model.compact`).
    """

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Sequence[TaskInfo],
        *,
        seed: int = 0,
        pooling: Pooling = "pooler",
        present: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not tasks or len({task.name for task in tasks}) != len(tasks):
            names = [task.name for task in tasks]
            raise InputError(Problem("a model needs at least one task, and each name once", "tasks", "", names))
        if pooling not in POOLINGS:
            raise InputError(Problem("unknown pooling", "pooling", "", pooling, nearest(pooling, POOLINGS)))
        self.encoder = encoder
        self.anatomy = anatomy_of(encoder)
        config = self.config
        width, std = dimensions_of(config).hidden, initializer_range(config)
        self.pooling = pooling
        self.own_pooler: Pooler | None = None
        if pooling != "pooler":
            if self.anatomy.has_pooler:
                encoder.pooler = None  # type: ignore[assignment]
        elif getattr(encoder, "pooler", None) is None:
            self.own_pooler = Pooler(fresh_linear(width, width, std, seed, "pooler"))
        self.tasks = list(tasks)
        self.heads = nn.ModuleDict(
            {
                t.name: TaskHead(
                    fresh_linear(width * views(pooling, t.texts), t.n_out, std, seed, f"head/{t.name}"), t.head_dropout
                )
                for t in tasks
            }
        )
        self.space: StructuredSpace = space_of(config)
        self.present = {part: torch.as_tensor(there, dtype=torch.bool) for part, there in (present or {}).items()}
        """Which units are physically there, part -> boolean tensor; empty where nothing was removed."""
        self.gates = Gates(encoder, len(self.tasks), self.present)
        self.tickets: dict[str, Ticket] = {}
        self._token_types = self.anatomy.has_token_types and getattr(config, "type_vocab_size", 0) > 1

    @classmethod
    def from_encoder(
        cls,
        encoder: str | Path | nn.Module | PretrainedConfig,
        tasks: Sequence[TaskInfo],
        attention: str = "sdpa",
        seed: int = 0,
        pooling: Pooling = "pooler",
        dropout: float | None = None,
    ) -> MultiTaskModel:
        """A model on a pretrained encoder (folder, name or module) or a random one (a configuration).

        New parameters, the heads and a pooler that is missing, are drawn from N(0, initializer_range²), bias 0, each
        from a generator seeded by (seed, its name): the same seed gives the same heads whatever the order of tasks,
        the other tasks, or what was drawn before. ``attention`` is the attention implementation (``"sdpa"``,
        ``"eager"``, ...), ``dropout`` what is inside the encoder in place of what it is configured with; a module keeps
        its own. The encoder's weights are float32.

        Raises :class:`UnsupportedEncoder`, :class:`CheckpointError`, :class:`InputError` for tasks that do not fit.
        """
        if isinstance(encoder, PretrainedConfig):
            encoder = random_encoder(with_dropout(encoder, dropout), attention, seed)
        elif isinstance(encoder, nn.Module):
            encoder = getattr(encoder, "base_model", encoder)
        else:
            encoder = load_encoder(encoder, attention, seed, dropout)
        return cls(encoder, tasks, seed=seed, pooling=pooling)

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's configuration, as pretrained."""
        return self.encoder.config

    @property
    def pooler(self) -> nn.Module | None:
        """The pooler in use: the encoder's own, else ours, ``None`` under another pooling."""
        return self.own_pooler if self.own_pooler is not None else getattr(self.encoder, "pooler", None)

    def task_index(self, task: str) -> int:
        """The number of a task in segments; an :class:`InputError` with the nearest names where there is none."""
        names = [info.name for info in self.tasks]
        if task not in names:
            raise InputError(Problem("the model has no such task", "", "", task, nearest(task, names)))
        return names.index(task)

    def set_tickets(self, tickets: Mapping[str, Ticket]) -> None:
        """Puts these tickets on, in place of all before. Tasks without a ticket are dense.

        Raises :class:`InputError` for a task the model does not have, :class:`TicketError` for a ticket that is not of
        this encoder.
        """
        by_task: list[Ticket | None] = [None] * len(self.tasks)
        for task, ticket in tickets.items():
            by_task[self.task_index(task)] = ticket
        self.gates.set_tickets(by_task)
        self.tickets = dict(tickets)

    def reset_head(self, task: str, seed: int) -> None:
        """Draws a task's head again, in place: what :meth:`from_encoder` with this seed would have drawn."""
        self.task_index(task)
        draw_linear(self.heads[task].linear, initializer_range(self.config), seed, f"head/{task}")  # type: ignore[arg-type]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        *,
        segments: Sequence[Segment],
        tokens: int | None = None,
    ) -> list[torch.Tensor]:
        """The logits of each segment, float32 [stop - start, n_out], in the order of ``segments``.

        ``input_ids``, ``attention_mask``, ``token_type_ids``: int64 [B, S]. ``segments``: (task, start, stop), which
        cover the B rows in order. Token types tell a pair's texts apart; the encoder is not given them where it has one
        type or none. Each row is seen through the gates of its task, unless gates were put on outside
        (``with model.gates.leaves(...)``). ``tokens``: how many are no padding; attention ``"packed"`` would have to
        wait for the device to find out.
        """
        present = [task for task, _, _ in segments]
        if [0, *(stop for _, _, stop in segments)] != [*(start for _, start, _ in segments), len(input_ids)]:
            raise MtlTicketsError(f"segments must cover {len(input_ids)} rows in order; found {list(segments)}")
        # gates that were put on outside may be of places in padded rows
        packs = self.config._attn_implementation == PACKED and not self.gates.active
        packing = self._packing(attention_mask, token_type_ids, tokens) if packs else None
        inputs = self._inputs(input_ids, attention_mask, token_type_ids, present, packing)
        tickets = (
            nullcontext()
            if self.gates.active or not self.gates.masks(present)
            else self.gates.on(segments, None if packing is None else packing.rows)
        )
        with embedded(self.encoder, self.pooling == "aligned") as below, tickets:
            output = self.encoder(**inputs)
        last, pooled = output.last_hidden_state, output.get("pooler_output")
        if packing is not None:
            last, below, pooled = packing.unpack(last), [packing.unpack(states) for states in below], None
        logits = []
        for task, start, stop in segments:
            rows = slice(start, stop)
            types = None if token_type_ids is None else token_type_ids[rows]
            first = below[0][rows] if below else None
            of_task = last[rows], None if pooled is None else pooled[rows]
            logits.append(self._answer(task, of_task, first, attention_mask[rows], types))
        return logits

    def forward_all(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        *,
        tasks: Sequence[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The logits of every task (or of ``tasks``) for the same rows, float32 [B, n_out] each.

        They are those of :meth:`forward` for each task; layers in which tickets agree are computed once
        (:mod:`mtl_tickets.model.fork`). ``input_ids``, ``attention_mask``, ``token_type_ids``: int64 [B, S].

        Gates that were put on outside hold for every task, as in :meth:`forward`.

        Raises :class:`InputError` for a task the model does not have, and where there are no tasks or no rows.
        """
        names = [info.name for info in self.tasks] if tasks is None else list(dict.fromkeys(tasks))
        numbers, rows = [self.task_index(name) for name in names], input_ids.shape[0]
        if not names or not rows:
            found = f"{len(names)} tasks, {rows} rows"
            raise InputError(Problem("there must be a task to answer and a row to answer for", found=found))
        fork = Fork.of(self.gates, numbers)
        groups = (0,) * len(numbers) if self.gates.active else fork.groups[-1]
        parts = nullcontext() if self.gates.active else forked(self.encoder, self.gates, fork, rows)
        with parts, embedded(self.encoder, self.pooling == "aligned") as below:
            output = self.encoder(**self._inputs(input_ids, attention_mask, token_type_ids, numbers))
        first, last, pooled = below[0] if below else None, output.last_hidden_state, output.get("pooler_output")
        answers = {}
        for name, task, group in zip(names, numbers, groups, strict=True):
            of_task = slice(group * rows, (group + 1) * rows)
            states = last[of_task], None if pooled is None else pooled[of_task]
            answers[name] = self._answer(task, states, first, attention_mask, token_type_ids)
        return answers

    def _packing(self, mask: torch.Tensor, types: torch.Tensor | None, tokens: int | None) -> Packing:
        return Packing.of(mask, types if self.pooling in APART else None, tokens)

    def _inputs(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        types: torch.Tensor | None,
        tasks: Sequence[int],
        packing: Packing | None = None,
    ) -> dict[str, Any]:
        """What the encoder is given for rows of these tasks."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if types is None and self._compares(tasks):
            raise MtlTicketsError("this pooling needs token_type_ids, which tell a pair's texts apart")
        if self.pooling in APART and types is not None:
            inputs["position_ids"] = self._places(mask, types)
            if packing is None:
                inputs["attention_mask"] = self._within_texts(mask, types)
        elif self._token_types and types is not None:
            inputs["token_type_ids"] = types
        if packing is None:
            return inputs
        # one long row has no places of its own
        inputs.setdefault("position_ids", self._places(mask, torch.zeros_like(mask, dtype=torch.long)).expand_as(mask))
        del inputs["attention_mask"]
        return {name: packing.pack(values) for name, values in inputs.items()} | packing.named

    def _within_texts(self, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """What attention adds to its scores so that the texts of a row do not see each other, [B, 1, S, S], in the
        encoder's type."""
        seen = (types[:, :, None] == types[:, None, :]) & (mask[:, None, :] == 1)
        kind = next(self.encoder.parameters()).dtype
        added = torch.zeros(seen.shape, dtype=kind, device=seen.device).masked_fill(~seen, torch.finfo(kind).min)
        return added.unsqueeze(1)

    def _places(self, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Positions [B, S] of texts side by side in a row as if each were alone in it, but for the second one's missing
        [CLS]."""
        first = (mask * (1 - types)).sum(1, keepdim=True)
        places = torch.arange(mask.shape[1], device=mask.device) - types * (first - 1)
        return places + self.config.pad_token_id + 1 if self.anatomy.places_after_padding else places

    def _compares(self, tasks: Sequence[int]) -> bool:
        """Whether a head among these tasks' is given both texts of a pair."""
        return self.pooling in APART and any(self.tasks[task].texts == 2 for task in tasks)

    def _answer(
        self,
        task: int,
        states: tuple[torch.Tensor, torch.Tensor | None],
        below: torch.Tensor | None,
        mask: torch.Tensor,
        types: torch.Tensor | None,
    ) -> torch.Tensor:
        """The task's logits for some rows, float32. ``states``: the last layer's output [B, S, d] and, where the
        encoder has pooled it, that [B, d]; ``below``: what went into the first layer, where the pooling wants it."""
        last, pooled = states
        if self.pooling == "pooler":
            if pooled is None:
                assert self.pooler is not None
                pooled = self.pooler(last)
        elif self.pooling == "first":
            pooled = last[:, 0]
        else:
            pooled = read(self.pooling, below, last, mask, types if self._compares([task]) else None)
        return self.heads[self.tasks[task].name](pooled).float()
