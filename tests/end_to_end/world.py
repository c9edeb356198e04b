"""A whole small world on disk: three learnable tasks in files, a random encoder with its tokenizer, an experiment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from transformers import BertConfig

from mtl_tickets.model.encoders import random_encoder
from mtl_tickets.pretraining.vocabulary import save_tokenizer, train_vocabulary

NOUNS = ["cat", "dog", "tree", "house", "river", "stone", "bird", "ship"]
GOOD, BAD = ["fine", "good", "lovely"], ["awful", "poor", "bad"]


def write_world(folder: Path) -> Path:
    """Everything in ``folder``; gives the path of the experiment file."""
    rng = np.random.default_rng(7)
    _feelings(folder, rng)
    _likeness(folder, rng)
    _same(folder, rng)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
        initializer_range=0.1,
    )
    random_encoder(config, seed=3).save_pretrained(folder / "encoder")
    sentences = [" ".join(["the", noun, "is", word]) for noun in NOUNS for word in GOOD + BAD]
    save_tokenizer(train_vocabulary(lambda: sentences, 60), folder / "encoder")
    experiment = {
        "name": "small-world",
        "encoder": {"name": str(folder / "encoder"), "max_length": 24},
        "tasks": ["feelings", "likeness", "same"],
        "output": str(folder / "runs"),
        "cache": str(folder / "cache"),
        "recipe": {
            "kind": "super_tickets",
            "train": {
                "epochs": 2,
                "optimiser": {"lr": 1e-3},
                "batches": {"size": 16},
                "checkpoint_seconds": 0,
            },
            "score": {"batch_size": 16},
            "ladder": {"kind": "free", "heads": [0.25, 0.5], "ffn": [0.0, 0.5]},
            "controls": ["random"],
            "sharing": ["own", "adaptive", "union"],
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return path


def write_text(folder: Path) -> Path:
    """Plain text in the world's words, some lines to a document."""
    lines = [
        f"the {one} is {word} and the {other} is {end}"
        for one in NOUNS[:4]
        for other in NOUNS[4:]
        for word, end in zip(GOOD + BAD, BAD + GOOD, strict=True)
    ]
    path = folder / "text.txt"
    path.write_text("\n\n".join("\n".join(lines[i : i + 3]) for i in range(0, len(lines), 3)), encoding="utf-8")
    return path


def _feelings(folder: Path, rng: np.random.Generator) -> None:
    lines = {"train": 90, "dev": 30}
    for split, rows in lines.items():
        with open(folder / f"feelings-{split}.tsv", "w", encoding="utf-8") as file:
            file.write("text\tlabel\n")
            for _ in range(rows):
                good = rng.random() < 0.5
                file.write(f"the {rng.choice(NOUNS)} is {rng.choice(GOOD if good else BAD)}\t{int(good)}\n")
    _task(
        folder,
        name="feelings",
        labels=["negative", "positive"],
        metrics=["accuracy"],
        source={
            "kind": "files",
            "text": ["text"],
            "label": "label",
            "label_map": {"0": "negative", "1": "positive"},
            "splits": {split: f"feelings-{split}.tsv" for split in lines},
        },
    )


def _likeness(folder: Path, rng: np.random.Generator) -> None:
    lines = {"train": 60, "dev": 24}
    for split, rows in lines.items():
        with open(folder / f"likeness-{split}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(rows):
                one, two = rng.choice(NOUNS, 3), rng.choice(NOUNS, 3)
                row = {"a": " ".join(one), "b": " ".join(two), "score": float(len(set(one) & set(two)))}
                file.write(json.dumps(row) + "\n")
    _task(
        folder,
        name="likeness",
        kind="regression",
        metrics=["pearson", "spearman"],
        source={
            "kind": "files",
            "text": ["a", "b"],
            "label": "score",
            "splits": {split: f"likeness-{split}.jsonl" for split in lines},
        },
    )


def _same(folder: Path, rng: np.random.Generator) -> None:
    lines = {"train": 40, "dev": 24}
    for split, rows in lines.items():
        with open(folder / f"same-{split}.csv", "w", encoding="utf-8") as file:
            file.write("first,second,label\n")
            for _ in range(rows):
                first, same = rng.choice(NOUNS), rng.random() < 0.5
                second = first if same else rng.choice([noun for noun in NOUNS if noun != first])
                file.write(f"the {first} is here,the {second} is here,{'yes' if same else 'no'}\n")
    _task(
        folder,
        name="same",
        labels=["no", "yes"],
        metrics=["accuracy", "f1"],
        source={
            "kind": "files",
            "text": ["first", "second"],
            "label": "label",
            "splits": {split: f"same-{split}.csv" for split in lines},
        },
    )


def _task(folder: Path, source: dict[str, object], **settings: object) -> None:
    task = {**settings, "splits": {"train": "labelled", "dev": "labelled"}, "sources": {"files": source}}
    (folder / f"{settings['name']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
