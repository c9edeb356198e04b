"""Tokens a second of pre-training, side by side with the transformers Trainer on the same model, text and batches.

    python scripts/benchmark_pretraining.py [--repeats 5] [--steps 30] [--json scripts/results/pretraining.json]

Both train the same BERT (4 x 256, 8 heads, vocabulary 8,192, no dropout) with masked-language modelling on packed
sequences of 64, 64 a batch, bf16 autocast, AdamW. The Trainer has its stock collator and fused AdamW; ours is what
`mtl-tickets pretrain` runs. Rounds alternate; a round's first steps are not counted; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from measuring import UNCOUNTED, Stopwatch, comparison, machine, rounds, write
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from mtl_tickets.pretraining.masking import Course, MaskedBatches
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, MaskedLoss
from mtl_tickets.pretraining.sequences import Packed, SpecialIds
from mtl_tickets.pretraining.text import TokenText
from mtl_tickets.pretraining.vocabulary import train_vocabulary
from mtl_tickets.training.loop import TrainSettings, train
from mtl_tickets.training.optim import OptimiserSettings

LENGTH, BATCH, SHARE, VOCABULARY = 64, 64, 0.2, 8192


def made_text(tokens: int) -> TokenText:
    """Token ids as common as words are (Zipf's law); what they are changes no speed."""
    rng = np.random.default_rng(0)
    ids = 5 + np.minimum(rng.zipf(1.3, size=tokens), VOCABULARY - 6)
    ids[::50] = 3
    ends = 1 + np.flatnonzero(ids == 3)
    return TokenText(ids.astype(np.uint16), ends, ends - 1, "made")


def network() -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1024,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForMaskedLM(config)


def ours(text: TokenText, special: SpecialIds, steps: int) -> float:
    watch = Stopwatch([BATCH * LENGTH] * steps)
    packed = Packed(text, special, LENGTH)
    source = MaskedBatches(packed, np.arange(len(packed.sizes)), special, BATCH, 0, SHARE)
    settings = TrainSettings(epochs=1, optimiser=OptimiserSettings(lr=1e-3))
    model = MaskedLanguageModel(network())
    accelerator = Accelerator(mixed_precision="bf16")
    train(model.to(accelerator.device), Course([(source, steps)]), MaskedLoss(), settings, accelerator, seed=0,
          on_step=watch.step)  # fmt: skip
    return watch.speed


def trainer(text: TokenText, special: SpecialIds, tokenizer: PreTrainedTokenizerFast, steps: int) -> float:
    packed = Packed(text, special, LENGTH)
    rows = packed.rows(np.arange(len(packed.sizes)), None, np.random.default_rng(0)).ids
    watch = Stopwatch([BATCH * LENGTH] * steps)

    class Watching(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=1e-3,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        Trainer(
            network(),
            arguments,
            train_dataset=[{"input_ids": row} for row in rows.tolist()],  # type: ignore[arg-type]
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=SHARE),
            callbacks=[Watching()],
        ).train()
    return watch.speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    steps = given.steps + UNCOUNTED
    text = made_text(steps * BATCH * LENGTH)
    tokenizer = train_vocabulary(lambda: ["a b c d e f g"], 100, positions=128)
    tokenizer.add_tokens([f"w{number}" for number in range(VOCABULARY - len(tokenizer))])
    special = SpecialIds.of(tokenizer)
    ways: dict[str, Callable[[], float]] = {
        "mtl_tickets": lambda: ours(text, special, steps),
        "transformers Trainer": lambda: trainer(text, special, tokenizer, steps),
    }
    speeds = rounds(ways, given.repeats, "tokens/s")
    result = {
        "what": "pretraining",
        "shape": "4x256, 8 heads, vocabulary 8,192",
        "batch": f"{BATCH} sequences of {LENGTH}",
        "comparisons": [comparison("masked-language modelling", speeds, "tokens/s", *ways)],
        **machine("bf16"),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
