"""Serving a model: the answers are the head's, per task, whatever way they are asked for."""

import numpy as np
import pytest
import yaml

from mtl_tickets.errors import InputError
from mtl_tickets.model import store
from mtl_tickets.model.encoders import load_tokenizer
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.serving import evaluate, load_model, predict, read_lines, serve
from mtl_tickets.tasks.spec import load_task
from tests.end_to_end.world import write_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world, and in it a model folder that stands alone, with heads for two of its tasks."""
    world = tmp_path_factory.mktemp("world")
    write_world(world)
    specs = [load_task(world / f"{name}.yaml") for name in ("feelings", "likeness", "same")]
    infos = [TaskInfo(s.name, s.kind, tuple(s.labels), s.outputs, s.head_dropout) for s in specs]
    model = MultiTaskModel.from_encoder(world / "encoder", infos, seed=1)
    store.save(model, world / "model", tokenizer=load_tokenizer(world / "encoder"))
    same = yaml.safe_load((world / "same.yaml").read_text(encoding="utf-8"))
    (world / "hard.yaml").write_text(yaml.safe_dump(same | {"name": "hard", "head": "same"}), encoding="utf-8")
    return world


PAIRS = [("the cat is good", "the dog is bad"), ("the tree is fine", "the tree is fine"), ("a ship", "the house")]


def test_answers_do_not_depend_on_what_they_are_asked_with(folder):
    served = serve(folder / "model")
    together = served.predict(folder / "same.yaml", PAIRS)
    alone = [served.predict(folder / "same.yaml", [pair])[0] for pair in PAIRS]
    assert [a.label for a in together] == [a.label for a in alone]
    for one, other in zip(together, alone, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)


def test_the_answer_is_the_most_probable_label_and_probabilities_add_up(folder):
    for answer in predict(folder / "model", folder / "same.yaml", PAIRS):
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
        assert answer.probability == max(answer.probabilities.values())


def test_all_tasks_answer_as_each_alone_even_where_they_read_less(folder):
    served = serve(folder / "model")
    names = ("same", "likeness", "hard")
    specs = [served.task(folder / f"{name}.yaml") for name in names]
    specs[1] = specs[1].model_copy(update={"max_length": 7})
    alone = [served.predict(spec, PAIRS) for spec in specs]
    together = served.predict_all(specs, PAIRS)
    for ours, theirs in zip(together, alone, strict=True):
        assert [answer.label for answer in ours] == [answer.label for answer in theirs]
        for one, other in zip(ours, theirs, strict=True):
            values = [one.value or 0, *one.probabilities.values()]
            assert values == pytest.approx([other.value or 0, *other.probabilities.values()], abs=1e-5)
    assert served.predict_all(specs, []) == [[], [], []]
    with pytest.raises(InputError, match="task feelings needs one text"):
        served.predict_all([specs[0], served.task(folder / "feelings.yaml")], PAIRS)


def test_the_logits_are_those_of_the_model(folder):
    import torch

    served = serve(folder / "model")
    spec = served.task(folder / "same.yaml")
    model, tokenizer = load_model(folder / "model"), served.tokenizer
    encoded = tokenizer([a for a, _ in PAIRS], [b for _, b in PAIRS], padding=True, return_tensors="pt")
    with torch.inference_mode():
        (logits,) = model(**encoded, segments=[(model.task_index("same"), 0, len(PAIRS))])
    expected = torch.softmax(logits, -1).numpy()
    found = [list(a.probabilities.values()) for a in served.predict(spec, PAIRS)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_regression_gives_a_number_and_no_label(folder):
    spec = load_task(folder / "likeness.yaml")
    assert spec.kind == "regression"
    (answer,) = predict(folder / "model", folder / "likeness.yaml", PAIRS[:1])
    assert answer.label is None
    assert answer.probability is None
    assert np.isfinite(answer.value)


def test_a_task_with_another_head_is_answered_by_it(folder):
    served = serve(folder / "model")
    mine, theirs = (served.predict(folder / f"{name}.yaml", PAIRS) for name in ("hard", "same"))
    assert mine == theirs


def test_single_texts_where_pairs_are_due_are_refused_one_by_one(folder):
    with pytest.raises(InputError) as error:
        predict(folder / "model", folder / "same.yaml", [PAIRS[0], "only one", ("a", "b", "c")])
    assert [problem.place for problem in error.value.problems] == ["example 2", "example 3"]


def test_no_texts_have_no_answers(folder):
    assert predict(folder / "model", folder / "same.yaml", []) == []


def test_a_task_without_a_head_is_refused_with_the_nearest(folder, tmp_path):
    spec = yaml.safe_load((folder / "same.yaml").read_text(encoding="utf-8"))
    other = tmp_path / "saem.yaml"
    other.write_text(yaml.safe_dump(spec | {"name": "saem"}), encoding="utf-8")
    with pytest.raises(InputError, match="'same'"):
        serve(folder / "model").task(other)


def test_a_task_with_other_labels_than_its_head_is_refused(folder, tmp_path):
    spec = yaml.safe_load((folder / "same.yaml").read_text(encoding="utf-8"))
    for source in spec["sources"].values():
        source.pop("label_map", None)
    other = tmp_path / "same.yaml"
    other.write_text(yaml.safe_dump(spec | {"labels": spec["labels"][::-1]}), encoding="utf-8")
    with pytest.raises(InputError, match="trained on"):
        serve(folder / "model").task(other)


def test_a_file_is_evaluated_by_the_columns_of_the_task_or_by_those_named(folder, tmp_path):
    (as_trained,) = evaluate(folder / "model", folder / "feelings.yaml", data=folder / "feelings-dev.tsv")
    (own_rows,) = evaluate(folder / "model", folder / "feelings.yaml")
    assert as_trained.score == pytest.approx(own_rows.score)
    assert as_trained.rows == own_rows.rows
    renamed = tmp_path / "renamed.tsv"
    lines = (folder / "feelings-dev.tsv").read_text(encoding="utf-8").splitlines()
    renamed.write_text("\n".join(["words\tgold", *lines[1:]]) + "\n", encoding="utf-8")
    (named,) = evaluate(folder / "model", folder / "feelings.yaml", data=renamed, text=["words"], label="gold")
    assert named.score == pytest.approx(own_rows.score)
    with pytest.raises(InputError, match="column"):
        evaluate(folder / "model", folder / "feelings.yaml", data=renamed)


def test_lines_come_in_portions_and_bad_ones_are_named():
    assert list(read_lines(iter(["a\tb\n", "c\td\r\n", "e\t\n"]), 2)) == [[("a", "b"), ("c", "d")], [("e", "")]]
    assert list(read_lines(iter([]), 2)) == []
    portions = read_lines(iter(["a\n", "b\n", "\n", "c\td\n"]), 2)
    assert next(portions) == [("a",), ("b",)]
    with pytest.raises(InputError) as error:
        next(portions)
    assert [problem.place for problem in error.value.problems] == ["line 3", "line 4"]
