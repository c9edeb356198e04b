"""name -> object, for everything that comes in kinds: scores, sharing rules, samplers, sources, recipes, ...

A registry knows the package its members live in and imports that package's modules on the first look-up. A new member
is therefore one new file that registers itself; there is no second list to keep.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from mtl_tickets.errors import InputError, MtlTicketsError, Problem, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Members of one kind, by name.

    ``kind`` is the word used in errors ("sharing rule"); ``package`` the dotted name of the package (or module) whose
    import registers the members.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self._package = package
        self._members: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters an object under ``name``. Raises if the name is taken."""

        def enter(member: T) -> T:
            if name in self._members:
                raise MtlTicketsError(f"{self.kind} {name!r} is registered twice: {self._members[name]!r}, {member!r}")
            self._members[name] = member
            return member

        return enter

    def get(self, name: str) -> T:
        """The member called ``name``; an :class:`InputError` with the nearest names where there is none."""
        self._load()
        if not isinstance(name, str) or name not in self._members:
            raise InputError(Problem(f"unknown {self.kind}", found=name, hint=nearest(name, self.names())))
        return self._members[name]

    def names(self) -> list[str]:
        self._load()
        return sorted(self._members)

    def summaries(self) -> dict[str, str]:
        """name -> first line of the member's docstring; the tables of the command line are made from this."""
        return {name: _first_line(member) for name, member in self}

    def __iter__(self) -> Iterator[tuple[str, T]]:
        self._load()
        return iter(sorted(self._members.items()))

    def __contains__(self, name: object) -> bool:
        self._load()
        return isinstance(name, str) and name in self._members

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # before the imports: members may ask the registry while they are being imported
        try:
            self._import_members()
        except BaseException:
            self._loaded = False
            raise

    def _import_members(self) -> None:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self._package}.{module.name}")


def _first_line(member: object) -> str:
    return (inspect.getdoc(member) or "").partition("\n")[0]
