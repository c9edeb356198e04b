"""WordPiece vocabularies: trained on text, or read from a ``vocab.txt``; saved as a transformers tokenizer folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mtl_tickets.errors import DataError, InputError, Problem
from mtl_tickets.files import write_text

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUING = "##"
# characters of the alphabet at most; the rarest of a large text are mostly foreign names and noise
ALPHABET = 1000


def train_vocabulary(
    lines: Callable[[], Iterable[str]], size: int, lower_case: bool = True, positions: int = 512
) -> Any:
    """A BERT tokenizer with at most ``size`` word pieces, trained on ``lines()``; the same text gives the same bytes.

    Pieces are merged by frequency (as `tokenizers` does it; the original WordPiece merges by likelihood).

    `tokenizers` numbers continuing characters in the order of a hash table, which differs from process to process, and
    breaks ties by number. All characters are therefore counted and entered here first, in a fixed order.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for character, count in _characters(lines()).items():
        for normal in normalizer.normalize_str(character):
            if not normal.isspace():
                counts[normal] += count
    if not counts:
        raise DataError(Problem("there is no text to train a vocabulary on"))
    # half of the pieces at most are single characters, alone and continuing
    most = min(ALPHABET, max(1, (size - len(SPECIALS)) // 4))
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:most])
    # punctuation is a word of its own and never continues one
    continuing = [CONTINUING + c for c in alphabet if len(splitter.pre_tokenize_str("a" + c)) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*SPECIALS, *alphabet, *continuing],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUING,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    learner.train_from_iterator(lines(), trainer)
    numbers = learner.get_vocab()
    return _bert_tokenizer(sorted(numbers, key=numbers.__getitem__), lower_case, positions)


def read_vocabulary(path: Path, lower_case: bool = True, positions: int = 512) -> Any:
    """The BERT tokenizer of a ``vocab.txt``. Raises :class:`DataError` where :func:`read_pieces` does."""
    return _bert_tokenizer(read_pieces(path), lower_case, positions)


def read_pieces(path: Path) -> list[str]:
    """The pieces of a ``vocab.txt``, a piece on a line. Raises :class:`DataError` where pieces are missing or stand
    twice, or the file cannot be read."""
    try:
        # splitlines would also end a line at characters that may be pieces themselves
        pieces = path.read_bytes().decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(Problem(f"must be a readable vocab.txt ({error.strerror})", str(path))) from None
    except UnicodeDecodeError as error:
        raise DataError(Problem("must be UTF-8 text", str(path), f"byte {error.start}")) from None
    missing = [special for special in SPECIALS if special not in pieces]
    if missing:
        raise DataError(Problem(f"a vocabulary must have the pieces {', '.join(missing)}", str(path)))
    twins = [piece for piece, count in Counter(pieces).items() if count > 1]
    if twins:
        raise DataError(Problem("a piece may stand only once", str(path), found=twins[:5]))
    return pieces


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes the files that ``AutoTokenizer.from_pretrained`` reads, and ``vocab.txt`` for a WordPiece vocabulary."""
    tokenizer.save_pretrained(str(folder))
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece":
        numbers = tokenizer.get_vocab()
        write_text(folder / "vocab.txt", "".join(piece + "\n" for piece in sorted(numbers, key=numbers.__getitem__)))


def require_specials(tokenizer: Any, name: str) -> None:
    """Raises :class:`InputError` where the tokenizer lacks a token that pre-training needs."""
    missing = [f"{kind}_token" for kind in ("cls", "sep", "mask") if getattr(tokenizer, f"{kind}_token_id") is None]
    if missing:
        raise InputError(Problem(f"the tokenizer must have {', '.join(missing)}", name))


def _bert_tokenizer(pieces: list[str], lower_case: bool, positions: int) -> Any:
    from transformers import BertTokenizer

    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=lower_case, model_max_length=positions)


def _characters(lines: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    return counts
