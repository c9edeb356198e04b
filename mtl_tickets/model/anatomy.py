"""Where heads and feed-forward blocks live in each supported architecture. A table; the code reads only the table.

Module names are those of transformers 5.x. An architecture can be entered when a head is a slice of plain query, key,
value and output projections and a feed-forward block is two plain linear layers: then hooks on the projections' inputs
and outputs gate it under every attention implementation, and slicing the weights removes it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig

from mtl_tickets.errors import Problem, UnsupportedEncoder, nearest
from mtl_tickets.tickets.space import StructuredSpace


@dataclass(frozen=True)
class Anatomy:
    """One architecture. Paths of parts start at a layer; ``layers`` starts at the encoder."""

    model_type: str
    layers: str
    """The list of layers."""
    attention: str
    """The module that turns hidden states into the heads' contexts; it returns a tuple."""
    query: str
    key: str
    value: str
    attention_output: str
    """The linear layer whose *input* is the concatenated contexts of the heads, ``[B, S, H·d_h]``."""
    ffn_in: str
    ffn_out: str
    """The linear layer whose *input* is the neurons' activations, ``[B, S, F]``."""
    ffn_end: str
    """The module whose *output* is what the feed-forward block adds to the residual: bias included, after dropout."""
    ffn_bypassed: tuple[str, ...]
    """To remove the block: modules that then pass on what they get ..."""
    ffn_silenced: str
    """... and the module that then contributes nothing."""
    intermediate_size: str
    """The name of d_ff in the configuration."""
    dropout_fields: tuple[str, ...]
    """The names of the dropout probabilities inside the encoder."""
    has_pooler: bool
    has_token_types: bool
    places_after_padding: bool = False
    """Whether the first token's position is the padding's number + 1, and not 0."""
    word_embeddings: str = "embeddings.word_embeddings"
    """From the encoder; so is the pooler's linear layer, where there is one."""
    pooler: str = "pooler.dense"

    def parts(self, layer: nn.Module) -> dict[str, nn.Module]:
        """The named linear layers of one layer; query, key and value only where it has heads left."""
        names = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
        return {name: found for name in names if (found := self.find(layer, name)) is not None}

    def find(self, layer: nn.Module, part: str) -> nn.Module | None:
        """The module of a part (a field of this class that holds a path), ``None`` where it has been removed."""
        module: Any = layer
        for name in getattr(self, part).split("."):
            module = getattr(module, name, None)
        return module


_BERT_LAYER: dict[str, Any] = {
    "layers": "encoder.layer",
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_end": "output.dropout",
    "ffn_bypassed": ("intermediate", "output.dropout"),
    "ffn_silenced": "output.dense",
    "intermediate_size": "intermediate_size",
    "dropout_fields": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "has_token_types": True,
}

ANATOMIES: dict[str, Anatomy] = {
    anatomy.model_type: anatomy
    for anatomy in (
        Anatomy("bert", has_pooler=True, **_BERT_LAYER),
        Anatomy("roberta", has_pooler=True, places_after_padding=True, **_BERT_LAYER),
        Anatomy("xlm-roberta", has_pooler=True, places_after_padding=True, **_BERT_LAYER),
        Anatomy("electra", has_pooler=False, **_BERT_LAYER),
        Anatomy(
            "distilbert",
            layers="transformer.layer",
            attention="attention",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            attention_output="attention.out_lin",
            ffn_in="ffn.lin1",
            ffn_out="ffn.lin2",
            ffn_end="ffn",
            ffn_bypassed=(),
            ffn_silenced="ffn",
            intermediate_size="hidden_dim",
            dropout_fields=("dropout", "attention_dropout"),
            has_pooler=False,
            has_token_types=False,
        ),
    )
}


def anatomy_of(encoder: nn.Module | PretrainedConfig) -> Anatomy:
    """The table row of an encoder (an ``AutoModel``, no task model around it) or of a configuration.

    Raises :class:`UnsupportedEncoder`, listing what is supported, for every other architecture and for configurations
    of a supported one that change what a unit is (decoders, cross-attention, relative positions).
    """
    config = encoder if isinstance(encoder, PretrainedConfig) else getattr(encoder, "config", None)
    model_type = getattr(config, "model_type", type(encoder).__name__)
    supported = ", ".join(ANATOMIES)
    if model_type not in ANATOMIES:
        hint = nearest(model_type, list(ANATOMIES))
        hint = f"supported are {supported}" + ("; " + hint if hint.startswith("did") else "")
        raise UnsupportedEncoder(Problem("no encoder of a supported architecture", found=model_type, hint=hint))
    problems = [
        Problem(rule, place=field, found=getattr(config, field), hint=f"supported are encoders of {supported}")
        for field, allowed, rule in (
            ("is_decoder", (False,), "decoders are not supported"),
            ("add_cross_attention", (False,), "cross-attention is not supported"),
            ("position_embedding_type", ("absolute",), "relative positions are gone since transformers 5"),
        )
        if getattr(config, field, allowed[0]) not in allowed
    ]
    anatomy = ANATOMIES[model_type]
    if isinstance(encoder, nn.Module) and not isinstance(_submodule(encoder, anatomy.layers), nn.ModuleList):
        rule = f"must be a plain encoder with its layers at {anatomy.layers!r}"
        problems.append(Problem(rule, found=type(encoder).__name__, hint="pass the AutoModel"))
    if problems:
        raise UnsupportedEncoder(problems)
    return anatomy


def layers_of(encoder: nn.Module) -> list[nn.Module]:
    """The layers, first to last."""
    layers = encoder.get_submodule(anatomy_of(encoder).layers)
    assert isinstance(layers, nn.ModuleList)  # anatomy_of has looked
    return list(layers)


@dataclass(frozen=True)
class Dimensions:
    """The sizes of an encoder as pretrained, whatever the names in its configuration."""

    layers: int
    heads: int
    hidden: int
    intermediate: int

    @property
    def head_width(self) -> int:
        """d_h: features of one head."""
        return self.hidden // self.heads


def longest_input(config: PretrainedConfig) -> int:
    """Tokens that the encoder has positions for. RoBERTa and its like count positions from the padding id on."""
    return config.max_position_embeddings - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)


def dimensions_of(config: PretrainedConfig) -> Dimensions:
    """Reads the sizes; :class:`UnsupportedEncoder` where the heads do not divide the width."""
    sizes = Dimensions(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        hidden=config.hidden_size,
        intermediate=getattr(config, anatomy_of(config).intermediate_size),
    )
    if sizes.hidden % sizes.heads:
        rule = f"the number of heads must divide the width {sizes.hidden}"
        raise UnsupportedEncoder(Problem(rule, place="num_attention_heads", found=sizes.heads))
    return sizes


def space_of(config: PretrainedConfig, neurons: bool = False, classes: int = 2) -> StructuredSpace:
    """The unit space of an encoder, from its configuration alone (no weights are made).

    100 % is every parameter of the encoder (embeddings, biases, and the pooler where the architecture has one) and of a
    ``classes``-way linear classifier: the published convention of Super Tickets (Liang et al. 2021), 109,483,778 for
    BERT-base. Costs of units are weights only: 4·d·d_h a head, 2·d·d_ff a block.
    """
    sizes = dimensions_of(config)
    return StructuredSpace.of(
        layers=sizes.layers,
        heads=sizes.heads,
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        total=sum(p.numel() for p in on_meta(config).parameters()) + classes * (sizes.hidden + 1),
        neurons=neurons,
    )


def on_meta(config: PretrainedConfig, attention: str = "sdpa") -> nn.Module:
    """The encoder's modules without memory for the weights. Draws nothing from the global random generators."""
    config = copy.deepcopy(config)  # from_config writes the attention implementation into it
    with torch.device("meta"):
        return AutoModel.from_config(config, dtype=torch.float32, attn_implementation=attention)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
