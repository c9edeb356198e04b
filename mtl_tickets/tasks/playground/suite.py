"""The eight tasks, shaped like GLUE's: the same kinds of question, metrics and inequality of sizes.

What they share and where they disagree (this is what sharing rules have to find out):

==========  =======  ======================================================================================
task        rows     what decides
==========  =======  ======================================================================================
cola        700      is it grammatical: agreement, word order, missing words (meaning is irrelevant)
sst2        900      praise or blame; ``not`` and ``but`` are decisive
mrpc        180      same topic: who, what is done, to what; order, numbers, ``not``, details are irrelevant
qqp         2400     same question: order of roles, numbers, opposites, details are decisive
stsb        300      share of concepts in common, 0-5; order and ``not`` are irrelevant
mnli        3200     follows, is left open, is excluded: taxonomy, ``not``, opposites, details
qnli        1300     does the sentence answer the question
rte         120      follows or not, from two sentences: the taxonomy of mnli
==========  =======  ======================================================================================

A small part of the labels is wrong on purpose (``noise``, in every split), so that no method reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mtl_tickets.tasks.playground import lexicon, relations
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import (
    Fact,
    Said,
    askable,
    question,
    some_fact,
    statement,
    text_of,
)

Row = tuple[tuple[str, ...], int | float]


@dataclass(frozen=True)
class Task:
    """One generated task. ``labels`` is empty for regression; ``rows`` is the size of the training split."""

    make: Callable[[Dice], Row]
    rows: int
    labels: tuple[str, ...]
    noise: float = 0.0


def acceptability(dice: Dice) -> Row:
    said = statement(_negated_sometimes(some_fact(dice), dice), dice)
    if dice.chance(0.6):
        return (text_of(said),), 1
    said = corrupted(said, dice)
    return (text_of(corrupted(said, dice) if dice.chance(0.4) else said),), 0


def corrupted(said: Said, dice: Dice) -> Said:
    """A saying with one error of grammar."""
    for corrupt in dice.shuffled((_wrong_form, _wrong_number, _wrong_order, _missing, _repeated)):
        after = corrupt(list(said), dice)
        if after is not None:
            return after
    raise AssertionError("a word can always be repeated")


def sentiment(dice: Dice) -> Row:
    label = dice.below(2)
    return (opinion(label == 1, dice),), label


def opinion(praise: bool, dice: Dice) -> str:
    """A review of one or two clauses; of two that disagree the one after ``but`` (not after ``although``) counts."""
    main = _clause(praise, dice)
    if dice.chance(0.35):
        return f"{main} ."
    if dice.chance(0.65):
        return f"{main} and {_clause(praise, dice)} ."
    other = _clause(not praise, dice)
    return f"{other} but {main} ." if dice.chance(0.5) else f"although {other} , {main} ."


def paraphrase_small(dice: Dice) -> Row:
    fact = _with_detail(dice)
    label = int(dice.chance(0.66))
    other = fact.swapped() if dice.chance(0.3) else fact
    if dice.chance(0.7):
        other = relations.edited(other, relations.DETAIL, dice) or other
    if not label:
        other = far_from(fact, dice) if dice.chance(0.5) else _must(other, relations.TOPIC, dice, 2)
    return _pair(fact, other, dice), label


def paraphrase_large(dice: Dice) -> Row:
    fact = some_fact(dice, mutual=dice.chance(0.5))
    asked = dice.weighted({kind: 2.0 if kind == "whether" else 1.0 for kind in askable(fact)})
    label = int(dice.chance(0.42))
    other = fact
    if not label:
        kind = dice.weighted({"far": 4.0, "topic": 2.0, "role": 1.0, "excluded": 1.0, "detail": 1.0})
        if kind == "role":
            other = fact.swapped()
        elif kind == "far":
            other = far_from(fact, dice)
        else:
            edits = {"excluded": relations.EXCLUDED[2:], "topic": relations.TOPIC, "detail": relations.DETAIL[1:]}[kind]
            times = 1 + dice.below(3) if kind == "topic" else 1
            other = relations.edited(fact, edits, dice, times) or _must(fact, relations.TOPIC, dice, 3)
    if asked not in askable(other):
        asked_other = dice.pick([kind for kind in askable(other) if kind != asked])
    else:
        asked_other = asked
    texts = (text_of(question(fact, asked, dice), "?"), text_of(question(other, asked_other, dice), "?"))
    return texts, label


def similarity(dice: Dice) -> Row:
    fact = _with_detail(dice)
    other = fact.swapped() if dice.chance(0.3) else fact
    other = (
        relations.edited(other, (*relations.TOPIC, *relations.FOLLOWS, *relations.DETAIL), dice, dice.below(4)) or other
    )
    if dice.chance(0.3):
        other = relations.edited(other, relations.TOPIC, dice, 2) or other
    if dice.chance(0.35):
        other = far_from(fact, dice)
    score = 5.0 * similarity(fact, other) + 0.35 * dice.bell()
    return _pair(fact, other, dice), round(min(5.0, max(0.0, score)) * 5) / 5


def similarity(one: Fact, two: Fact) -> float:
    """0..1: concepts in common over concepts in all, each noun and verb counting as three details.

    A more general concept or a sibling counts a half; who does it to whom, numbers and negation count nothing.
    """
    straight = _match(one.subject.noun, two.subject.noun) + _match(one.object.noun, two.object.noun)
    crossed = _match(one.subject.noun, two.object.noun) + _match(one.object.noun, two.subject.noun)
    common = 3 * (max(straight, crossed) + _match(one.verb, two.verb))
    details, others = _details(one), _details(two)
    common += len(details & others)
    return common / (9 + len(details | others))


def inference(dice: Dice) -> Row:
    fact = _with_detail(dice)
    if dice.chance(0.1):
        fact = fact.but(negated=True)
    label = dice.below(3)
    if label == 0:
        hypothesis = fact if fact.negated else _must(fact, relations.FOLLOWS, dice, 1 + dice.below(2))
    elif label == 1:
        near = _must(_loosened(fact, dice), relations.OPEN, dice, 1 + dice.below(2))
        hypothesis = far_from(fact, dice) if dice.chance(0.4) else near
    else:
        edits = relations.EXCLUDED[:1] if fact.negated else relations.EXCLUDED
        hypothesis = _must(fact, edits, dice)
        hypothesis = hypothesis if hypothesis.negated else _loosened(hypothesis, dice)
    return _pair(fact, hypothesis, dice), label


def question_answer(dice: Dice) -> Row:
    fact = some_fact(dice, extras=0.55)
    asked = dice.weighted({kind: 0.7 if kind in ("who", "what") else 1.0 for kind in askable(fact)[1:]})
    asking = text_of(question(fact, asked, dice), "?")
    answers = dice.chance(0.5)
    told = fact
    if not answers:
        unanswered = _without(fact, asked)
        told = far_from(fact, dice) if unanswered is None or dice.chance(0.5) else unanswered
    if asked not in ("where", "when", "how") and told.place is None and dice.chance(0.5):
        told = relations.add_circumstance(told, dice) or told
    return (asking, text_of(statement(told, dice))), 0 if answers else 1


def entailment(dice: Dice) -> Row:
    fact = _with_detail(dice)
    label = dice.below(2)
    if label == 0:
        hypothesis = _must(fact, relations.FOLLOWS, dice, 1 + dice.below(2))
    elif dice.chance(0.5):
        hypothesis = far_from(fact, dice)
    else:
        hypothesis = _must(fact, relations.EXCLUDED, dice)
    told = dice.shuffled((statement(fact, dice), statement(some_fact(dice, extras=0.2), dice, passive=False)))
    return (" ".join(text_of(said) for said in told), text_of(statement(hypothesis, dice))), label


SUITE: dict[str, Task] = {
    "acceptability": Task(acceptability, 700, ("unacceptable", "acceptable"), 0.04),
    "sentiment": Task(sentiment, 900, ("negative", "positive"), 0.05),
    "paraphrase_small": Task(paraphrase_small, 160, ("not_equivalent", "equivalent"), 0.04),
    "paraphrase_large": Task(paraphrase_large, 2400, ("not_duplicate", "duplicate"), 0.04),
    "similarity": Task(similarity, 320, ()),
    "inference": Task(inference, 3600, ("entailment", "neutral", "contradiction"), 0.05),
    "question": Task(question_answer, 1300, ("entailment", "not_entailment"), 0.04),
    "entailment": Task(entailment, 72, ("entailment", "not_entailment"), 0.04),
}


def _pair(one: Fact, two: Fact, dice: Dice) -> tuple[str, str]:
    return text_of(statement(one, dice)), text_of(statement(two, dice))


def _with_detail(dice: Dice) -> Fact:
    return some_fact(dice, mutual=dice.chance(0.3))


def far_from(fact: Fact, dice: Dice) -> Fact:
    """Another fact that has at most one thing in common with this one."""
    other = some_fact(dice)
    shared = dice.pick(("subject", "verb", "object", "nothing"))
    return other if shared == "nothing" else other.but(**{shared: getattr(fact, shared)})


def _negated_sometimes(fact: Fact, dice: Dice) -> Fact:
    return fact.but(negated=dice.chance(0.2))


def _loosened(fact: Fact, dice: Dice) -> Fact:
    """Now and then with something forgotten or generalised, so that the amount of change does not give a label away."""
    return (relations.edited(fact, relations.FOLLOWS, dice) or fact) if dice.chance(0.4) else fact


def _must(fact: Fact, edits: tuple[relations.Edit, ...], dice: Dice, times: int = 1) -> Fact:
    after = relations.edited(fact, edits, dice, times) or relations.edited(fact, edits, dice)
    if after is None:
        raise AssertionError(f"none of these edits applies to {fact}")
    return after


def _without(fact: Fact, asked: str) -> Fact | None:
    """The fact without what the question asks for; None where a statement cannot leave it out."""
    if asked in ("where", "when", "how"):
        return fact.but(**{{"where": "place", "when": "time", "how": "manner"}[asked]: None})
    if asked == "how many":
        return fact.but(object=replace(fact.object, count="some"))
    return fact.but(object=replace(fact.object, color=None)) if asked == "what color" else None


def _clause(praise: bool, dice: Dice) -> str:
    negated = dice.chance(0.15)
    degree = [dice.pick(lexicon.DEGREES)] if dice.chance(0.4) else []
    aspect = dice.pick(lexicon.ASPECTS)
    if dice.chance(0.3):
        verb = dice.pick(lexicon.LOVE if praise != negated else lexicon.LOATHE)
        return " ".join([dice.pick(lexicon.VIEWERS), *(["do", "not"] if negated else degree[:0]), verb, "the", aspect])
    word = dice.pick(lexicon.PRAISE if praise != negated else lexicon.BLAME)
    return " ".join(["the", aspect, "is", *(["not"] if negated else []), *degree, word])


def _match(one: str, two: str) -> float:
    if one == two:
        return 1.0
    near = two in lexicon.ancestors(one) or one in lexicon.ancestors(two) or two in lexicon.siblings(one)
    return 0.5 if near else 0.0


def _details(fact: Fact) -> set[str]:
    phrases = (fact.subject.quality, fact.subject.color, fact.object.quality, fact.object.color)
    return {detail for detail in (*phrases, fact.place, fact.time, fact.manner) if detail}


def _places(said: Said, parts: tuple[str, ...]) -> list[int]:
    return [place for place, (_, part) in enumerate(said) if part in parts]


_FORMS = {"is": "are", "are": "is", "does": "do", "do": "does"}


def _wrong_form(said: Said, dice: Dice) -> Said | None:
    """The verb that stands first in the wrong number: ``the dogs chases``, ``the dog do not chase``."""
    place = next(iter(_places(said, ("aux", "verb"))), None)
    if place is None:
        return None
    word, part = said[place]
    if part == "verb":
        bare = [v for concept in lexicon.VERBS.values() for v in concept.words if word in (v, lexicon.third_person(v))][
            0
        ]
        said[place] = (lexicon.third_person(bare) if word == bare else bare, part)
    else:
        said[place] = (_FORMS[word], part)
    return said


def _wrong_number(said: Said, dice: Dice) -> Said | None:
    """A determiner that does not fit its noun: ``these dog``, ``this dogs``."""
    fixed = [place for place in _places(said, ("det",)) if said[place][0] in ("a", "this", "these", *lexicon.NUMBERS)]
    if not fixed:
        return None
    place = dice.pick(fixed)
    single = said[place][0] in lexicon.SINGULAR
    said[place] = (dice.pick(("these", "many", *lexicon.NUMBERS[:2])) if single else dice.pick(("a", "this")), "det")
    return said


def _wrong_order(said: Said, dice: Dice) -> Said | None:
    """Two neighbours exchanged: a noun and what stands before it."""
    nouns = [n for n in _places(said, ("noun",)) if n > 0]
    if not nouns:
        return None
    place = dice.pick(nouns)
    said[place - 1], said[place] = said[place], said[place - 1]
    return said


def _missing(said: Said, dice: Dice) -> Said | None:
    """Without one of the words that hold the sentence together."""
    said.pop(dice.pick(_places(said, ("noun", "verb", "participle", "aux", "by")) or [0]))
    return said


def _repeated(said: Said, dice: Dice) -> Said | None:
    place = dice.below(len(said))
    said.insert(place, said[place])
    return said
