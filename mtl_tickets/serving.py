"""Using what a run left: load a model, evaluate a task on any data, predict lines. Floor 5.

A place is an experiment folder (one model a seed), a run, or a model folder. Everything is read from there: weights,
tickets, tokenizer, the tasks and how long inputs may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_tickets.documents import read_yaml
from mtl_tickets.errors import ConfigError, DataError, InputError, Problem, nearest
from mtl_tickets.locate import ModelPlace, find_models
from mtl_tickets.tasks.sources import DataSettings, Rows, read_file, read_rows
from mtl_tickets.tasks.spec import TaskSpec, load_task

if TYPE_CHECKING:
    from mtl_tickets.experiment import Experiment
    from mtl_tickets.model.multitask import MultiTaskModel
    from mtl_tickets.tasks.encode import EncodedTask

Texts = Sequence[str | Sequence[str]]
"""One text an example, or a pair of texts an example."""

MAX_LENGTH = 128


@dataclass(frozen=True)
class Prediction:
    """The answer for one example. ``probabilities``: label -> probability; empty for regression, where ``label`` is
    None and ``value`` the predicted number."""

    label: str | None
    probabilities: dict[str, float]
    value: float | None = None

    @property
    def probability(self) -> float | None:
        """Of the label; None for regression."""
        return None if self.label is None else self.probabilities[self.label]


@dataclass(frozen=True)
class Scored:
    """One model's metrics on one split. ``seed``: the run's, None for a model that stands alone."""

    model: str
    seed: int | None
    split: str
    rows: int
    metrics: dict[str, float]
    score: float


class Served:
    """A model ready to be asked, with its tokenizer."""

    def __init__(self, place: ModelPlace):
        from mtl_tickets.model import store
        from mtl_tickets.processes import accelerator_for

        self.place = place
        self.accelerator = accelerator_for()
        self.model: MultiTaskModel = store.load(place.folder, device=self.accelerator.device)
        self.tokenizer = store.load_tokenizer(place.folder)
        self._extra = store.read_extra(place.folder)

    @cached_property
    def experiment(self) -> Experiment | None:
        """The configuration of the run this model belongs to."""
        from mtl_tickets.experiment import Experiment
        from mtl_tickets.settings import check

        if self.place.run is None:
            return None
        return check(Experiment, read_yaml(self.place.run / "config.yaml"))

    @property
    def max_length(self) -> int:
        if "max_length" in self._extra:
            return int(self._extra["max_length"])
        if self.experiment is not None:
            return self.experiment.encoder.max_length
        return min(MAX_LENGTH, int(getattr(self.model.config, "max_position_embeddings", MAX_LENGTH)))

    def task(self, name: str | Path) -> TaskSpec:
        """The task called so, as the model was trained on it; or a task file, for a task of your own that is answered
        by one of the model's heads.

        Raises :class:`InputError` where the model has no head for it.
        """
        spec = self._spec(name)
        heads = [info.name for info in self.model.tasks]
        head = spec.head or spec.name
        if head not in heads:
            raise InputError(Problem("the model has no head for this task", found=head, hint=nearest(head, heads)))
        trained = next(info for info in self.model.tasks if info.name == head)
        if spec.head is None and (spec.kind != trained.kind or tuple(spec.labels) != tuple(trained.labels)):
            rule = "the task must have the labels its head was trained on"
            raise ConfigError(Problem(rule, str(name), "labels", list(spec.labels), f"they are {list(trained.labels)}"))
        return spec

    def _spec(self, name: str | Path) -> TaskSpec:
        kept = self._extra.get("tasks", {})
        if name in kept:
            return TaskSpec.model_validate(kept[name])
        heads = [info.name for info in self.model.tasks]
        # an experiment names a task by its name or by its file
        listed = {Path(entry).stem: entry for entry in (self.experiment.tasks if self.experiment else ())}
        try:
            return load_task(listed.get(str(name), name))
        except ConfigError as error:
            if str(name) in (*heads, *listed):
                rule = f"the file of this task is not where it was ({error.problems[0].rule})"
                raise ConfigError(Problem(rule, "--task", "", str(name), "give the path of the file")) from None
            if Path(name).suffix:
                raise
            raise InputError(
                Problem(
                    "the model has no such task",
                    "--task",
                    "",
                    str(name),
                    nearest(name, list(dict.fromkeys([*heads, *listed]))),
                )
            ) from None

    def predict(self, task: str | Path | TaskSpec, texts: Texts) -> list[Prediction]:
        """The answers for texts (or pairs of texts), in their order."""
        return self.predict_all([task], texts)[0]

    def predict_all(self, tasks: Sequence[str | Path | TaskSpec], texts: Texts) -> list[list[Prediction]]:
        """For each of these tasks the answers for the same texts (or pairs of texts), in their order.

        The text is read once, and what the tasks' tickets agree on is computed once.
        """
        from mtl_tickets.evaluation.evaluate import predict_logits
        from mtl_tickets.tasks.encode import encode

        specs = [task if isinstance(task, TaskSpec) else self.task(task) for task in tasks]
        if not texts:
            return [[] for _ in specs]
        # each task looks whether the texts are what it takes; to all of them they are the same columns
        columns = [_columns(texts, spec) for spec in specs].pop()
        answers: dict[str, list[Prediction]] = {}
        lengths = [spec.max_length or self.max_length for spec in specs]
        for length in dict.fromkeys(lengths):  # tasks that read less of a text see another text
            together = [spec for spec, its in zip(specs, lengths, strict=True) if its == length]
            rows = Rows(columns, None, np.arange(1, len(texts) + 1), list(together[0].labels), file="texts")
            encoded = encode(together[0], "lines", rows, self.tokenizer, length, None)
            heads = [spec.head or spec.name for spec in together]
            logits = predict_logits(self.model, heads, encoded, self.accelerator, self.tokenizer.pad_token_id)
            answers |= {
                spec.name: self._answers(spec, logits[head]) for spec, head in zip(together, heads, strict=True)
            }
        return [answers[spec.name] for spec in specs]

    def _answers(self, spec: TaskSpec, logits: np.ndarray) -> list[Prediction]:
        if spec.kind == "regression":
            return [Prediction(None, {}, float(value)) for value in logits[:, 0]]
        from mtl_tickets.evaluation.evaluate import predictions

        chosen = predictions(self.model, spec, logits)
        shares = _probabilities(self.model, spec, logits)
        return [
            Prediction(spec.labels[int(label)], dict(zip(spec.labels, map(float, share), strict=True)))
            for label, share in zip(chosen, shares, strict=True)
        ]

    def evaluate(self, spec: TaskSpec, rows: Rows, name: str) -> Scored:
        """The task's metrics on labelled rows; ``name`` is what the result is called by."""
        from mtl_tickets.tasks.encode import encode

        encoded = encode(spec, "rows", rows, self.tokenizer, spec.max_length or self.max_length, None)
        return self._scored(spec, encoded, name)

    def evaluate_split(self, spec: TaskSpec, split: str) -> Scored:
        """The task's metrics on one of its splits, on the rows the run takes (its source, its caps)."""
        from mtl_tickets.tasks.data import LimitSettings, SelectionSettings, TaskData

        if spec.splits.get(split) != "labelled":
            valid = [name for name, kind in spec.splits.items() if kind == "labelled"]
            raise InputError(Problem("must be a labelled split", "--split", "", split, nearest(split, valid)))
        run = self.experiment
        settings = run.data if run else DataSettings()
        if split not in spec.dev_splits:
            return self.evaluate(spec, read_rows(spec, split, settings), split)
        limit, cache = (run.limit, run.cache) if run else (LimitSettings(), Path(".cache"))
        data = TaskData(spec, settings, limit, SelectionSettings(), self.tokenizer, self.max_length, cache)
        return self._scored(spec, data.dev[split], split)

    def _scored(self, spec: TaskSpec, encoded: EncodedTask, name: str) -> Scored:
        from mtl_tickets.evaluation.evaluate import evaluate

        result = evaluate(self.model, spec, encoded, self.accelerator, self.tokenizer.pad_token_id)
        return Scored(str(self.place.folder), self.place.seed, name, result.rows, dict(result.metrics), result.score)


def load_model(path: str | Path, rule: str | None = None) -> MultiTaskModel:
    """The model of a run (``rule`` says which, default ``adaptive``) or in a model folder."""
    from mtl_tickets.model import store

    return store.load(_one_place(path, rule).folder)


def serve(path: str | Path, rule: str | None = None) -> Served:
    """The model of a run or in a model folder, ready to be asked many times."""
    return Served(_one_place(path, rule))


def predict(path: str | Path, task: str | Path, texts: Texts, rule: str | None = None) -> list[Prediction]:
    """The answers of a run's model, or of a model folder, for texts (or pairs of texts).

    Raises :class:`InputError` for a place without such a model, an unknown task, or pairs where single texts are due.
    """
    return serve(path, rule).predict(task, texts)


def evaluate(
    path: str | Path,
    task: str | Path,
    data: str | Path | None = None,
    rule: str | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
) -> list[Scored]:
    """A task's metrics for every model at ``path`` (one a seed for an experiment folder).

    Without ``data`` the rows are those of the run: its sources, its dev splits (or ``split``), its caps, so that the
    numbers are those of its table. ``data`` is a csv, tsv, jsonl or parquet file; ``text`` and ``label`` name its
    columns where they are called otherwise than in the task's sources.
    """
    if data is None and (text or label):
        raise InputError(Problem("columns are named for a file: give the file too", file="--text, --label"))
    scored = []
    for place in find_models(path, rule):
        served = Served(place)
        spec = served.task(task)
        if data is not None:
            rows = read_file(spec, Path(data), True, list(text) if text else None, label)
            scored.append(served.evaluate(spec, rows, Path(data).name))
        else:
            scored += [served.evaluate_split(spec, name) for name in ([split] if split else spec.dev_splits)]
    return scored


def read_lines(lines: Iterator[str], size: int) -> Iterator[list[tuple[str, ...]]]:
    """Lines as examples, ``size`` at a time: one text, or two separated by a tab.

    Raises :class:`DataError` with every line of a portion that is empty, or has another number of texts than the
    first line.
    """
    width = 0
    portion: list[tuple[str, ...]] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        fields = tuple(line.rstrip("\r\n").split("\t"))
        width = width or len(fields)
        if len(fields) > 2:
            problems.append(_line_problem(number, "must be one text, or two separated by a tab", line))
        elif len(fields) != width:
            problems.append(_line_problem(number, f"must have {width} texts, as the first line", line))
        elif not any(field.strip() for field in fields):
            problems.append(_line_problem(number, "must have some text", line))
        portion.append(fields)
        if len(portion) == size:
            if problems:
                break
            yield portion
            portion = []
    if problems:
        raise DataError(problems[:20])
    if portion:
        yield portion


def _line_problem(number: int, rule: str, line: str) -> Problem:
    return Problem(rule, file="input", place=f"line {number}", found=line.rstrip("\r\n"))


def known_encoders() -> dict[str, str]:
    """Encoders by name, and what else may be named."""
    from mtl_tickets.model.anatomy import ANATOMIES
    from mtl_tickets.pretraining.encoders import ENCODERS

    return {
        **ENCODERS.summaries(),
        "any folder, hub name": f"a pretrained encoder of the architecture {', '.join(ANATOMIES)}",
    }


def _one_place(path: str | Path, rule: str | None) -> ModelPlace:
    places = find_models(path, rule)
    if len(places) > 1:
        hint = "name one of them: " + ", ".join(str(place.run) for place in places)
        raise InputError(Problem("there is a model of each seed here", file=str(path), hint=hint))
    return places[0]


def _columns(texts: Texts, spec: TaskSpec) -> list[list[str]]:
    """Examples -> columns of texts, all of one width, that of the task where its sources say it."""
    examples = [(example,) if isinstance(example, str) else tuple(example) for example in texts]
    width = spec_width(spec) or len(examples[0])
    wanted = "one text" if width == 1 else f"{width} texts, separated by a tab"
    problems = [
        Problem(f"task {spec.name} needs {wanted}", place=f"example {i}", found="\t".join(example))
        for i, example in enumerate(examples, 1)
        if len(example) != width
    ]
    if problems:
        raise DataError(problems[:20])
    return [list(column) for column in zip(*examples, strict=True)]


def spec_width(spec: TaskSpec) -> int | None:
    """How many texts an example of the task has, where one of its sources says so."""
    widths = {len(columns) for source in spec.sources.values() if (columns := getattr(source, "text", None))}
    return widths.pop() if len(widths) == 1 else None


def _probabilities(model: Any, spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """[rows, labels of the task]: softmax over the head's labels, added up where several of them collapse into one."""
    from scipy.special import softmax

    shares = softmax(logits.astype(np.float64), axis=1)
    if spec.head is None:
        return shares
    ids = spec.ids_from_head(model.tasks[model.task_index(spec.head)].labels)
    collapse = np.zeros((len(ids), len(spec.labels)))
    collapse[np.arange(len(ids)), ids] = 1
    return shares @ collapse
