"""Getting an encoder: pretrained, random, or as an empty shape. Never from the global random generators.

Whatever a checkpoint lacks is drawn from a generator of its own, seeded by (seed, name): the same seed gives the same
weights whatever was built before, in whatever order.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig

from mtl_tickets.errors import CheckpointError, MtlTicketsError, Problem, problems_of
from mtl_tickets.model.anatomy import anatomy_of, on_meta


def load_encoder(
    name_or_path: str | Path, attention: str = "sdpa", seed: int = 0, dropout: float | None = None
) -> nn.Module:
    """A pretrained encoder in float32, whatever type its checkpoint is stored in.

    A pooler that the architecture has and the checkpoint lacks is drawn from ``seed``. ``dropout`` takes the place of
    the probabilities the encoder is configured with. Raises
    :class:`UnsupportedEncoder` before any weight is read, :class:`CheckpointError` where there is no checkpoint, or
    where it lacks anything but the pooler or has other shapes.
    """
    source = str(name_or_path)
    config = with_dropout(read_config(source), dropout)
    with _reading_encoder(source), torch.random.fork_rng(devices=[]):
        encoder, info = AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
    problems = [
        Problem("the checkpoint must have this weight", file=source, place=name)
        for name in sorted(info["missing_keys"])
        if not name.startswith("pooler.")
    ]
    if problems:
        raise CheckpointError(problems[:20])
    if any(name.startswith("pooler.") for name in info["missing_keys"]):
        draw_linear(encoder.pooler.dense, initializer_range(config), seed, "pooler")
    return encoder


def read_config(name_or_path: str | Path) -> PretrainedConfig:
    """The configuration of a pretrained encoder; :class:`CheckpointError` where there is none,
    :class:`UnsupportedEncoder` for another architecture."""
    source = str(name_or_path)
    with _reading_encoder(source):
        config = AutoConfig.from_pretrained(source)
    with problems_of(source):
        anatomy_of(config)
    return config


def _reading_encoder(source: str) -> contextlib.AbstractContextManager[None]:
    hint = "" if Path(source).exists() else "there is no such folder here; is the name right, the hub reachable?"
    return read_by_transformers("must be a pretrained encoder, a folder or a name on the hub", source, hint)


def with_dropout(config: PretrainedConfig, dropout: float | None) -> PretrainedConfig:
    """The configuration, or where ``dropout`` is given a copy with this probability everywhere inside the encoder."""
    if dropout is None:
        return config
    config = copy.deepcopy(config)
    for field in anatomy_of(config).dropout_fields:
        setattr(config, field, dropout)
    return config


def random_encoder(config: PretrainedConfig, attention: str = "sdpa", seed: int = 0) -> nn.Module:
    """An encoder as the architecture initialises it, drawn from ``seed`` alone, in float32."""
    anatomy_of(config)
    config = copy.deepcopy(config)  # from_config writes the attention implementation into it
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "encoder"))
        return AutoModel.from_config(config, dtype=torch.float32, attn_implementation=attention)


def empty_encoder(config: PretrainedConfig, attention: str = "sdpa") -> nn.Module:
    """An encoder whose parameters have shapes but no memory (device ``meta``), while its buffers are real.

    Load weights with ``load_state_dict(..., assign=True)``. A hundred times faster than drawing weights that are
    overwritten the next moment.
    """
    encoder = on_meta(config, attention)
    small = copy.deepcopy(config)
    small.num_hidden_layers = 0
    small.vocab_size = (config.pad_token_id or 0) + 1
    # buffers are no part of a checkpoint (position numbers, token types): take them from an encoder without layers
    buffers = dict(random_encoder(small, attention).named_buffers())
    for name, buffer in list(encoder.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        if name not in buffers or buffers[name].shape != buffer.shape:
            raise CheckpointError(Problem("this buffer of the encoder has no known value", place=name))
        encoder.get_submodule(owner).register_buffer(leaf, buffers[name].clone(), persistent=False)
    return encoder


def load_tokenizer(name_or_path: str | Path) -> Any:
    """The tokenizer of an encoder, a folder of :func:`mtl_tickets.model.store.save`, or a name on the hub.

    Raises :class:`CheckpointError` where there is none.
    """
    source = str(name_or_path)
    with read_by_transformers("must have a tokenizer", source):
        return AutoTokenizer.from_pretrained(source)


def encoder_hash(encoder: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of an encoder's parameters, 16 digits.

    It names the pretrained weights a ticket was drawn from. The pooler is left out: many checkpoints have none, and it
    then depends on the seed.
    """
    total = hashlib.sha256()
    for name, parameter in sorted(encoder.named_parameters()):
        if not name.startswith("pooler."):
            tensor = parameter.detach().cpu().contiguous()
            total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def fresh_linear(inputs: int, outputs: int, std: float, seed: int, name: str) -> nn.Linear:
    """A linear layer drawn as :func:`draw_linear` does."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    draw_linear(layer, std, seed, name)
    return layer


@torch.no_grad()
def draw_linear(layer: nn.Linear, std: float, seed: int, name: str) -> None:
    """Weights from N(0, std²), bias 0, in place. The draw depends on (seed, name) and the shape alone."""
    generator = torch.Generator().manual_seed(derived_seed(seed, name))
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
    layer.bias.zero_()


def derived_seed(seed: int, name: str) -> int:
    """A seed of its own for everything that has a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def initializer_range(config: PretrainedConfig) -> float:
    """The standard deviation the architecture draws new weights with."""
    return float(getattr(config, "initializer_range", 0.02))


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports and progress bars from transformers inside; its settings are put back afterwards.

    A checkpoint without pooler, or with a language-model head that is not needed, is the usual case here, and what
    matters of the report (missing weights) is checked by us.
    """
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


@contextlib.contextmanager
def read_by_transformers(rule: str, file: str, hint: str = "") -> Iterator[None]:
    """:func:`quiet_transformers`, and whatever goes wrong inside becomes a :class:`CheckpointError`.

    Every exception is meant: a file that is not what it should be shows, from below transformers, as OSError,
    ValueError, KeyError, RuntimeError, SafetensorError, a strict dataclass's error and more. The cause is kept.
    """
    with quiet_transformers():
        try:
            yield
        except MtlTicketsError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(Problem(f"{rule} ({reason})", file=file, hint=hint)) from error
