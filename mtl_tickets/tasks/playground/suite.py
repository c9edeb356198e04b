"""The eight tasks, shaped like GLUE's: the same kinds of question and metrics, sizes as unequal.

What they share and where they disagree (this is what sharing rules have to find out):

================  ====  ===============================================================================
task              rows  what decides, and what does not matter
================  ====  ===============================================================================
acceptability     700   grammar: agreement, order, missing and repeated words; meaning does not matter
sentiment         900   praise or blame; ``not`` and ``but`` turn it round
paraphrase_small  200   who, what is done, to what; roles, numbers, ``not`` and details do not matter
paraphrase_large  2400  the same question; roles, numbers, opposites and details all matter
similarity        320   how many concepts are shared, 0 to 5; roles and ``not`` do not matter
inference         3600  follows, left open, excluded: taxonomy, opposites, ``not``, added details
question          1300  does the sentence answer the question
entailment        72    follows or not, from two sentences: the taxonomy of inference
================  ====  ===============================================================================

Some labels are wrong on purpose (``noise``, in every split), so that no method reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mtl_tickets.tasks.playground import lexicon, relations
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import (
    Fact,
    askable,
    question,
    some_fact,
    statement,
    text_of,
    told_by_question,
)
from mtl_tickets.tasks.playground.mistakes import with_mistake
from mtl_tickets.tasks.playground.opinions import review

# one text or two, and the label's number or the score
Row = tuple[tuple[str, ...], int | float]


@dataclass(frozen=True)
class GeneratedTask:
    """``labels`` is empty for regression; ``rows`` is the size of the training split; ``noise`` the share of labels
    that are replaced by another one."""

    make: Callable[[Dice], Row]
    rows: int
    labels: tuple[str, ...]
    noise: float = 0.0


def acceptability(dice: Dice) -> Row:
    fact = some_fact(dice)
    said = statement(fact.but(negated=dice.chance(0.2)), dice)
    label = int(dice.chance(0.6))
    if not label:
        said = with_mistake(said, dice)
        said = with_mistake(said, dice) if dice.chance(0.6) else said
    return (text_of(said),), label


def sentiment(dice: Dice) -> Row:
    label = dice.below(2)
    return (review(label == 1, dice),), label


def paraphrase_small(dice: Dice) -> Row:
    fact = _fact(dice)
    label = int(dice.chance(0.6))
    if label:
        other = fact.swapped() if dice.chance(0.2) else fact
        other = (relations.edited(other, relations.DETAIL, dice) or other) if dice.chance(0.6) else other
    else:
        other = unlike(fact, dice) if dice.chance(0.85) else _must(fact, relations.TOPIC, dice, 2)
    return _pair(fact, other, dice), label


def paraphrase_large(dice: Dice) -> Row:
    fact = some_fact(dice, mutual=dice.chance(0.5))
    asked = dice.weighted({kind: 2.0 if kind == "whether" else 1.0 for kind in askable(fact)})
    label = int(dice.chance(0.42))
    other = fact
    if not label:
        change = dice.weighted({"unlike": 4.0, "topic": 2.0, "roles": 1.0, "excluded": 1.0, "detail": 1.0})
        if change == "unlike":
            other = unlike(fact, dice)
        elif change == "roles":
            other = fact.swapped()
        elif change == "topic":
            other = _must(fact, relations.TOPIC, dice, 1 + dice.below(3))
        else:
            # a question is not negated, so these leave out ``negate``
            edits = relations.OPPOSED if change == "excluded" else relations.DETAIL[1:]
            other = relations.edited(fact, edits, dice) or _must(fact, relations.TOPIC, dice, 2)
    if not label:
        # what was changed may be just what the question does not tell
        while told_by_question(other, asked) == told_by_question(fact, asked):
            other = unlike(fact, dice)
    kinds = askable(other)
    also_asked = asked if asked in kinds else dice.pick(kinds)
    return (text_of(question(fact, asked, dice), "?"), text_of(question(other, also_asked, dice), "?")), label


def similarity(dice: Dice) -> Row:
    fact = _fact(dice)
    if dice.chance(0.4):
        other = unlike(fact, dice)
    else:
        other = fact.swapped() if dice.chance(0.3) else fact
        other = relations.edited(other, relations.ANYTHING, dice, dice.below(4)) or other
    score = 5.0 * concepts_in_common(fact, other) + 0.35 * dice.bell()
    return _pair(fact, other, dice), round(min(5.0, max(0.0, score)) * 5) / 5


def inference(dice: Dice) -> Row:
    fact = _fact(dice)
    fact = fact.but(negated=dice.chance(0.1))
    label = dice.below(3)
    if label == 0:
        # below ``not`` the taxonomy turns round: only the same again follows for sure
        other = fact if fact.negated else _must(fact, relations.FOLLOWS, dice, 1 + dice.below(2))
    elif label == 1:
        other = unlike(fact, dice) if dice.chance(0.4) else _must(_looser(fact, dice), relations.OPEN, dice, 2)
    elif fact.negated:
        other = fact.but(negated=False)
    else:
        other = _must(fact, relations.EXCLUDED, dice)
        other = other if other.negated else _looser(other, dice)
    return _pair(fact, other, dice), label


def question_answer(dice: Dice) -> Row:
    fact = some_fact(dice, extras=0.55)
    asked = dice.weighted({kind: 0.7 if kind in ("who", "what") else 1.0 for kind in askable(fact)[1:]})
    label = int(dice.chance(0.5))
    told = fact
    if label:
        unanswered = _without(fact, asked)
        told = unlike(fact, dice) if unanswered is None or dice.chance(0.5) else unanswered
    return (text_of(question(fact, asked, dice), "?"), text_of(statement(told, dice))), label


def entailment(dice: Dice) -> Row:
    fact = _fact(dice)
    label = dice.below(2)
    if label == 0:
        other = _must(fact, relations.FOLLOWS, dice, 1 + dice.below(2))
    else:
        other = unlike(fact, dice) if dice.chance(0.5) else _must(fact, relations.EXCLUDED, dice)
    beside = statement(some_fact(dice, extras=0.2), dice, passive=False)
    told = dice.shuffled((text_of(statement(fact, dice)), text_of(beside)))
    return (" ".join(told), text_of(statement(other, dice))), label


SUITE: dict[str, GeneratedTask] = {
    "acceptability": GeneratedTask(acceptability, 700, ("unacceptable", "acceptable"), 0.04),
    "sentiment": GeneratedTask(sentiment, 900, ("negative", "positive"), 0.08),
    "paraphrase_small": GeneratedTask(paraphrase_small, 200, ("different", "paraphrase"), 0.04),
    "paraphrase_large": GeneratedTask(paraphrase_large, 2400, ("different", "paraphrase"), 0.04),
    "similarity": GeneratedTask(similarity, 320, ()),
    "inference": GeneratedTask(inference, 3600, ("entailment", "neutral", "contradiction"), 0.05),
    "question": GeneratedTask(question_answer, 1300, ("answered", "not_answered"), 0.04),
    "entailment": GeneratedTask(entailment, 72, ("entailment", "not_entailment"), 0.04),
}


def unlike(fact: Fact, dice: Dice) -> Fact:
    """Another fact that has at most one thing in common with this one on purpose."""
    other = some_fact(dice)
    shared = dice.pick(("subject", "verb", "object", "nothing"))
    return other if shared == "nothing" else other.but(**{shared: getattr(fact, shared)})


def concepts_in_common(one: Fact, two: Fact) -> float:
    """0..1: concepts shared over concepts in all; each noun and the verb count as three details.

    A more general concept or a sibling counts a half; roles, numbers and ``not`` count nothing.
    """
    straight = _alike(one.subject.noun, two.subject.noun) + _alike(one.object.noun, two.object.noun)
    crossed = _alike(one.subject.noun, two.object.noun) + _alike(one.object.noun, two.subject.noun)
    shared = 3 * (max(straight, crossed) + _alike(one.verb, two.verb))
    details, others = _details(one), _details(two)
    return (shared + len(details & others)) / (9 + len(details | others))


def _fact(dice: Dice) -> Fact:
    return some_fact(dice, mutual=dice.chance(0.3))


def _pair(one: Fact, two: Fact, dice: Dice) -> tuple[str, str]:
    return text_of(statement(one, dice)), text_of(statement(two, dice))


def _looser(fact: Fact, dice: Dice) -> Fact:
    """Now and then with something left out or more general, so that the amount of change does not give a label away."""
    return (relations.edited(fact, relations.FOLLOWS, dice) or fact) if dice.chance(0.4) else fact


def _must(fact: Fact, edits: Sequence[relations.Edit], dice: Dice, times: int = 1) -> Fact:
    """``fact`` after ``times`` edits, or after one where fewer apply. One of ``edits`` must apply to every fact."""
    after = relations.edited(fact, edits, dice, times) or relations.edited(fact, edits, dice)
    if after is None:
        raise AssertionError(f"no edit applies to {fact}")
    return after


def _without(fact: Fact, asked: str) -> Fact | None:
    """The fact without what the question asks for; None where a sentence cannot leave it out."""
    circumstance = {"where": "place", "when": "time", "how": "manner"}.get(asked)
    if circumstance:
        return fact.but(**{circumstance: None})
    if asked == "how many":
        return fact.but(object=replace(fact.object, count="some"))
    return fact.but(object=replace(fact.object, color=None)) if asked == "what color" else None


def _alike(one: str, two: str) -> float:
    if one == two:
        return 1.0
    near = two in lexicon.ancestors(one) or one in lexicon.ancestors(two) or two in lexicon.siblings(one)
    return 0.5 if near else 0.0


def _details(fact: Fact) -> set[str]:
    phrases = (fact.subject.quality, fact.subject.color, fact.object.quality, fact.object.color)
    return {detail for detail in (*phrases, fact.place, fact.time, fact.manner) if detail}
