"""Arrays that are longer than memory: what is added lies in memory while it is little, else in a temporary file."""

from __future__ import annotations

import itertools
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike

# bytes of one array that stay in memory
MOST = 1 << 24


class Spool:
    """A flat array of ``dtype`` that grows. More than :data:`MOST` bytes lie in a file without a name in the folder for
    temporary files (``TMPDIR``), from where the system reads what is looked at and takes it from memory again; the file
    is gone with the array."""

    def __init__(self, dtype: DTypeLike):
        self.dtype = np.dtype(dtype)
        self._file = tempfile.SpooledTemporaryFile(max_size=MOST)  # noqa: SIM115  (closed where the array is made)

    def add(self, values: Any) -> None:
        """Values of any array or sequence, behind those that are there."""
        with _place_named():
            self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data)

    def array(self) -> np.ndarray:
        """All that was added, which cannot be written to; nothing can be added any more."""
        with self._file as file:
            size = file.tell()
            if size <= MOST:
                file.seek(0)
                return np.frombuffer(file.read(), dtype=self.dtype)
            with _place_named():
                file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype=self.dtype)


@contextmanager
def _place_named() -> Iterator[None]:
    """An error of a file without a name says in which folder it is."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


class TextColumn(Sequence[str]):
    """N texts. Text i is the UTF-8 in ``content[ends[i - 1]:ends[i]]`` (uint8; int64 [N])."""

    # texts that are decoded at a time when all of them are gone through
    AT_ONCE = 1024

    def __init__(self, content: np.ndarray, ends: np.ndarray):
        self._content, self._ends = content, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """Raises UnicodeEncodeError for half of a surrogate pair."""
        if isinstance(texts, cls):
            return texts
        made = TextSpool()
        remaining = iter(texts)
        while some := list(itertools.islice(remaining, cls.AT_ONCE)):
            made.add(some)
        return made.texts()

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, which: int) -> str: ...
    @overload
    def __getitem__(self, which: slice) -> list[str]: ...
    def __getitem__(self, which: int | slice) -> str | list[str]:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            return self._between(start, stop) if step == 1 else [self[i] for i in range(start, stop, step)]
        i = range(len(self))[which]
        return self._content[self._end(i - 1) : self._end(i)].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        for some in self._some():
            yield from some

    def __eq__(self, other: object) -> bool:
        """Whether it is a sequence of the same texts."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        more = f", and {len(self) - 5:,} more" if len(self) > 5 else ""
        return f"TextColumn({self[:5]!r}{more})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TextColumn, (np.array(self._content), np.array(self._ends))

    def characters(self) -> Iterator[np.ndarray]:
        """int64: how many characters each text has, in pieces."""
        for some in self._some():
            yield np.fromiter(map(len, some), dtype=np.int64, count=len(some))

    def bytes(self, piece: int = 1 << 20) -> Iterator[memoryview]:
        """The UTF-8 of all texts, one behind the other, in pieces."""
        for start in range(0, len(self._content), piece):
            yield self._content[start : start + piece].data

    def fitting(self, start: int, rows: int, size: int) -> int:
        """Before which text to stop so that, from ``start`` on, there are at most ``rows`` of at most ``size`` bytes
        together, but one at least."""
        ends = self._ends[start : start + rows]
        return start + max(1, int(np.searchsorted(ends, self._end(start - 1) + size, side="right")))

    def _some(self) -> Iterator[list[str]]:
        for start in range(0, len(self), self.AT_ONCE):
            yield self._between(start, min(start + self.AT_ONCE, len(self)))

    def _end(self, i: int) -> int:
        return int(self._ends[i]) if i >= 0 else 0

    def _between(self, start: int, stop: int) -> list[str]:
        """Those from ``start`` to before ``stop``, decoded together: most text is of one byte a character."""
        if start >= stop:
            return []
        first = self._end(start - 1)
        content = self._content[first : self._end(stop - 1)].tobytes()
        ends = (self._ends[start:stop] - first).tolist()
        spans = zip([0, *ends], ends, strict=False)
        if content.isascii():
            text = content.decode()
            return [text[a:b] for a, b in spans]
        return [content[a:b].decode() for a, b in spans]


class TextSpool:
    """Texts that come in pieces."""

    def __init__(self) -> None:
        self._content, self._ends, self._size = Spool(np.uint8), Spool(np.int64), 0

    def add(self, texts: Sequence[str]) -> None:
        """Raises UnicodeEncodeError for half of a surrogate pair; nothing is added then."""
        encoded = [text.encode() for text in texts]
        ends = self._size + np.cumsum([len(one) for one in encoded], dtype=np.int64)
        self._content.add(np.frombuffer(b"".join(encoded), dtype=np.uint8))
        self._ends.add(ends)
        self._size = int(ends[-1]) if len(ends) else self._size

    def texts(self) -> TextColumn:
        """All that were added; nothing can be added any more."""
        return TextColumn(self._content.array(), self._ends.array())
