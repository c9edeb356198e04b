"""A finished pre-training as the encoder that the package ships: bf16 weights, tokenizer, record, card and loss curve.

    python scripts/ship_encoder.py PRETRAINED mtl_tickets/encoders/mini --rounded-loss LOSS \\
        --scores scripts/results/encoders.md --figure scripts/results/mini_curve.svg

The card's text of data, licence and limits is below; its numbers come from the record, its scores from a file that
holds a table made by encoder_table.py.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForMaskedLM

from mtl_tickets.files import folder_written_whole, read_json, write_json, write_text
from mtl_tickets.model.encoders import encoder_hash
from mtl_tickets.pretraining.pretrain import RECORD
from mtl_tickets.pretraining.settings import PretrainSettings

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

{phases}

In all {tokens:,} tokens seen, {hours:.1f} hours of training on one core of a shared x86 CPU, bf16; torch {torch},
transformers {transformers}. Linear decay, no dropout.

Held-out loss at the end: {held_out:.3f} nats per masked token ({rounded:.3f} with the bfloat16 weights of this folder),
on {form} in sequences of {length}, from stretches of the same text that were kept out.
`pretraining.json` has all of the curve:

| tokens seen | held-out sequences | loss, nats per masked token |
|---:|:---|---:|
{curve}

## Scores

Fine-tuned on each task alone with few rows; dev metrics x 100. Caps and command: `scripts/results/encoders.md`.

{scores}

## Limits

It is small and has seen little: it knows words, phrases and their neighbourhoods, hardly facts. Positions beyond
{positions} do not exist. English only. Not for decisions about people.
"""


def ship(source: Path, target: Path, rounded_loss: float, scores: str) -> None:
    """Writes ``target`` whole. ``scores``: text with one Markdown table.

    Raises ValueError where there is no table, or where the folder would be larger than the package allows.
    """
    record = cast(dict[str, Any], read_json(source / RECORD))
    network = AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32).to(torch.bfloat16)
    with folder_written_whole(target) as part:
        network.save_pretrained(str(part))
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, part / name)
        shipped = _nameless(record) | {"encoder_hash": encoder_hash(network.base_model.float())}
        write_json(part / RECORD, shipped)
        write_text(part / "README.md", card(target.name, record, network.config, rounded_loss, _table(scores)))
        size = sum(file.stat().st_size for file in part.iterdir())
        if size > MOST_BYTES:
            raise ValueError(f"{target} would have {size:,} bytes, more than {MOST_BYTES:,}")
    print(f"{target}: {size:,} bytes")


def _table(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    if not lines:
        raise ValueError("the text of scores must hold a table")
    return "\n".join(lines)


def _nameless(record: dict[str, Any]) -> dict[str, Any]:
    """The record without folders: where the text lay is nobody's business."""
    settings = record["settings"] | {"text": [Path(text).name for text in record["settings"]["text"]]}
    for name in ("packs_vocabulary", "start"):
        if settings.get(name):
            settings[name] = Path(settings[name]).name
    earlier = record.get("started_from")
    return record | {"settings": settings, "started_from": _nameless(earlier) if earlier else None}


def phases_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-trainings that led here, first to last."""
    earlier = record.get("started_from")
    return [*(phases_of(earlier) if earlier else []), record]


def curve_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """All held-out points of all phases, with the tokens seen since the first began and what was measured on.

    Points without a length are left out: they were measured on places of the sequence that were not trained yet.
    """
    points, before = [], 0
    for number, phase in enumerate(phases_of(record), 1):
        form = "pairs" if phase["settings"]["next_sentence"] else "packed"
        points += [
            row | {"tokens": before + row["tokens"], "form": f"{form}, {row['length']} tokens", "phase": number}
            for row in phase["losses"]
            if row["tokens"] and "held_out_loss" in row and "length" in row
        ]
        before += phase["training"]["tokens"]
    return points


def told(phase: dict[str, Any], number: int) -> str:
    """A phase in words."""
    settings, training = phase["settings"], phase["training"]
    start = "from random weights" if settings["start"] is None else "going on from there"
    informed = []
    if settings["init_embeddings"] == "ppmi":
        informed.append("word embeddings from a truncated SVD of positive pointwise mutual information")
    if settings["init_attention"] == "neighbours":
        informed.append("the first layer's heads from looking 1 to 4 tokens to the left and right")
    lengths = f"sequences of {settings['length']}"
    if settings["short_length"]:
        lengths = f"{settings['short_share']:.0%} planned in sequences of {settings['short_length']}, then {lengths}"
    planned = ""
    if settings.get("stop_after"):
        planned = f" of {settings['tokens']:,} that the learning rate was planned for"
    beside = ""
    if settings["next_sentence"]:
        beside = " and next-sentence prediction"
    elif settings.get("contrast"):
        beside = f" and, with weight {settings['contrast']:g}, the contrast of neighbouring sequences"
    rate = f"{PretrainSettings.model_validate(settings).peak_lr:g} (AdamW)"
    if settings["optimiser"] == "muon":
        rate = f"{settings['muon_lr']:g} (Muon, matrices) and {rate}"
    begun = f" ({'; '.join(informed)})" if informed else ""
    text = (
        f"{number}. {start}{begun}: masked-language modelling, {settings['mask_share']:.0%} masked{beside}, "
        f"on {_form(settings)}; "
        f"{training['tokens']:,} tokens{planned}, {lengths}; {training['steps']:,} steps of "
        f"{settings['batch_size'] * settings['length'] * settings['accumulate']:,} tokens, peak rate {rate}, "
        f"seed {settings['seed']}"
    )
    return textwrap.fill(text, width=118, subsequent_indent="   ")


def _form(settings: dict[str, Any]) -> str:
    return "pairs of passages" if settings["next_sentence"] else "packed text"


def card(name: str, record: dict[str, Any], config: Any, rounded_loss: float, scores: str) -> str:
    phases, points = phases_of(record), curve_of(record)
    shown = [points[i] for i in sorted({round(k * (len(points) - 1) / 15) for k in range(16)})]
    curve = [f"| {row['tokens']:,} | {row['form']} | {row['held_out_loss']:.3f} |" for row in shown]
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
        phases="\n".join(told(phase, number) for number, phase in enumerate(phases, 1)),
        tokens=sum(phase["training"]["tokens"] for phase in phases),
        hours=sum(phase["training"]["seconds"] for phase in phases) / 3600,
        form=_form(record["settings"]),
        length=record["settings"]["length"],
        torch=record["versions"]["torch"],
        transformers=record["versions"]["transformers"],
        held_out=record["held_out_loss"],
        rounded=rounded_loss,
        curve="\n".join(curve),
        scores=scores,
    )


def draw(record: dict[str, Any], path: Path) -> None:
    """The held-out loss over the tokens seen, a line for each kind of held-out sequences, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mtl_tickets"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    points = curve_of(record)
    colours: dict[str, str] = {}
    # a line ends where its phase does
    for phase, form in dict.fromkeys((row["phase"], row["form"]) for row in points):
        here = [row for row in points if (row["phase"], row["form"]) == (phase, form)]
        label = None if form in colours else form
        colour = colours.setdefault(form, f"C{len(colours)}")
        axes.plot(
            [row["tokens"] / 1e6 for row in here],
            [row["held_out_loss"] for row in here],
            marker="o",
            markersize=3,
            color=colour,
            label=label,
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
    parser.add_argument("--scores", type=Path, required=True, help="a file with the table of scores")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    ship(given.source, given.target, given.rounded_loss, given.scores.read_text(encoding="utf-8"))
    if given.figure:
        draw(cast(dict[str, Any], read_json(given.source / RECORD)), given.figure)


if __name__ == "__main__":
    main()
