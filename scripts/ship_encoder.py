"""A finished pre-training as the encoder that the package ships: bf16 weights, tokenizer, record, card and loss curve.

    python scripts/ship_encoder.py PRETRAINED mtl_tickets/encoders/mini --figure scripts/results/mini_curve.svg

The card's text of data, licence and limits is below; its numbers come from the record.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForMaskedLM

from mtl_tickets.files import folder_written_whole, read_json, write_json, write_text
from mtl_tickets.model.encoders import encoder_hash
from mtl_tickets.pretraining.pretrain import RECORD

MOST_BYTES = 12 * 10**6
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")

CARD = """---
license: cc-by-sa-4.0
language: en
library_name: transformers
pipeline_tag: fill-mask
---

# {name}: a small English encoder

BERT form: {layers} layers, {hidden} wide, {heads} heads, feed-forward {intermediate}, {positions} positions,
lower-case WordPiece vocabulary of {vocabulary:,} trained on the same text. {parameters:,} parameters, stored in
bfloat16; no pooler. Made by `mtl-tickets pretrain`, to try the package on real tasks without a download. For results,
take a larger encoder.

## Data

English Wikipedia (81 %) and public-domain books (19 %), lower-cased: {text_tokens:,} tokens. The text of Wikipedia is
under CC BY-SA 4.0, the books are in the public domain. The text holds what Wikipedia and old books hold, their views
and errors too; no names or sensitive passages were taken out.

## Training

Masked-language modelling, {masked:.0%} of the tokens masked, {tokens:,} tokens seen ({passes:.2f} passes),
{short:.0%} of them in sequences of {short_length} and the rest in sequences of {length}, {steps:,} steps of
{step_tokens:,} tokens. Muon with a peak rate of {muon_lr:g} for matrices, AdamW with {lr:g} for the rest, linear
decay; no dropout. Word embeddings started from a truncated SVD of positive pointwise mutual information, the heads of
the first layer from looking 1 to 4 tokens to the left and right. {hours:.1f} hours of training on one core of a shared
x86 CPU (bf16), seed {seed}; torch {torch}, transformers {transformers}.

Held-out loss: {held_out:.3f} nats per masked token, on sequences of {length} from stretches of the same text that were
kept out ({rounded:.3f} with the bfloat16 weights of this folder). The curve, `pretraining.json` has all points:

| tokens seen | sequence length | held-out loss |
|---:|---:|---:|
{curve}

## Limits

It is small and has seen little: it knows words, phrases and their neighbourhoods, hardly facts. Positions beyond
{positions} do not exist. English only. Not for decisions about people.
"""


def ship(source: Path, target: Path, rounded_loss: float) -> None:
    """Writes ``target`` whole. Raises ValueError where it would be larger than the package allows."""
    record = cast(dict[str, Any], read_json(source / RECORD))
    network = AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32).to(torch.bfloat16)
    with folder_written_whole(target) as part:
        network.save_pretrained(str(part))
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, part / name)
        # where the text lay is nobody's business
        settings = record["settings"] | {"text": [Path(text).name for text in record["settings"]["text"]]}
        if settings.get("packs_vocabulary"):
            settings["packs_vocabulary"] = Path(settings["packs_vocabulary"]).name
        shipped = record | {"settings": settings, "encoder_hash": encoder_hash(network.base_model.float())}
        write_json(part / RECORD, shipped)
        write_text(part / "README.md", card(target.name, record, network.config, rounded_loss))
        size = sum(file.stat().st_size for file in part.iterdir())
        if size > MOST_BYTES:
            raise ValueError(f"{target} would have {size:,} bytes, more than {MOST_BYTES:,}")
    print(f"{target}: {size:,} bytes")


def card(name: str, record: dict[str, Any], config: Any, rounded_loss: float) -> str:
    settings, training = record["settings"], record["training"]
    points = [row for row in record["losses"] if "held_out_loss" in row]
    shown = [points[i] for i in sorted({round(k * (len(points) - 1) / 11) for k in range(12)})]
    curve = [f"| {row['tokens']:,} | {row.get('length', '')} | {row['held_out_loss']:.3f} |" for row in shown]
    return CARD.format(
        name=name,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        positions=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        parameters=record["parameters"],
        text_tokens=record["text"]["tokens"],
        masked=settings["mask_share"],
        tokens=training["tokens"],
        passes=training["passes"],
        short=settings["short_share"] if settings["short_length"] else 0.0,
        short_length=settings["short_length"] or settings["length"],
        length=settings["length"],
        steps=training["steps"],
        step_tokens=settings["batch_size"] * settings["length"] * settings["accumulate"],
        muon_lr=settings["muon_lr"],
        lr=settings["lr"],
        hours=training["seconds"] / 3600,
        seed=settings["seed"],
        torch=record["versions"]["torch"],
        transformers=record["versions"]["transformers"],
        held_out=record["held_out_loss"],
        rounded=rounded_loss,
        curve="\n".join(curve),
    )


def draw(record: dict[str, Any], path: Path) -> None:
    """The held-out loss over the tokens seen, a line for each sequence length, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mtl_tickets"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    points = [row for row in record["losses"] if row["tokens"] and "held_out_loss" in row]
    for length in dict.fromkeys(row.get("length") for row in points):
        here = [row for row in points if row.get("length") == length]
        axes.plot(
            [row["tokens"] / 1e6 for row in here],
            [row["held_out_loss"] for row in here],
            marker="o",
            markersize=3,
            label=f"sequences of {length}",
        )
    axes.set_xlabel("tokens seen, millions")
    axes.set_ylabel("held-out loss, nats per masked token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--rounded-loss", type=float, required=True, help="held-out loss with bfloat16 weights")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    ship(given.source, given.target, given.rounded_loss)
    if given.figure:
        draw(cast(dict[str, Any], read_json(given.source / RECORD)), given.figure)


if __name__ == "__main__":
    main()
