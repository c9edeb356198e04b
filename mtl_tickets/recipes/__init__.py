"""One published procedure, start to end, composed from the parts. One file a recipe; each registers itself."""

from mtl_tickets.recipes.base import RECIPES, RecipeSettings

__all__ = ["RECIPES", "RecipeSettings"]
