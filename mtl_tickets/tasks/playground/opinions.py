"""Reviews: clauses that praise or blame, with ``not``, ``but`` and ``although``."""

from __future__ import annotations

from mtl_tickets.tasks.playground import lexicon
from mtl_tickets.tasks.playground.dice import Dice


def review(praise: bool, dice: Dice) -> str:
    """One or two clauses; of two that disagree, the one after ``but``, or the one not after ``although``, counts."""
    main = _clause(praise, dice)
    if dice.chance(0.35):
        return f"{main} ."
    if dice.chance(0.65):
        return f"{main} and {_clause(praise, dice)} ."
    other = _clause(not praise, dice)
    return f"{other} but {main} ." if dice.chance(0.5) else f"although {other} , {main} ."


def _clause(praise: bool, dice: Dice) -> str:
    negated = dice.chance(0.15)
    kind = praise != negated
    aspect = dice.pick(lexicon.ASPECTS)
    if dice.chance(0.3):
        verb = dice.pick(lexicon.LOVE if kind else lexicon.LOATHE)
        return " ".join([dice.pick(lexicon.VIEWERS), *(["do", "not"] if negated else []), verb, "the", aspect])
    degree = [dice.pick(lexicon.DEGREES)] if dice.chance(0.4) else []
    word = dice.pick(lexicon.PRAISE if kind else lexicon.BLAME)
    return " ".join(["the", aspect, "is", *(["not"] if negated else []), *degree, word])
