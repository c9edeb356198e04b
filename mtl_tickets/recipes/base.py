"""What a recipe is, and where recipes are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_tickets.registry import Registry
from mtl_tickets.settings import Settings
from mtl_tickets.tasks.data import SelectionSettings

if TYPE_CHECKING:
    from mtl_tickets.recipes.workbench import Workbench

RECIPES: Registry[type[RecipeSettings]] = Registry("recipe", "mtl_tickets.recipes")


class RecipeSettings(Settings):
    """A recipe is its settings plus ``run``: the paper's algorithm box, written with the verbs of the workbench.

    ``stages`` are the names ``--to`` can stop after, in order. ``steps`` estimates the optimiser steps of the whole
    run before it starts (for the time left). ``columns`` are what the final table compares: stage name -> heading.
    """

    kind: str
    selection: SelectionSettings = SelectionSettings()

    @property
    def selection_settings(self) -> SelectionSettings:
        return self.selection

    @property
    def drop_long_rows(self) -> bool:
        return False

    @property
    def stages(self) -> tuple[str, ...]:
        raise NotImplementedError

    def steps(self, bench: Workbench) -> int:
        raise NotImplementedError

    def run(self, bench: Workbench) -> None:
        raise NotImplementedError

    def columns(self) -> dict[str, str]:
        raise NotImplementedError
