"""Unlabelled text of the same language, for pre-training.

A document is two passages about one fact, so that a hidden word can be found in the other passage: the fact in other
words, what follows from it, what it excludes or leaves open, a question and its answer, or two reviews of one opinion.
Connecting words (``so``, ``also``) say which of these it is.
"""

from __future__ import annotations

from mtl_tickets.tasks.playground import relations
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import Fact, askable, question, some_fact, statement, text_of
from mtl_tickets.tasks.playground.opinions import review

_KINDS = {"again": 3.0, "follows": 3.0, "excluded": 2.0, "open": 2.0, "asked": 3.0, "review": 3.0}
_LINKS = {"again": "that is ,", "follows": "so", "excluded": "it is false that", "open": "also"}
_EDITS = {"follows": relations.FOLLOWS, "excluded": relations.EXCLUDED, "open": relations.OPEN}


def document(dice: Dice) -> tuple[str, str]:
    """The two passages of one document."""
    kind = dice.weighted(_KINDS)
    if kind == "review":
        praise = dice.chance(0.5)
        return review(praise, dice), review(praise, dice)
    fact = some_fact(dice, mutual=dice.chance(0.3))
    if kind == "asked":
        asked = dice.pick(askable(fact))
        first = text_of(question(fact, asked, dice), "?")
        if dice.chance(0.3):
            return first, f"that is , {text_of(question(fact, asked, dice), '?')}"
        return first, _said(fact, dice)
    other = fact if kind == "again" else relations.edited(fact, _EDITS[kind], dice) or fact
    return _said(fact, dice), f"{_LINKS[kind]} {_said(other, dice)}"


def _said(fact: Fact, dice: Dice) -> str:
    return text_of(statement(fact, dice))
