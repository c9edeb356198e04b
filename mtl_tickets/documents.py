"""YAML documents that remember where every key stands, so that an error can name file, line and key.

The YAML read here is the core schema of YAML 1.2: ``yes`` and ``no`` are text (and can be labels), ``1e-5`` is a
number, ``010`` is ten, ``12:30`` and dates are text. Duplicate keys are errors. ``include:`` merges other files below
a file's own keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl_tickets.errors import ConfigError, Problem, nearest

# what no configuration comes near to: bytes of a file, values in it (aliases multiply), levels of nesting, digits
MOST_BYTES, MOST_VALUES, MOST_LEVELS, MOST_DIGITS = 2**20, 50_000, 64, 300

KeyPath = tuple[str | int, ...]
Origins = dict[KeyPath, tuple[str, int]]


class Document:
    """A YAML mapping together with where each key stands (for errors).

    ``data`` is plain Python, its keys are text; ``origin[key_path]`` is ``(file, line)``.
    """

    def __init__(self, file: str, data: dict[str, Any], origin: Origins):
        self.file = file
        self.data = data
        self.origin = origin

    def problem(self, path: KeyPath, rule: str, found: object = None, hint: str = "") -> Problem:
        """A problem at ``path``, placed at the nearest key that stands in a file."""
        file, line = self.file, 0
        for length in range(len(path), 0, -1):
            if path[:length] in self.origin:
                file, line = self.origin[path[:length]]
                break
        place = dotted(path) + (f" (line {line})" if line else "")
        return Problem(rule, file=file, place=place, found=found, hint=hint)

    def override(self, assignments: Sequence[str]) -> Document:
        """A copy with ``a.b=c`` assignments applied; values are read as YAML, list items are named by their number.

        Raises :class:`ConfigError` with all assignments that cannot be read or have no place.
        """
        changed = Document(self.file, _copy(self.data), dict(self.origin))
        problems: list[Problem] = []
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not all(part.strip() for part in key.split(".")):
                problems.append(Problem("must have the form key.path=value", file="--set", found=assignment))
                continue
            try:
                value = _parse(text, "--set").data
                path = _assign(changed.data, [part.strip() for part in key.split(".")], value)
            except ConfigError as error:
                problems += error.problems
            except LookupError:
                problems.append(Problem("no such place in the file", file="--set", found=assignment))
            else:
                _forget(changed.origin, path)
                changed.origin[path] = ("--set", 0)
        if problems:
            raise ConfigError(problems)
        return changed


def read_yaml(path: Path, search: Sequence[Path] = ()) -> Document:
    """Reads a YAML mapping. ``include: other.yaml`` (a name or a list, relative to the file, then to ``search``)
    is merged below the file's own keys, later names above earlier ones: mappings merge key by key, everything else
    replaces.

    Raises :class:`ConfigError` for a missing file, broken UTF-8 or YAML, duplicate keys, a non-mapping, a circle.
    """
    return _read(path, search, ())


def one_line(value: Any) -> str:
    """A value as YAML in one line, as after ``--set``."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()


def dotted(path: Sequence[str | int]) -> str:
    """``("tasks", 0, "name")`` -> ``tasks[0].name``"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _read(path: Path, search: Sequence[Path], above: tuple[Path, ...]) -> Document:
    file = str(path)
    if path.resolve() in above:
        circle = " -> ".join(p.name for p in (*above, path))
        raise ConfigError(Problem("an include must not lead back to itself", file=file, found=circle))
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            rule = f"a configuration must not have more than {MOST_BYTES:,} bytes"
            raise ConfigError(Problem(rule, file=file, found=size))
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            Problem("this file must exist", file=file, hint=nearest(path.name, _yaml_names([path.parent])))
        ) from None
    except IsADirectoryError:
        raise ConfigError(Problem("must be a file, not a folder", file=file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(Problem("must be UTF-8 text", file=file, place=f"byte {error.start}")) from None
    except (OSError, ValueError) as error:  # a name with a NUL is none
        raise ConfigError(Problem(f"must be readable ({getattr(error, 'strerror', error)})", file=file)) from None
    own = _parse(text, file)
    own.data = {} if own.data is None else own.data
    if not isinstance(own.data, dict):
        raise ConfigError(Problem("must be a mapping of keys to values", file=file, found=own.data))
    included = own.data.pop("include", [])
    names = [included] if isinstance(included, str) else included
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(own.problem(("include",), "must be the name of a file or a list of names", included))
    for name in reversed(names):
        folders = [path.parent, *search]
        found = next((folder / name for folder in folders if os.path.isfile(folder / name)), None)
        if found is None:
            hint = nearest(name, _yaml_names(folders))
            raise ConfigError(own.problem(("include",), "the included file must exist", name, hint))
        own = _merged(_read(found, search, (*above, path.resolve())), own)
    return own


def _parse(text: str, file: str) -> Document:
    """One YAML value of any type with its origins; :class:`ConfigError` where the text is no such thing."""
    document = Document(file, {}, {})
    duplicates: list[Problem] = []
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            document.data = None  # type: ignore[assignment]  # the caller decides what an empty text means
        else:
            document.data = _Builder(loader, document, duplicates).build(node, ())
    except yaml.YAMLError as error:
        raise ConfigError(Problem(f"must be YAML ({_mark(error)})", file=file)) from None
    except RecursionError:  # of PyYAML, which descends before we count
        raise ConfigError(Problem(f"must not be nested deeper than {MOST_LEVELS} levels", file=file)) from None
    if duplicates:
        raise ConfigError(duplicates)
    return document


class _Loader(yaml.SafeLoader):
    """SafeLoader with the types of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way)


for _tag, _first, _pattern in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("-+0123456789"), r"[-+]?[0-9]+|0x[0-9a-fA-F]+"),
    ("float", list("-+.0123456789"), r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"),
    ("merge", ["<"], r"<<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _whole_number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MOST_DIGITS:
        raise ValueError(f"a whole number must not have more than {MOST_DIGITS} digits")
    return int(node.value, 16 if node.value.startswith("0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


class _Builder:
    """Plain Python from YAML nodes, noting the line of every key."""

    def __init__(self, loader: _Loader, document: Document, duplicates: list[Problem]):
        self.loader = loader
        self.document = document
        self.duplicates = duplicates
        self.open: list[yaml.Node] = []
        self.built = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.origin.setdefault(path, (self.document.file, node.start_mark.line + 1))
        if node in self.open:
            raise _error("an alias must not stand inside what it names", node)
        self.built += 1
        if self.built > MOST_VALUES:
            raise _error(f"there must not be more than {MOST_VALUES:,} values, those of aliases counted", node)
        if len(self.open) >= MOST_LEVELS:
            raise _error(f"must not be nested deeper than {MOST_LEVELS} levels", node)
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            return self.loader.construct_object(node, deep=True)
        except ValueError as error:  # an explicit tag the text does not fit: !!int abc
            raise _error(str(error), node) from None
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _error("'<<' is not supported: use include", key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise _error("a key must be text", key_node)
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in mapping:
                at = f"{dotted((*path, key))} (line {line})"
                self.duplicates.append(Problem("a key may stand only once", self.document.file, at, key))
            self.document.origin[(*path, key)] = (self.document.file, line)
            mapping[key] = self.build(value_node, (*path, key))
        return mapping


def _merged(base: Document, own: Document) -> Document:
    origin = dict(base.origin)

    def merge(low: Any, high: Any, path: KeyPath) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            result = dict(low)
            for key, value in high.items():
                result[key] = merge(low[key], value, (*path, key)) if key in low else value
            return result
        _forget(origin, path)
        return high

    data = merge(base.data, own.data, ())
    origin.update(own.origin)
    return Document(own.file, data, origin)


def _forget(origin: Origins, path: KeyPath) -> None:
    for place in [place for place in origin if place[: len(path)] == path]:
        del origin[place]


def _assign(data: Any, keys: Sequence[str], value: Any) -> KeyPath:
    """Sets ``value``; mappings on the way are made where there is nothing. LookupError where the way leads nowhere."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(data, dict):
            step: str | int = key
            if not last and data.get(key) is None:
                data[key] = {}
        elif isinstance(data, list) and key.isdecimal() and int(key) < len(data):
            step = int(key)
        else:
            raise LookupError(key)
        path = (*path, step)
        if last:
            data[step] = value
        else:
            data = data[step]
    return path


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _yaml_names(folders: Iterable[Path]) -> list[str]:
    return sorted({file.name for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")})


def _error(text: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {text}" if mark else text
