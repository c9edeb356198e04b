import numpy as np
import pytest

from mtl_tickets.evaluation.yardsticks import bag_of_words, majority
from mtl_tickets.tasks.sources import Rows
from mtl_tickets.tasks.spec import TaskSpec


def rows(texts, labels):
    return Rows([texts], np.asarray(labels), np.arange(1, len(texts) + 1), ["no", "yes"])


TASK = TaskSpec.model_construct(name="t", kind="classification", labels=["no", "yes"])
QUESTIONS = rows(["a fine cat", "an awful dog"], None)


@pytest.mark.parametrize(
    "train",
    [
        rows(["one two", "three four", "five six"], [1, 0, 1]),  # no word twice
        rows(["lone"], [1]),
        rows(["the cat", "the dog", "the cat"], [1, 1, 1]),  # one label
    ],
)
def test_with_nothing_to_learn_from_words_are_the_majority(train):
    np.testing.assert_array_equal(bag_of_words(TASK, train, QUESTIONS), majority(TASK, train, QUESTIONS))


def test_words_tell_what_the_majority_cannot():
    train = rows(["a fine cat", "a fine dog", "an awful cat", "an awful dog", "an awful cat"], [1, 1, 0, 0, 0])
    assert bag_of_words(TASK, train, QUESTIONS).tolist() == [1, 0]
    assert majority(TASK, train, QUESTIONS).tolist() == [0, 0]
