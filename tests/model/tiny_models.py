"""Tiny random models of every supported architecture, with weights large enough that a lost unit shows."""

import dataclasses

import numpy as np
import torch
from transformers import BertConfig, DistilBertConfig, ElectraConfig, PretrainedConfig, RobertaConfig, XLMRobertaConfig

from mtl_tickets.model.anatomy import space_of
from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.tickets.ticket import Ticket

LAYERS, HEADS, WIDTH, NEURONS = 3, 4, 32, 40
_SHARED = {
    "vocab_size": 60,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 40,
    "initializer_range": 0.15,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SHARED),
    "roberta": RobertaConfig(**_SHARED, type_vocab_size=1, pad_token_id=1),
    "xlm-roberta": XLMRobertaConfig(**_SHARED, type_vocab_size=1, pad_token_id=1),
    "electra": ElectraConfig(**_SHARED, embedding_size=16),
    "distilbert": DistilBertConfig(
        vocab_size=60,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=NEURONS,
        max_position_embeddings=40,
        initializer_range=0.15,
    ),
}
KINDS = [(name, attention) for name in CONFIGS for attention in ("sdpa", "eager")]
TASKS = (
    TaskInfo("mnli", labels=("entailment", "neutral", "contradiction"), n_out=3, texts=2),
    TaskInfo("stsb", kind="regression", n_out=1, texts=2),
    TaskInfo("rte", labels=("yes", "no"), n_out=2),
)
Batch = dict[str, object]


def make_model(
    architecture: str = "bert",
    attention: str = "sdpa",
    tasks: tuple[TaskInfo, ...] = TASKS,
    dropout: float = 0.0,
    **more,
) -> MultiTaskModel:
    """In eval mode; dropout 0 unless asked for, biases drawn too (they are 0 in a fresh encoder)."""
    encoder = random_encoder(CONFIGS[architecture], attention, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    tasks = tuple(dataclasses.replace(task, head_dropout=dropout) for task in tasks)
    model = MultiTaskModel.from_encoder(encoder, tasks, seed=3, **more)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model.eval()


def make_batch(
    model: MultiTaskModel, segments: list[tuple[int, int, int]], length: int = 12, padding: int = 0, seed: int = 4
) -> Batch:
    """Rows of different lengths, padded to ``length + padding``."""
    generator = torch.Generator().manual_seed(seed)
    rows, pad = segments[-1][2], model.config.pad_token_id
    ids = torch.randint(5, 60, (rows, length), generator=generator)
    lengths = [length - 3 * (row % 3) for row in range(rows)]
    mask = torch.tensor([[1] * n + [0] * (length - n) for n in lengths])
    types = (torch.arange(length) >= 4).long().expand(rows, -1) * mask
    ids = torch.where(mask == 1, ids, pad)

    def widened(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, padding), value=value)

    return {
        "input_ids": widened(ids, pad),
        "attention_mask": widened(mask, 0),
        "token_type_ids": widened(types, 0),
        "segments": segments,
    }


def rows_of(batch: Batch, task: int) -> Batch:
    """One segment of a batch as a batch of its own."""
    [(_, start, stop)] = [segment for segment in batch["segments"] if segment[0] == task]
    tensors = {name: value[start:stop] for name, value in batch.items() if name != "segments"}
    return {**tensors, "segments": [(task, 0, stop - start)]}


def make_ticket(model: MultiTaskModel, heads=(), ffn=(), neurons=None) -> Ticket:
    """Drops the heads (layer, head), the blocks (layer) and, where given, the neurons (layer, neuron)."""
    space = space_of(model.config, neurons=neurons is not None)
    units = {part: np.ones(shape, dtype=bool) for part, shape in space.parts.items()}
    for place in heads:
        units["heads"][place] = False
    for layer in ffn:
        units["ffn"][layer] = False
    for place in neurons or ():
        units["neurons"][place] = False
    return Ticket(space, units)


def some_tickets(model: MultiTaskModel, neurons: bool = False) -> dict[str, Ticket]:
    """Overlapping tickets: the tasks agree on head (0, 1), on layer 2 without heads, and on block 1."""
    bare = [(2, head) for head in range(HEADS)]
    dropped = [(0, n) for n in range(0, NEURONS, 3)] + [(2, n) for n in range(7)] if neurons else None
    return {
        "mnli": make_ticket(model, [(0, 1), (1, 0), *bare], [1], dropped),
        "stsb": make_ticket(model, [(0, 1), (1, 2), (0, 3), *bare], [1, 2], dropped),
        "rte": make_ticket(model, [(0, 1), *bare], [1], dropped and [*dropped, (0, 1)]),
    }


def largest(first, second) -> float:
    """The largest difference between two tensors or lists of tensors."""
    if isinstance(first, torch.Tensor):
        return float((first - second).detach().abs().max())
    return max(largest(one, other) for one, other in zip(first, second, strict=True))
