"""Unlabelled text of the same language, for masked-language-model training.

A document is two or three sentences about one fact, so that a masked word can be found in another sentence: the fact
in other words, what follows from it, what it excludes, a question and its answer, or a review that keeps its opinion.
Connecting words (``so``, ``yet``, ``also``) say which of these it is.
"""

from __future__ import annotations

from mtl_tickets.tasks.playground import lexicon, relations
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import Fact, askable, question, some_fact, statement, text_of
from mtl_tickets.tasks.playground.suite import opinion


def document(dice: Dice) -> str:
    kind = dice.weighted({"again": 3.0, "follows": 3.0, "excluded": 2.0, "open": 2.0, "asked": 3.0, "review": 3.0})
    if kind == "review":
        praise = dice.chance(0.5)
        return " ".join([opinion(praise, dice), *(opinion(praise, dice) for _ in range(1 + dice.below(2)))])
    fact = some_fact(dice, mutual=dice.chance(0.3))
    said = _say(fact, dice)
    if kind == "asked":
        asked = dice.pick(askable(fact))
        first = text_of(question(fact, asked, dice), "?")
        return (
            f"{first} {said}" if dice.chance(0.7) else f"{first} that is , {text_of(question(fact, asked, dice), '?')}"
        )
    edits = {"follows": relations.FOLLOWS, "excluded": relations.EXCLUDED, "open": relations.OPEN}
    link = {"again": "that is ,", "follows": "so", "excluded": "it is false that", "open": "also"}[kind]
    other = fact if kind == "again" else relations.edited(fact, edits[kind], dice) or fact
    return f"{said} {link} {_say(other, dice)}"


def _say(fact: Fact, dice: Dice) -> str:
    return text_of(statement(fact, dice))


def taxonomy(dice: Dice) -> str:
    """A sentence or two of definitions."""
    noun = dice.pick([c.name for c in lexicon.NOUNS.values() if c.parent])
    return text_of(
        [("every", "det"), (noun, "noun"), ("is", "aux"), ("a", "det"), (lexicon.NOUNS[noun].parent or "", "noun")]
    )
