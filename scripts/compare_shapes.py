"""Encoders of several shapes and vocabularies, pretrained at equal compute.

    python scripts/compare_shapes.py 4x256@8192 4x224@12288 --tokens 8000000 --sample TEXT -- --text PACKS [...]

A shape is LAYERSxHIDDEN@VOCABULARY. The first sees ``--tokens``; each other one as many as cost the same number of
multiply-adds. What follows ``--`` is handed to ``mtl-tickets pretrain``. Stopped, it goes on where it was.

Losses a masked token of different vocabularies cannot be compared: nats a character are, the held-out loss divided by
the characters of a token, counted in TEXT. (Of masked-language modelling it is no likelihood; longer words are harder
to guess from what is around them, which speaks against larger vocabularies.)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from mtl_tickets.files import read_json
from mtl_tickets.pretraining.pretrain import RECORD

MASKED, LENGTH, HEADS = 0.2, 64, 8


@dataclass(frozen=True)
class Shape:
    """What is compared. ``hidden`` is the width of a token's vector; feed-forward blocks are four times as wide."""

    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def of(cls, name: str) -> Shape:
        found = re.fullmatch(r"(\d+)x(\d+)@(\d+)", name)
        if found is None:
            raise argparse.ArgumentTypeError(f"must be LAYERSxHIDDEN@VOCABULARY, such as 4x256@8192; found {name!r}")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.layers}x{self.hidden}@{self.vocabulary}"

    @property
    def multiply_adds(self) -> float:
        """Of a forward pass, a token: layers, attention, and the output layer where tokens are masked."""
        layer = 12 * self.hidden**2 + 2 * LENGTH * self.hidden
        return self.layers * layer + MASKED * (self.hidden**2 + self.hidden * self.vocabulary)

    def tokens(self, first: Shape, tokens: int) -> int:
        """That cost this shape what ``tokens`` cost ``first``."""
        return round(tokens * first.multiply_adds / self.multiply_adds)


def pretrain(shape: Shape, tokens: int, folder: Path, arguments: list[str]) -> None:
    """Trains it in ``folder``, or goes on with that."""
    own = {
        "shape.layers": shape.layers,
        "shape.hidden": shape.hidden,
        "shape.heads": HEADS,
        "shape.positions": LENGTH,
        "length": LENGTH,
        "mask_share": MASKED,
    }
    settings = [part for name, value in own.items() for part in ("--set", f"{name}={value}")]
    budget = ["--vocabulary-size", str(shape.vocabulary), "--tokens", str(tokens)]
    command = [sys.executable, "-m", "mtl_tickets", "pretrain", str(folder), *budget, *settings, *arguments, "--resume"]
    subprocess.run(command, check=True)


def row(shape: Shape, folder: Path, sample: list[str]) -> str:
    """The shape's line of the table."""
    record = read_json(folder / RECORD)
    encoded = AutoTokenizer.from_pretrained(folder)(sample, add_special_tokens=False)["input_ids"]
    characters = sum(map(len, sample)) / sum(map(len, encoded))
    loss, seen = record["held_out_loss"], record["training"]
    cells = [
        f"{shape.layers} x {shape.hidden}",
        f"{shape.vocabulary:,}",
        f"{2 * record['parameters'] / 1e6:.1f}",
        f"{seen['tokens'] / 1e6:.1f}",
        f"{seen['tokens'] * shape.multiply_adds / 1e12:.1f}",
        f"{seen['seconds'] / 60:.0f}",
        f"{loss:.3f}",
        f"{characters:.2f}",
        f"{loss / characters:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADINGS = (
    "layers x width",
    "vocabulary",
    "MB in bf16",
    "M tokens",
    "10^12 multiply-adds forward",
    "minutes",
    "nats a masked token",
    "characters a token",
    "nats a character",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", type=Shape.of)
    parser.add_argument("--tokens", type=int, required=True, help="tokens that the first shape sees")
    parser.add_argument("--sample", type=Path, required=True, help="text in which a token's characters are counted")
    parser.add_argument("--output", type=Path, default=Path("runs/shapes"))
    own, theirs = sys.argv[1:], []
    if "--" in own:
        own, theirs = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    shapes: list[Shape] = arguments.shapes
    for shape in shapes:
        pretrain(shape, shape.tokens(shapes[0], arguments.tokens), arguments.output / str(shape), theirs)
    sample = arguments.sample.read_text(encoding="utf-8").splitlines()
    print(f"| {' | '.join(HEADINGS)} |\n|{'---:|' * len(HEADINGS)}")
    for shape in shapes:
        print(row(shape, arguments.output / str(shape), sample))


if __name__ == "__main__":
    main()
