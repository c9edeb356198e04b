"""Checked settings, with every problem of a file reported at once.

A settings class sits beside the thing it sets and derives from :class:`Settings`. This module turns pydantic's
findings about a :class:`~mtl_tickets.documents.Document` into :class:`~mtl_tickets.errors.Problem` values with file,
line, key path, rule, value found and nearest valid name.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic

from mtl_tickets.documents import Document, KeyPath, dotted, read_yaml
from mtl_tickets.errors import ConfigError, Problem, nearest
from mtl_tickets.registry import Registry

__all__ = [
    "Document",
    "InvalidSetting",
    "KeyPath",
    "Settings",
    "check",
    "dotted",
    "member_of",
    "named",
    "one_of",
    "problems_of",
    "read_yaml",
]


class Settings(pydantic.BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change, assigned defaults are checked too."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def non_defaults(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON-able values. Hashes of these name runs, so that a new
        option with a default orphans no old run."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @pydantic.model_serializer(mode="wrap")
    def _keep_kind(
        self, inner: pydantic.SerializerFunctionWrapHandler, info: pydantic.SerializationInfo
    ) -> dict[str, Any]:
        """``kind`` tells classes apart: it is always a default, but two kinds of defaults are not the same settings."""
        content = inner(self)
        if info.exclude_defaults and "kind" in type(self).model_fields:
            return {"kind": getattr(self, "kind"), **content}  # noqa: B009 (subclasses have it)
        return content


S = TypeVar("S", bound=Settings)


def check(model: type[S], document: Document) -> S:
    """The document as ``model``; a :class:`ConfigError` with all problems where it does not fit."""
    try:
        return model.model_validate(document.data)
    except pydantic.ValidationError as error:
        raise ConfigError(problems_of(error, model, document)) from None


def one_of(registry: Registry[Any]) -> Any:
    """The type of a field that holds any member of a registry of settings classes, told apart by ``kind``.

    In YAML a bare name stands for the member with its defaults: ``own`` is ``{kind: own}``.
    """
    members = tuple(member for _, member in registry)
    union = Annotated[typing.Union[members], pydantic.Discriminator("kind")] if len(members) > 1 else members[0]  # noqa: UP007
    return Annotated[union, pydantic.BeforeValidator(lambda v: {"kind": v} if isinstance(v, str) else v)]


def member_of(registry: Registry[Any], value: Any) -> Any:
    """A name, a mapping with ``kind``, or a member itself -> the member; :class:`ConfigError` with all problems."""
    kind = value if isinstance(value, str) else value.get("kind") if isinstance(value, Mapping) else None
    if kind is not None and kind not in registry.names():
        hint = nearest(kind, registry.names())
        raise ConfigError(Problem(f"unknown {registry.kind}", file=registry.kind, found=kind, hint=hint))
    try:
        return pydantic.TypeAdapter(one_of(registry)).validate_python(value)
    except pydantic.ValidationError as error:
        members = [member for _, member in registry]
        data = dict(value) if isinstance(value, Mapping) else {}
        raise ConfigError(problems_of(error, members, Document(registry.kind, data, {}))) from None


def named(value: str, valid: Sequence[str], what: str) -> str:
    """For field validators: ``value`` where it is valid, else an error with the nearest valid name."""
    if value not in valid:
        raise InvalidSetting(Problem(f"unknown {what}", found=value, hint=nearest(value, valid)))
    return value


class InvalidSetting(ConfigError, ValueError):
    """For validators: a :class:`ConfigError` that pydantic takes for a failed validation.

    The place of each problem is a key inside the settings being validated (or empty: the settings themselves).
    """


def problems_of(error: pydantic.ValidationError, model: Any, document: Document) -> list[Problem]:
    """Every finding of pydantic in our words. ``model`` is the settings class, or a list of them, that was checked.

    One value, one problem: where a value may be one of several types, pydantic reports what each of them has against
    it. A type that the value plainly is not meant to be (text, where a mapping was given) is left out; what remains
    about the same value is said in one sentence.
    """
    findings = [(_real_path(finding, document.data), finding) for finding in error.errors(include_url=False)]
    spoken: dict[KeyPath, list[Problem]] = {}
    for path, finding in findings:
        if _wrong_branch(path, finding, findings):
            continue
        place, told = _in_our_words(path, finding, model, document)
        spoken.setdefault(place, []).extend(told)
    return [problem for problems in spoken.values() for problem in _merged(problems)]


def _in_our_words(path: KeyPath, finding: Any, model: Any, document: Document) -> tuple[KeyPath, list[Problem]]:
    kind, found, context = finding["type"], finding.get("input"), finding.get("ctx", {})
    message = finding["msg"].removeprefix("Value error, ")
    rule, hint = re.sub(r"^Input should ", "must ", message), ""
    if kind == "extra_forbidden":
        found = path[-1] if path else found
        rule, hint = "unknown key", nearest(found, _keys_at(model, finding["loc"][:-1]))
    elif kind == "missing":
        rule, found = "this key is required", None
    elif kind in ("literal_error", "enum"):
        valid = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        rule, hint = "must be one of the known names" if valid else rule, nearest(found, valid) if valid else ""
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, context["discriminator"].strip("'"))
        found = context.get("tag")
        valid = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
        rule = "must be one of the known kinds" if valid else "this key is required"
        hint = nearest(found, valid)
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        rule = "must be a mapping of keys to values"
    elif isinstance(context.get("error"), ConfigError):
        inner = context["error"].problems
        return path, [
            problem
            if problem.file
            else document.problem((*path, *_keys(problem.place)), problem.rule, problem.found, problem.hint)
            for problem in inner
        ]
    return path, [document.problem(path, rule[:1].lower() + rule[1:], found, hint)]


def _wrong_branch(path: KeyPath, finding: Any, findings: Sequence[tuple[KeyPath, Any]]) -> bool:
    """Whether ``finding`` only says that a value is not of one type while another type has more to say about it."""
    if not _is_type_mismatch(finding):
        return False
    return any(
        other is not finding and place[: len(path)] == path and (len(place) > len(path) or not _is_type_mismatch(other))
        for place, other in findings
    )


def _is_type_mismatch(finding: Any) -> bool:
    kind, container = finding["type"], isinstance(finding.get("input"), Mapping | list)
    return kind.endswith("_type") or (container and kind in ("literal_error", "enum"))


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """Problems with one value, told once: ``must be a number, or one of the known names``."""
    merged: list[Problem] = []
    for problem in problems:
        last = merged[-1] if merged else None
        if last is None or not _about_the_same(last, problem):
            merged.append(problem)
        elif problem.rule not in last.rule:
            rule = f"{last.rule}, or {problem.rule.removeprefix('must be ')}"
            merged[-1] = Problem(rule, last.file, last.place, last.found, last.hint or problem.hint)
    return merged


def _about_the_same(one: Problem, two: Problem) -> bool:
    same = one.place == two.place and one.found is two.found
    return same and (one.rule == two.rule or (one.rule.startswith("must be ") and two.rule.startswith("must be ")))


def _real_path(finding: Any, data: Any) -> KeyPath:
    """The path of a finding in the data.

    pydantic puts the names of types and the tags of unions between the keys of ``loc``, where they may look like keys.
    Of the ways to leave some parts out, the one is right that ends at the very value pydantic has seen; where a
    validator has replaced that value, the longest is taken.
    """
    loc, missing = tuple(finding["loc"]), finding["type"] == "missing"
    ways = list(_ways(loc[:-1] if missing else loc, data))
    seen = finding.get("input")
    path, _ = max(ways, key=lambda way: (way[1] is seen, len(way[0])))
    return (*path, loc[-1]) if missing else path


def _ways(loc: Sequence[str | int], data: Any) -> Iterator[tuple[KeyPath, Any]]:
    if not loc:
        yield (), data
        return
    head, rest = loc[0], loc[1:]
    inside: list[Any] = []
    if isinstance(data, Mapping) and head in data:
        inside = [data[head]]
    elif isinstance(data, list | tuple) and isinstance(head, int):
        inside = list(data[head : head + 1])
    for content in inside:
        for path, value in _ways(rest, content):
            yield (head, *path), value
    yield from _ways(rest, data)


def _keys_at(model: Any, loc: Sequence[str | int]) -> list[str]:
    """The keys that are valid at ``loc`` inside ``model``."""
    models = _settings_in(model)
    for part in loc:
        tagged = [m for m in models if _is_tag_of(part, m)]
        inner = [
            c for m in models if part in m.model_fields for c in _settings_in(m.model_fields[str(part)].annotation)
        ]
        # an index, a mapping's key or the name of a wrapping validator leads to the same candidates
        models = tagged or inner or models
    return sorted({name for candidate in models for name in candidate.model_fields})


def _is_tag_of(part: str | int, model: type[pydantic.BaseModel]) -> bool:
    kind = model.model_fields.get("kind")
    return part == model.__name__ or (kind is not None and part in typing.get_args(kind.annotation))


def _settings_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """The settings classes an annotation leads to, through unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    inner = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    return [model for part in inner for model in _settings_in(part)]


def _keys(place: str) -> KeyPath:
    """``a.b[0]`` -> ``("a", "b", 0)``, the inverse of :func:`~mtl_tickets.documents.dotted`."""
    parts = re.findall(r"\[(\d+)\]|([^.\[\]]+)", place)
    return tuple(int(index) if index else key for index, key in parts)
