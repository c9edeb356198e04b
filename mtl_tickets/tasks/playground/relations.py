"""Edits of facts with a known effect on meaning: what follows, what is excluded, what is left open.

Each edit takes a fact and dice and gives a fact, or None where it does not apply. They assume a fact that is not
negated; under negation the taxonomy turns round, and the tasks only say such facts again in other words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mtl_tickets.tasks.playground import lexicon
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import Fact, Phrase, some_fact

Edit = Callable[[Fact, Dice], Fact | None]


def edited(fact: Fact, edits: Sequence[Edit], dice: Dice, times: int = 1) -> Fact | None:
    """``fact`` after ``times`` different applicable edits; None where fewer apply."""
    before = {fact}
    for edit in dice.shuffled(edits):
        if times == 0:
            break
        after = edit(fact, dice)
        # one edit may undo another
        if after is not None and after not in before:
            before.add(after)
            fact, times = after, times - 1
    return fact if times == 0 else None


# what follows from the fact


def generalise_subject(fact: Fact, dice: Dice) -> Fact | None:
    return _with_noun(fact, "subject", lexicon.ancestors(fact.subject.noun), dice)


def generalise_object(fact: Fact, dice: Dice) -> Fact | None:
    return _with_noun(fact, "object", lexicon.ancestors(fact.object.noun), dice)


def generalise_verb(fact: Fact, dice: Dice) -> Fact | None:
    above = lexicon.ancestors(fact.verb)
    return fact.but(verb=above[0]) if above else None


def generalise_place(fact: Fact, dice: Dice) -> Fact | None:
    above = lexicon.ancestors(fact.place) if fact.place else []
    return fact.but(place=above[0]) if above else None


def forget_circumstance(fact: Fact, dice: Dice) -> Fact | None:
    """Drops where, when or how."""
    stated = [part for part in ("place", "time", "manner") if getattr(fact, part)]
    return fact.but(**{dice.pick(stated): None}) if stated else None


def forget_quality(fact: Fact, dice: Dice) -> Fact | None:
    stated = [(s, q) for s in ("subject", "object") for q in ("quality", "color") if getattr(getattr(fact, s), q)]
    if not stated:
        return None
    side, quality = dice.pick(stated)
    return fact.but(**{side: replace(getattr(fact, side), **{quality: None})})


def forget_number(fact: Fact, dice: Dice) -> Fact | None:
    return _with_count(fact, lexicon.NUMBERS, ("some",), dice)


# what the fact excludes


def negate(fact: Fact, dice: Dice) -> Fact | None:
    return fact.but(negated=not fact.negated)


def opposite_verb(fact: Fact, dice: Dice) -> Fact | None:
    opposite = lexicon.VERBS[fact.verb].opposite
    return fact.but(verb=opposite) if opposite else None


def opposite_quality(fact: Fact, dice: Dice) -> Fact | None:
    quality = fact.object.quality
    opposite = lexicon.QUALITIES[quality].opposite if quality else None
    return fact.but(object=replace(fact.object, quality=opposite)) if opposite else None


def other_color(fact: Fact, dice: Dice) -> Fact | None:
    if not fact.object.color:
        return None
    color = dice.pick([c for c in lexicon.COLORS if c != fact.object.color])
    return fact.but(object=replace(fact.object, color=color))


def other_number(fact: Fact, dice: Dice) -> Fact | None:
    return _with_count(fact, lexicon.NUMBERS, lexicon.NUMBERS, dice)


# what the fact leaves open


def other_subject(fact: Fact, dice: Dice) -> Fact | None:
    return _with_noun(fact, "subject", lexicon.siblings(fact.subject.noun), dice)


def other_object(fact: Fact, dice: Dice) -> Fact | None:
    return _with_noun(fact, "object", lexicon.siblings(fact.object.noun), dice)


def other_verb(fact: Fact, dice: Dice) -> Fact | None:
    verb = some_fact(dice).verb
    return fact.but(verb=verb) if verb != lexicon.VERBS[fact.verb].opposite else None


def add_circumstance(fact: Fact, dice: Dice) -> Fact | None:
    missing = [part for part in ("place", "time", "manner") if not getattr(fact, part)]
    if not missing:
        return None
    part = dice.pick(missing)
    return fact.but(**{part: getattr(some_fact(dice, extras=2.0), part)})


def add_quality(fact: Fact, dice: Dice) -> Fact | None:
    if fact.object.color:
        return None
    return fact.but(object=replace(fact.object, color=dice.pick(lexicon.COLORS)))


FOLLOWS: tuple[Edit, ...] = (
    generalise_subject, generalise_object, generalise_verb, generalise_place,
    forget_circumstance, forget_quality, forget_number,
)  # fmt: skip
OPPOSED: tuple[Edit, ...] = (opposite_verb, opposite_quality, other_color, other_number)
# twice: ``not`` is the commonest way to contradict
EXCLUDED: tuple[Edit, ...] = (negate, negate, *OPPOSED)
OPEN: tuple[Edit, ...] = (other_subject, other_object, other_verb, add_circumstance, add_quality)
# what changes who, what is done, or to what
TOPIC: tuple[Edit, ...] = (other_subject, other_object, other_verb)
# what changes everything but those three; ``negate`` stands first
DETAIL: tuple[Edit, ...] = (
    negate, opposite_quality, other_color, other_number, forget_circumstance, forget_quality, add_circumstance,
)  # fmt: skip
ANYTHING: tuple[Edit, ...] = (*TOPIC, *TOPIC, *FOLLOWS, *DETAIL)


def _with_noun(fact: Fact, side: str, nouns: Sequence[str], dice: Dice) -> Fact | None:
    return fact.but(**{side: replace(getattr(fact, side), noun=dice.pick(nouns))}) if nouns else None


def _with_count(fact: Fact, now: Sequence[str], after: Sequence[str], dice: Dice) -> Fact | None:
    """Changes the count of one side that has a count in ``now`` to another one in ``after``."""
    sides = [side for side in ("subject", "object") if getattr(fact, side).count in now]
    if not sides:
        return None
    side = dice.pick(sides)
    phrase: Phrase = getattr(fact, side)
    count = dice.pick([c for c in after if c != phrase.count])
    return fact.but(**{side: replace(phrase, count=count)})
