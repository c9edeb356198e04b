"""Errors of grammar, for the acceptability task. Each gives a new saying, or None where it does not apply."""

from __future__ import annotations

from mtl_tickets.tasks.playground import lexicon
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import Said

_OTHER_FORM = {"is": "are", "are": "is", "does": "do", "do": "does"}
for _concept in lexicon.VERBS.values():
    for _verb in _concept.words:
        _OTHER_FORM |= {_verb: lexicon.third_person(_verb), lexicon.third_person(_verb): _verb}


def with_mistake(said: Said, dice: Dice) -> Said:
    """``said`` with one mistake more."""
    for mistake in dice.shuffled((_wrong_form, _wrong_number, _wrong_order, _missing, _repeated)):
        after = mistake(list(said), dice)
        if after is not None:
            return after
    return said[:-1]


def _wrong_form(said: Said, dice: Dice) -> Said | None:
    """The first verb in the wrong number: ``the dog chase``, ``the dogs does not chase``."""
    place = next(iter(_places(said, "aux", "verb")), None)
    if place is None:
        return None
    word, part = said[place]
    said[place] = (_OTHER_FORM[word], part)
    return said


def _wrong_number(said: Said, dice: Dice) -> Said | None:
    """A determiner that does not fit its noun: ``these dog``, ``this dogs``."""
    fixed = [place for place in _places(said, "det") if said[place][0] in ("a", "this", "these", *lexicon.NUMBERS)]
    if not fixed:
        return None
    place = dice.pick(fixed)
    wrong = ("these", *lexicon.NUMBERS[:3]) if said[place][0] in lexicon.SINGULAR else ("a", "this")
    said[place] = (dice.pick(wrong), "det")
    return said


def _wrong_order(said: Said, dice: Dice) -> Said | None:
    """A noun exchanged with the word before it: ``dog the chases``, ``the dog small chases``."""
    nouns = [place for place in _places(said, "noun") if place > 0]
    if not nouns:
        return None
    place = dice.pick(nouns)
    said[place - 1], said[place] = said[place], said[place - 1]
    return said


def _missing(said: Said, dice: Dice) -> Said | None:
    """Without one of the words that hold the sentence together."""
    places = _places(said, "noun", "verb", "participle", "aux", "by")
    if not places:
        return None
    said.pop(dice.pick(places))
    return said


def _repeated(said: Said, dice: Dice) -> Said | None:
    place = dice.below(len(said))
    return [*said[:place], said[place], *said[place:]]


def _places(said: Said, *parts: str) -> list[int]:
    return [place for place, (_, part) in enumerate(said) if part in parts]
