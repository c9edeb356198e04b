"""What a pre-training begins with: a tokenizer, and a masked-language model that is new or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from mtl_tickets.errors import CheckpointError, InputError, Problem
from mtl_tickets.files import folder_written_whole
from mtl_tickets.model.anatomy import longest_input
from mtl_tickets.model.encoders import load_tokenizer, quiet_transformers
from mtl_tickets.pretraining.neighbours import attend_to_neighbours
from mtl_tickets.pretraining.ppmi import ppmi_embeddings
from mtl_tickets.pretraining.settings import PretrainSettings
from mtl_tickets.pretraining.text import Source, TokenText, plain_lines
from mtl_tickets.pretraining.vocabulary import read_vocabulary, require_specials, save_tokenizer, train_vocabulary
from mtl_tickets.progress import Progress
from mtl_tickets.training.loop import seed_everything

# word embeddings that start from counts: on at most this much text, with this deviation
COUNTED_TOKENS, WORD_STD = 50_000_000, 0.05


def first_tokenizer(settings: PretrainSettings, sources: list[Source], work: Path) -> Any:
    """The tokenizer named, the start's, or one trained on the sources, which is then kept in ``work``."""
    if settings.trains_vocabulary:
        made = work / "tokenizer"
        if not made.is_dir():
            positions = settings.shape.positions
            tokenizer = train_vocabulary(
                lambda: plain_lines(sources), settings.vocabulary_size, settings.lower_case, positions
            )
            with folder_written_whole(made) as part:
                save_tokenizer(tokenizer, part)
        return load_tokenizer(made)
    name = settings.tokenizer or cast(str, settings.start)
    if Path(name).is_file():
        tokenizer = read_vocabulary(Path(name), settings.lower_case, settings.shape.positions)
    else:
        tokenizer = load_tokenizer(name)
    require_specials(tokenizer, name)
    return tokenizer


def first_network(settings: PretrainSettings, tokenizer: Any, text: TokenText, progress: Progress) -> Any:
    """The masked-language model to begin with; what a start lacks of a head is drawn from the seed.

    ``text``: what word embeddings are counted on, where they start from counts.
    """
    seed_everything(settings.seed)
    if settings.start is None:
        shape = settings.shape
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate or 4 * shape.hidden,
            max_position_embeddings=shape.positions,
            hidden_dropout_prob=shape.dropout,
            attention_probs_dropout_prob=shape.dropout,
            initializer_range=shape.start_range,
            pad_token_id=tokenizer.pad_token_id,
        )
        network = BertForMaskedLM(config)
        if settings.init_embeddings == "ppmi":
            progress.stage("pretrain/counts")
            words = ppmi_embeddings(
                text.ids[:COUNTED_TOKENS], text.ends, len(tokenizer), shape.hidden, seed=settings.seed, std=WORD_STD
            )
            network.bert.embeddings.word_embeddings.weight.data.copy_(torch.from_numpy(words))
        if settings.init_attention == "neighbours":
            attend_to_neighbours(network, settings.seed)
        return network
    with quiet_transformers():
        try:
            network, info = AutoModelForMaskedLM.from_pretrained(
                settings.start, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            rule = f"must be an encoder that can be pre-trained, a folder or a name on the hub ({reason})"
            raise CheckpointError(Problem(rule, settings.start)) from None
    missing = sorted(info["missing_keys"])
    lost = [name for name in missing if name.startswith(network.base_model_prefix + ".")]
    if lost:
        rule = "the checkpoint must have this weight"
        raise CheckpointError([Problem(rule, settings.start, name) for name in lost[:20]])
    if missing:
        progress.say(f"{settings.start} has no masked-language head: a new one is trained")
    config = network.config
    longest = longest_input(config)
    if settings.length > longest:
        raise InputError(
            Problem(
                f"length must not exceed the {longest} positions of {settings.start}", "length", found=settings.length
            )
        )
    if len(tokenizer) > config.vocab_size:
        rule = f"the tokenizer must not have more than the {config.vocab_size} pieces that {settings.start} knows"
        raise InputError(Problem(rule, "tokenizer", found=len(tokenizer)))
    return network
