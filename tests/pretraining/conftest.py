"""A small text with something to learn in it, and a vocabulary trained on it."""

from pathlib import Path

import numpy as np
import pytest

from mtl_tickets.pretraining.vocabulary import save_tokenizer, train_vocabulary

TOPICS = (
    ("cat", "purrs", "milk", "paws", "mouse", "sofa"),
    ("ship", "sails", "harbour", "waves", "captain", "anchor"),
    ("bread", "bakes", "oven", "flour", "crust", "butter"),
    ("train", "whistles", "station", "rails", "ticket", "driver"),
    ("tree", "grows", "leaves", "roots", "apple", "branch"),
)
LINES_IN_DOCUMENT = 8


def sentences(number: int, seed: int = 0) -> list[str]:
    """Lines of words; a document keeps to one topic, so that every word tells which others are likely."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(len(TOPICS), size=number // LINES_IN_DOCUMENT + 1)
    return [" ".join(rng.choice(TOPICS[topics[i // LINES_IN_DOCUMENT]], size=8)) + " ." for i in range(number)]


def written(path: Path, lines: list[str]) -> Path:
    starts = range(0, len(lines), LINES_IN_DOCUMENT)
    blocks = ["\n".join(lines[i : i + LINES_IN_DOCUMENT]) for i in starts]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("text") / "topics.txt", sentences(1500))


@pytest.fixture(scope="session")
def tokenizer():
    return train_vocabulary(lambda: sentences(1500), 200, positions=32)


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return folder
