"""Text for pre-training: files or generated text -> one array of token ids, made once and kept.

Three kinds of source. Plain text (``.txt``, ``.txt.xz``): UTF-8, a paragraph on a line, a blank line between
documents. Token packs (``.u16``, ``.u16.xz``): little-endian uint16 ids of the tokenizer's vocabulary, documents
separated by its [SEP]; packs made with another WordPiece vocabulary are turned back into words first. The playground's
own text. All give documents, each followed by one [SEP].
"""

from __future__ import annotations

import glob
import itertools
import lzma
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from mtl_tickets.errors import DataError, InputError, Problem, nearest
from mtl_tickets.files import digest, file_digest, folder_written_whole, read_json, write_json
from mtl_tickets.pretraining.settings import PLAYGROUND_TEXT
from mtl_tickets.pretraining.vocabulary import SPECIALS, read_pieces
from mtl_tickets.tasks import playground
from mtl_tickets.tasks.encode import tokenizer_fingerprint

ENDINGS = (".txt", ".txt.xz", ".u16", ".u16.xz")
FORMAT = 2
LINES_AT_ONCE = 2000
PROBLEMS_SHOWN = 20
SEPARATOR = "[SEP]"


@dataclass(frozen=True)
class TokenText:
    """A text as token ids.

    ``ids``: uint16 or uint32 [tokens], mapped from a file. ``ends``: int64 [documents], where each document stops,
    its [SEP] included. ``lines``: int64 [lines], where each line stops, without the [SEP]; a pack's documents are one
    line. ``fingerprint`` names text and tokenizer.
    """

    ids: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class PlainText:
    """A ``.txt`` or ``.txt.xz`` file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        return file_digest(self.path)

    def lines(self) -> Iterator[str]:
        """The lines, without their ends. Raises :class:`DataError` naming the lines that are not UTF-8."""
        broken: list[Problem] = []
        with _opened(self.path) as file:
            for number, raw in enumerate(_whole(file, self.path), start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    found = raw[max(0, error.start - 20) : error.start + 10]
                    broken.append(Problem("must be UTF-8 text", self.name, f"line {number}", found))
                    if len(broken) == PROBLEMS_SHOWN:
                        break
                    continue
                if not broken:
                    yield line.rstrip("\r\n")
        if broken:
            raise DataError(broken)


@dataclass(frozen=True)
class PlaygroundText:
    """The text of the embedded playground: documents of two lines."""

    tokens: int

    @property
    def name(self) -> str:
        return PLAYGROUND_TEXT

    def fingerprint(self) -> str:
        # what the generator writes first names its version: whatever changes in its language shows there
        return digest([self.tokens, *playground.text(seed=0, tokens=min(self.tokens, 20_000))])

    def lines(self) -> Iterator[str]:
        for document in playground.passages(seed=0, tokens=self.tokens):
            yield from document
            yield ""


@dataclass(frozen=True)
class TokenPack:
    """A ``.u16`` or ``.u16.xz`` file. ``pieces``: the vocabulary it was made with, where that is another one."""

    path: Path
    pieces: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        return file_digest(self.path) if self.pieces is None else digest([file_digest(self.path), *self.pieces])

    def lines(self) -> Iterator[str]:
        """The documents as words, a document on a line, and the blank lines between them.

        Special tokens are left out, a word that was unknown to the packs' vocabulary too.
        """
        if self.pieces is None:
            rule = "token ids are no text"
            raise InputError(Problem(rule, self.name, hint="give packs_vocabulary, or the packs' own tokenizer"))
        ids = self.ids(len(self.pieces))
        pieces = np.array(self.pieces, dtype=object)
        special = np.isin(pieces, SPECIALS)
        for document in np.split(ids, np.flatnonzero(ids == self.pieces.index(SEPARATOR))):
            words = " ".join(pieces[document[~special[document]]]).replace(" ##", "")
            if words:
                yield words
                yield ""

    def ids(self, vocabulary: int) -> np.ndarray:
        """uint16 [tokens]. Raises :class:`DataError` where an id is not below ``vocabulary``."""
        with _opened(self.path) as file:
            content = b"".join(_whole(iter(lambda: file.read(1 << 20), b""), self.path))
        if len(content) % 2:
            rule = "must hold little-endian uint16 token ids, an even number of bytes"
            raise DataError(Problem(rule, self.name, found=len(content)))
        ids = np.frombuffer(content, dtype="<u2")
        above = np.flatnonzero(ids >= vocabulary)
        if len(above):
            rule = f"token ids must be below {vocabulary}, the size of the vocabulary ({len(above):,} are not)"
            hint = "is this the tokenizer the pack was made with?"
            raise DataError(Problem(rule, self.name, f"token {above[0] + 1}", int(ids[above[0]]), hint))
        return ids


Source = PlainText | PlaygroundText | TokenPack


def find_sources(text: Sequence[str], playground_tokens: int, packs_vocabulary: str | None = None) -> list[Source]:
    """The sources that names, patterns and the word ``playground`` stand for, in the order given.

    ``packs_vocabulary``: the ``vocab.txt`` of packs that were not made with the tokenizer. Raises :class:`DataError`
    with every name that stands for nothing.
    """
    pieces = None if packs_vocabulary is None else tuple(read_pieces(Path(packs_vocabulary)))
    sources: list[Source] = []
    problems: list[Problem] = []
    for name in text:
        if name == PLAYGROUND_TEXT:
            sources.append(PlaygroundText(playground_tokens))
            continue
        found = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else [name]
        if not found:
            problems.append(Problem("this pattern must match a file", name))
        for path in map(Path, found):
            if not path.is_file():
                near = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
                problems.append(Problem("this file must exist", str(path), hint=nearest(path.name, near)))
            elif not path.name.endswith(ENDINGS):
                problems.append(Problem(f"text must be in a file that ends in {', '.join(ENDINGS)}", str(path)))
            else:
                sources.append(TokenPack(path, pieces) if ".u16" in path.suffixes[-2:] else PlainText(path))
    if pieces is not None and not any(isinstance(source, TokenPack) for source in sources):
        problems.append(
            Problem("packs_vocabulary is for token packs (.u16, .u16.xz), and the text has none", found=text)
        )
    if problems:
        raise DataError(problems)
    return sources


def plain_lines(sources: Sequence[Source]) -> Iterator[str]:
    """All lines of text, for training a vocabulary. Raises :class:`InputError` for packs, whose ids are no text."""
    packs = [source for source in sources if isinstance(source, TokenPack) and source.pieces is None]
    if packs:
        rule = "a vocabulary cannot be trained on token ids"
        hint = "give the tokenizer that the packs were made with, or its vocab.txt as packs_vocabulary"
        raise InputError([Problem(rule, pack.name, hint=hint) for pack in packs])
    for source in sources:
        yield from source.lines()


def read_text(sources: Sequence[Source], tokenizer: Any, cache: Path) -> TokenText:
    """The sources as token ids, one after the other, kept under ``cache``/text and mapped from there.

    Raises :class:`DataError` for a file that breaks a rule, or where there is no text at all.
    """
    parts = [[type(source).__name__, source.fingerprint()] for source in sources]
    key = digest([FORMAT, tokenizer_fingerprint(tokenizer), parts], length=16)
    folder = cache / "text" / key
    if folder.is_dir():
        kept = _kept(folder, key)
        if kept is not None:
            return kept
        warnings.warn(f"{folder} is damaged and is made anew", stacklevel=2)
    dtype = np.dtype("<u2" if len(tokenizer) <= 1 << 16 else "<u4")
    ends: list[np.ndarray] = []
    lines: list[np.ndarray] = []
    tokens = 0
    with folder_written_whole(folder) as part:
        with open(part / "ids", "wb") as file:
            for source in sources:
                for ids, stops in _stretches(source, tokenizer):
                    file.write(ids.astype(dtype).tobytes())
                    ends.append(tokens + 1 + np.flatnonzero(ids == tokenizer.sep_token_id))
                    lines.append(tokens + stops)
                    tokens += len(ids)
        if not sum(map(len, lines)):
            raise DataError([Problem("must hold text", source.name) for source in sources])
        np.save(part / "ends.npy", np.concatenate(ends).astype(np.int64))
        np.save(part / "lines.npy", np.concatenate(lines).astype(np.int64))
        write_json(part / "text.json", {"tokens": tokens, "dtype": dtype.str, "sources": [s.name for s in sources]})
    made = _kept(folder, key)
    if made is None:
        raise DataError(Problem("what was just written cannot be read", str(folder)))
    return made


def _kept(folder: Path, key: str) -> TokenText | None:
    """What an earlier call wrote; None where a file is missing or has another size than it was given."""
    try:
        about = cast(dict[str, Any], read_json(folder / "text.json"))
        ids = np.memmap(folder / "ids", dtype=about["dtype"], mode="r")
        ends, lines = np.load(folder / "ends.npy"), np.load(folder / "lines.npy")
    except (InputError, OSError, ValueError, EOFError, KeyError):
        return None
    whole = len(ends) and len(lines) and len(ids) == about["tokens"] == ends[-1] > lines[-1]
    return TokenText(ids, ends, lines, key) if whole else None


def _stretches(source: Source, tokenizer: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids of one or more whole documents, [SEP] after each; and where in them each line stops."""
    separator = tokenizer.sep_token_id
    if isinstance(source, TokenPack) and source.pieces is None:
        ids = source.ids(len(tokenizer))
        if len(ids) and ids[-1] != separator:
            ids = np.append(ids, np.uint16(separator))
        stops = np.flatnonzero(ids == separator)
        # a separator straight behind another ends no line
        yield ids, stops[np.diff(stops, prepend=-1) > 1] if len(ids) else stops
        return
    document: list[int] = []
    stops_here: list[int] = []
    for line in itertools.chain(_tokenised(source.lines(), tokenizer), [None]):
        if line:
            document += line
            stops_here.append(len(document))
        elif line is None and document:
            yield np.array([*document, separator]), np.array(stops_here)
            document, stops_here = [], []


def _tokenised(lines: Iterable[str], tokenizer: Any) -> Iterator[list[int] | None]:
    """The ids of each line, None for a blank one. Words such as ``[MASK]`` in a text are text."""
    lines = iter(lines)
    while batch := list(itertools.islice(lines, LINES_AT_ONCE)):
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for line, ids in zip(batch, encoded["input_ids"], strict=True):
            yield ids if line.strip() else None


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, lzma.open(path, "rb") if path.suffix == ".xz" else open(path, "rb"))


def _whole(pieces: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """The pieces of a file; a :class:`DataError` where its compression is broken or the file cannot be read."""
    try:
        yield from pieces
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(Problem(f"must be a whole xz file ({error})", str(path))) from None
    except OSError as error:
        raise DataError(Problem(f"must be readable ({error})", str(path))) from None
