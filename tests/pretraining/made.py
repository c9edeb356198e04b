"""Made-up token texts, and tiny networks to read them."""

import numpy as np
import torch
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mtl_tickets.pretraining.masking import MaskedBatches
from mtl_tickets.pretraining.sequences import Neighbours, Packed, PassagePairs, SpecialIds
from mtl_tickets.pretraining.text import TokenText

V = 60
SPECIAL = SpecialIds(cls=2, sep=3, mask=4, special=np.arange(5), ordinary=np.arange(5, V))


def running(tokens, seed=0):
    """Text in which every token says where it stands (mod V), with separators strewn in."""
    ids = 5 + np.arange(tokens) % (V - 5)
    ids[np.random.default_rng(seed).random(tokens) < 0.05] = SPECIAL.sep
    ids[-1] = SPECIAL.sep
    ends = 1 + np.flatnonzero(ids == SPECIAL.sep)
    filled = np.diff(ends, prepend=0) > 1
    return TokenText(ids.astype(np.uint16), ends, ends[filled] - 1, "running")


def documents(shapes):
    """A text of documents whose lines have these lengths; no two tokens of it are equal."""
    ids, ends, lines = [], [], []
    for shape in shapes:
        for length in shape:
            ids += [1000 + len(ids) + i for i in range(length)]
            lines.append(len(ids))
        ids.append(SPECIAL.sep)
        ends.append(len(ids))
    return TokenText(np.array(ids, dtype=np.uint32), np.array(ends), np.array(lines), "documents")


def batches(chunks=50, length=12, size=8, seed=3, **options):
    packed = Packed(running(chunks * (length - 2)), SPECIAL, length)
    return MaskedBatches(packed, np.arange(chunks), SPECIAL, size, seed, **options)


def neighbouring_batches(pairs=20, length=12, size=4, seed=3, **options):
    made = Neighbours(running((2 * pairs + 1) * (length - 2)), SPECIAL, length)
    return MaskedBatches(made, np.arange(pairs), SPECIAL, size, seed, **options)


def paired_batches(size=8, seed=3, **options):
    shapes = np.random.default_rng(0).integers(1, 9, size=(70, 2)).tolist()
    text = documents([*shapes, [4], [5]])
    text = TokenText((5 + text.ids % (V - 5)).astype(np.uint16), text.ends, text.lines, "pairs")
    pairs = PassagePairs(text, SPECIAL, 24)
    return MaskedBatches(pairs, np.arange(len(pairs.sizes)), SPECIAL, size, seed, **options)


def tiny(model_type):
    distil = {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32}
    usual = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    config = CONFIG_MAPPING[model_type](
        vocab_size=V,
        max_position_embeddings=40,
        initializer_range=0.3,
        pad_token_id=0,
        **(distil if model_type == "distilbert" else usual),
        **({"embedding_size": 8} if model_type in ("electra", "albert") else {}),
    )
    torch.manual_seed(0)
    return AutoModelForMaskedLM.from_config(config).eval()
