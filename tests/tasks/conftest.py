"""A tokenizer made on the spot, and tasks written to disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizer

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "not", "and", "it", "##s", "##ing", "run", ".", '"']


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    """A WordPiece tokenizer that knows a few words and every letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    return BertTokenizer(str(file))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """write("sub/name.txt", content) -> its path below tmp_path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
