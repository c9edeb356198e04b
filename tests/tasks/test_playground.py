"""The generated suite: the same everywhere, honest splits, labels that follow from the language."""

import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys

import pytest

from mtl_tickets.errors import ConfigError, InputError
from mtl_tickets.tasks import playground
from mtl_tickets.tasks.playground import SUITE, generate, lexicon, mistakes, relations
from mtl_tickets.tasks.playground.dice import Dice
from mtl_tickets.tasks.playground.grammar import askable, question, some_fact, statement, text_of
from mtl_tickets.tasks.playground.suite import concepts_in_common
from mtl_tickets.tasks.sources import read_rows
from mtl_tickets.tasks.spec import load_task, shipped_tasks

# what is published must not change unnoticed: raise `version` in task_configs/tasks/play_*.yaml when it does
DIGEST = "46232afe6b70ede1dff1dce69d4997f6dd00175d919082b6125795f4777c6c44"

NAMES = list(SUITE)
DIGEST_PROGRAM = """
import hashlib, json
from mtl_tickets.tasks import playground
suite = {name: playground.generate(name) for name in playground.SUITE}
print(hashlib.sha256(json.dumps([suite, playground.passages(0, 20_000)]).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def suite():
    return {name: generate(name) for name in NAMES}


@pytest.fixture
def dice(request):
    return Dice(request.node.name)


def test_rows_and_text_are_the_published_ones(suite):
    content = json.dumps([suite, playground.passages(0, 20_000)])
    assert hashlib.sha256(content.encode()).hexdigest() == DIGEST


def test_another_process_with_another_hash_seed_gives_the_same():
    run = subprocess.run(
        [sys.executable, "-c", DIGEST_PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == DIGEST


@pytest.mark.parametrize("name", NAMES)
def test_no_input_occurs_twice(name, suite):
    inputs = [texts for rows in suite[name].values() for texts, _ in rows]
    assert len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_labels(name, suite):
    task = SUITE[name]
    assert {split: len(rows) for split, rows in suite[name].items()} == {
        "train": task.rows,
        "dev": playground.EVALUATION_ROWS,
        "test": playground.EVALUATION_ROWS,
    }
    for rows in suite[name].values():
        labels = [label for _, label in rows]
        if task.labels:
            assert set(labels) == set(range(len(task.labels)))
            assert all(0.25 < labels.count(label) / len(labels) < 0.75 for label in set(labels))
        else:
            assert min(labels) >= 0
            assert max(labels) <= 5
            assert statistics.stdev(labels) > 1


def test_sizes_are_as_unequal_as_in_glue():
    rows = [task.rows for task in SUITE.values()]
    assert max(rows) / min(rows) >= 50
    assert 8_000 <= sum(rows) <= 10_000


@pytest.mark.parametrize("name", ["entailment", "similarity"])
def test_another_seed_gives_other_rows(name, suite):
    for split, rows in generate(name, seed=1).items():
        assert rows != suite[name][split]


@pytest.mark.parametrize("name", ["entailment", "acceptability"])
def test_a_smaller_training_split_is_a_prefix_and_changes_nothing_else(name, suite):
    small = generate(name, scale=0.5)
    assert small["train"] == suite[name]["train"][: len(small["train"])]
    assert len(small["train"]) == SUITE[name].rows // 2
    assert (small["dev"], small["test"]) == (suite[name]["dev"], suite[name]["test"])


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="did you mean 'sentiment'"):
        generate("sentimant")
    with pytest.raises(InputError, match="scale must be positive"):
        generate("sentiment", scale=0)


def test_sentences_are_short_and_words_few(suite):
    rows = [texts for splits in suite.values() for texts, _ in splits["train"]]
    lengths = [len(text.split()) for texts in rows for text in texts]
    assert 8 <= statistics.median(lengths) <= 10
    # [CLS] and two [SEP] more must fit into 48
    assert max(sum(len(text.split()) for text in texts) for texts in rows) <= 45
    assert 300 <= len({word for texts in rows for text in texts for word in text.split()}) <= 600


def test_text_has_the_words_of_the_tasks(suite):
    known = {word for document in playground.text(0, 200_000) for word in document.split()}
    used = {
        word for splits in suite.values() for texts, _ in splits["train"] for text in texts for word in text.split()
    }
    assert used <= known


def test_less_text_is_a_prefix_of_more():
    little, more = playground.passages(3, 500), playground.passages(3, 2_000)
    assert little == more[: len(little)]
    assert sum(len(passage.split()) for document in little for passage in document) >= 500
    assert playground.text(3, 500) == [" ".join(document) for document in little]


def test_passages_of_a_document_are_about_the_same():
    """Two passages of one document share more words than two of different documents: what pre-training can learn."""

    def shared(one, two):
        return len(set(one.split()) & set(two.split())) / len(set(one.split()))

    documents = playground.passages(0, 20_000)
    together = statistics.mean(shared(*document) for document in documents)
    apart = statistics.mean(shared(one[0], two[1]) for one, two in itertools.pairwise(documents))
    assert together > 2 * apart


def test_words_belong_to_one_concept():
    tables = (lexicon.NOUNS, lexicon.VERBS, lexicon.PLACES, lexicon.QUALITIES, lexicon.TIMES, lexicon.MANNERS)
    words = [word for table in tables for concept in table.values() for word in concept.words]
    assert len(set(words)) == len(words)
    for concept in lexicon.CONCEPTS.values():
        assert concept.opposite is None or lexicon.CONCEPTS[concept.opposite].opposite == concept.name


@pytest.mark.parametrize(
    ("word", "form", "made"),
    [
        ("person", lexicon.plural, "people"),
        ("lorry", lexicon.plural, "lorries"),
        ("donkey", lexicon.plural, "donkeys"),
        ("carry", lexicon.third_person, "carries"),
        ("push", lexicon.third_person, "pushes"),
        ("carry", lexicon.participle, "carried"),
        ("enjoy", lexicon.participle, "enjoyed"),
        ("chase", lexicon.participle, "chased"),
        ("steal", lexicon.participle, "stolen"),
    ],
)
def test_forms_of_words(word, form, made):
    assert form(word) == made


def test_a_fact_agrees_with_itself(dice):
    for _ in range(50):
        fact = some_fact(dice)
        said = statement(fact, dice, passive=False)
        verb = next(word for word, part in said if part == "verb")
        bare = [word for word in lexicon.VERBS[fact.verb].words if verb in (word, lexicon.third_person(word))]
        assert (verb in bare) == fact.subject.plural


def test_a_mistake_changes_a_sentence(dice):
    for _ in range(100):
        said = statement(some_fact(dice), dice)
        assert text_of(mistakes.with_mistake(said, dice)) != text_of(said)


def test_an_before_a_vowel():
    assert text_of([("a", "det"), ("apple", "noun"), ("a", "det"), ("pear", "noun")]) == "an apple a pear ."


@pytest.mark.parametrize("edits", [relations.FOLLOWS, relations.EXCLUDED, relations.OPEN, relations.DETAIL])
def test_edits_change_the_fact_the_number_of_times_asked(edits, dice):
    applied = 0
    for _ in range(50):
        fact = some_fact(dice)
        after = relations.edited(fact, edits, dice, 2)
        if after is not None:
            applied += 1
            assert after != fact
    assert applied > 5


def test_what_follows_only_generalises_or_forgets(dice):
    for _ in range(100):
        fact = some_fact(dice)
        after = relations.edited(fact, relations.FOLLOWS, dice)
        if after is None:
            continue
        for before, now in ((fact.subject, after.subject), (fact.object, after.object)):
            assert now.noun in (before.noun, *lexicon.ancestors(before.noun))
        assert after.verb in (fact.verb, *lexicon.ancestors(fact.verb))
        assert after.time in (fact.time, None)


def test_similarity_is_symmetric_and_ignores_roles(dice):
    for _ in range(50):
        one, two = some_fact(dice), some_fact(dice)
        assert concepts_in_common(one, two) == pytest.approx(concepts_in_common(two, one))
        assert concepts_in_common(one, one.swapped()) == concepts_in_common(one, one) == 1.0
        assert concepts_in_common(one, one.but(negated=True)) == 1.0
        assert 0 <= concepts_in_common(one, two) <= 1


def test_questions_do_not_tell_what_they_ask_for(dice):
    told = {"where": "place", "when": "time", "how": "manner"}
    for _ in range(100):
        fact = some_fact(dice, extras=0.8)
        for asked in set(askable(fact)) & set(told):
            answer = lexicon.CONCEPTS[getattr(fact, told[asked])].words
            assert not set(answer) & {word for word, _ in question(fact, asked, dice)}


def test_questions_that_say_the_same_are_duplicates(dice):
    rows = [SUITE["paraphrase_large"].make(dice) for _ in range(2000)]
    assert {label for (one, two), label in rows if one == two} == {1}


def test_tasks_disagree_about_roles():
    """What paraphrase_small calls the same, paraphrase_large does not: exchanged roles."""

    def exchanged(rows, label):
        pairs = [texts for texts, given in rows if given == label]
        return sum(sorted(a.split()) == sorted(b.split()) and a != b for a, b in pairs) / len(pairs)

    large, small = generate("paraphrase_large")["train"], generate("paraphrase_small", scale=10)["train"]
    assert exchanged(large, 0) > 5 * exchanged(large, 1)
    assert exchanged(small, 1) > 5 * exchanged(small, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_files_read_the_generated_rows(name, suite):
    spec = load_task(f"play_{name}")
    for split in spec.splits:
        rows = read_rows(spec, split)
        assert list(zip(*rows.texts, strict=True)) == [texts for texts, _ in suite[name][split]]
        assert rows.labels.tolist() == [label for _, label in suite[name][split]]
    assert spec.labels == list(SUITE[name].labels)


def test_every_generated_task_ships_as_a_file():
    assert {name for name in shipped_tasks() if name.startswith("play_")} == {f"play_{name}" for name in NAMES}


def test_a_task_file_may_ask_for_another_seed_and_scale(write):
    path = write("mine.yaml", "include: play_entailment.yaml\nname: mine\nsources: {playground: {seed: 4, scale: 2}}\n")
    rows = read_rows(load_task(path), "train")
    assert list(zip(*rows.texts, strict=True)) == [texts for texts, _ in generate("entailment", 4, 2)["train"]]


def test_an_unknown_generated_task_is_refused_with_its_place(write):
    path = write("mine.yaml", "include: play_entailment.yaml\nname: mine\nsources: {playground: {task: entailmet}}\n")
    with pytest.raises(ConfigError, match="did you mean 'entailment'"):
        load_task(path)
