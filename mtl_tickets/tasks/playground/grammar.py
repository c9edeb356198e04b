"""Facts, and how they are said: statements (active or passive, negated or not) and questions.

A :class:`Fact` holds concepts and no words; saying it picks among synonyms and constructions. Two sayings of one fact
are therefore paraphrases, and two facts can be compared without looking at text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mtl_tickets.tasks.playground import lexicon
from mtl_tickets.tasks.playground.dice import Dice

# a word and its part of speech: det, quality, noun, verb, aux, participle, by, prep, place, adverb
Said = list[tuple[str, str]]

QUESTIONS = ("whether", "who", "what", "where", "when", "how", "how many", "what color")


@dataclass(frozen=True)
class Phrase:
    """A noun with its determiner (or number) and qualities; ``quality`` and ``color`` may be missing."""

    noun: str
    count: str
    quality: str | None = None
    color: str | None = None

    @property
    def plural(self) -> bool:
        return self.count in lexicon.PLURAL


@dataclass(frozen=True)
class Fact:
    """Who does what to what, where, when and how, or that it is not so. Values are concepts."""

    subject: Phrase
    verb: str
    object: Phrase
    place: str | None = None
    time: str | None = None
    manner: str | None = None
    negated: bool = False

    def but(self, **changes: Any) -> Fact:
        return replace(self, **changes)

    def swapped(self) -> Fact:
        """The fact with the roles exchanged: the doer becomes the one it is done to."""
        return self.but(subject=self.object, object=self.subject)


def some_fact(dice: Dice, mutual: bool = False, extras: float = 0.45) -> Fact:
    """A random fact. ``mutual``: both sides are people or animals, so that exchanging roles makes sense.

    ``extras`` is the probability of each optional part.
    """
    subject = dice.pick(_DOERS)
    pool = _DOERS if mutual or dice.chance(0.3) else _THINGS
    other = dice.pick([noun for noun in pool if noun != subject])
    return Fact(
        some_phrase(dice, subject, extras / 2),
        dice.pick(_ACTIONS),
        some_phrase(dice, other, extras),
        dice.pick(_SPOTS) if dice.chance(extras) else None,
        dice.pick(_HOURS) if dice.chance(extras / 2) else None,
        dice.pick(_WAYS) if dice.chance(extras / 2) else None,
    )


def some_phrase(dice: Dice, noun: str, extras: float) -> Phrase:
    counts = {**dict.fromkeys(lexicon.SINGULAR, 3.0), "these": 1.0, "some": 1.0, "many": 1.0}
    counts |= dict.fromkeys(lexicon.NUMBERS, 0.5)
    quality = dice.pick(list(lexicon.QUALITIES)) if dice.chance(extras) else None
    color = dice.pick(lexicon.COLORS) if dice.chance(extras) else None
    return Phrase(noun, dice.weighted(counts), quality, color)


def statement(fact: Fact, dice: Dice, passive: bool | None = None) -> Said:
    """One way to say ``fact``, without the full stop. ``passive`` None: one in four is passive."""
    if dice.chance(0.25) if passive is None else passive:
        said = noun_phrase(fact.object, dice)
        said.append(("are" if fact.object.plural else "is", "aux"))
        said += [("not", "not")] if fact.negated else []
        said.append((lexicon.participle(synonym(fact.verb, dice)), "participle"))
        said += [("by", "by"), *noun_phrase(fact.subject, dice)]
    else:
        said = noun_phrase(fact.subject, dice)
        said += _predicate(fact, dice)
        said += noun_phrase(fact.object, dice)
    return said + _circumstances(fact, dice)


def question(fact: Fact, asked: str, dice: Dice) -> Said:
    """A question about ``fact``, without the question mark. What is asked for must be stated in the fact."""
    does = "do" if fact.subject.plural else "does"
    verb = synonym(fact.verb, dice)
    subject = noun_phrase(fact.subject, dice)
    tail = [(verb, "verb"), *noun_phrase(fact.object, dice)]
    if asked == "whether":
        return [(does, "aux"), *subject, *tail, *_circumstances(fact, dice)]
    if asked == "who":
        said = [("who", "ask"), (lexicon.third_person(verb), "verb"), *tail[1:]]
        return said + _circumstances(fact, dice)
    if asked == "what":
        return [("what", "ask"), (does, "aux"), *subject, (verb, "verb"), *_circumstances(fact, dice)]
    if asked == "how many":
        bare = noun_phrase(replace(fact.object, count="many"), dice)[1:]
        return [("how", "ask"), ("many", "ask"), *bare, (does, "aux"), *subject, (verb, "verb")]
    if asked == "what color":
        bare = noun_phrase(replace(fact.object, color=None), dice)
        are = "are" if fact.object.plural else "is"
        return [
            ("what", "ask"),
            ("color", "ask"),
            (are, "aux"),
            *bare,
            ("that", "that"),
            *subject,
            *_predicate(fact, dice),
        ]
    return [(asked, "ask"), (does, "aux"), *subject, *tail]


def told_by_question(fact: Fact, asked: str) -> tuple[object, ...]:
    """What a question says about ``fact``: questions for which this is equal are the same in other words."""
    around = (fact.place, fact.time, fact.manner) if asked in ("whether", "who", "what") else ()
    thing: Phrase | None = fact.object
    if asked == "what":
        thing = None
    elif asked == "how many":
        thing = replace(fact.object, count="many")
    elif asked == "what color":
        thing = replace(fact.object, color=None)
    return asked, None if asked == "who" else fact.subject, fact.verb, thing, around


def askable(fact: Fact) -> list[str]:
    """The questions that ``fact`` answers."""
    kinds = ["whether", "who", "what"]
    kinds += ["where"] if fact.place else []
    kinds += ["when"] if fact.time else []
    kinds += ["how"] if fact.manner else []
    kinds += ["how many"] if fact.object.count in lexicon.NUMBERS else []
    kinds += ["what color"] if fact.object.color else []
    return kinds


def noun_phrase(phrase: Phrase, dice: Dice) -> Said:
    said: Said = [(phrase.count, "det")]
    if phrase.quality:
        said.append((synonym(phrase.quality, dice), "quality"))
    if phrase.color:
        said.append((phrase.color, "quality"))
    noun = synonym(phrase.noun, dice)
    return [*said, (lexicon.plural(noun) if phrase.plural else noun, "noun")]


def synonym(concept: str, dice: Dice) -> str:
    """One of the words for ``concept``; the first is said three times in five."""
    words = lexicon.CONCEPTS[concept].words
    return words[0] if len(words) == 1 or dice.chance(0.6) else dice.pick(words[1:])


def text_of(said: Said, mark: str = ".") -> str:
    """The words with ``mark`` at the end; ``a`` becomes ``an`` before a vowel."""
    words = [*(word for word, _ in said), mark]
    for place, word in enumerate(words[:-1]):
        if word == "a" and words[place + 1][0] in "aeio":
            words[place] = "an"
    return " ".join(words)


def _predicate(fact: Fact, dice: Dice) -> Said:
    verb = synonym(fact.verb, dice)
    if fact.negated:
        return [("do" if fact.subject.plural else "does", "aux"), ("not", "not"), (verb, "verb")]
    return [(verb if fact.subject.plural else lexicon.third_person(verb), "verb")]


def _circumstances(fact: Fact, dice: Dice) -> Said:
    said: Said = [(synonym(fact.manner, dice), "adverb")] if fact.manner else []
    if fact.place:
        general = fact.place in ("indoors", "outdoors", "downtown")
        said += [(fact.place, "adverb")] if general else _in(synonym(fact.place, dice))
    if fact.time:
        said += [("at", "prep"), (synonym(fact.time, dice), "noun")]
    return said


def _in(place: str) -> Said:
    return [("in", "prep"), ("the", "det"), (place, "noun")]


_DOERS = lexicon.leaves("person") + lexicon.leaves("animal")
_THINGS = lexicon.leaves("object")
_ACTIONS = [verb for verb in lexicon.VERBS if not lexicon.children(verb)]
_SPOTS = [place for place in lexicon.PLACES if not lexicon.children(place)]
_HOURS = list(lexicon.TIMES)
_WAYS = list(lexicon.MANNERS)
