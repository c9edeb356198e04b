"""``check``: experiments and tasks validated before anything is trained, every problem of every file at once.

Where the data can be read it is read and encoded as a run would (into the same cache), and its facts are given back:
rows, labels, lengths in tokens, one encoded sample. Floor 5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_tickets.documents import read_yaml
from mtl_tickets.errors import CheckpointError, ConfigError, DataError, InputError, Problem, TicketError, nearest
from mtl_tickets.tasks.sources import DataSettings, read_rows
from mtl_tickets.tasks.sources.rows import choose_source
from mtl_tickets.tasks.spec import TaskSpec, load_task, shipped_tasks, task_config_folder

if TYPE_CHECKING:
    from mtl_tickets.model.settings import EncoderSettings
    from mtl_tickets.tasks.sources import Rows

Said = Callable[[str], object]
MAX_LENGTH = 128  # of task files, which leave it to the experiment


@dataclass
class Checked:
    """One file in which no problem was found.

    ``splits``: facts of every split that was read, see :func:`mtl_tickets.tasks.summary.describe` (without an encoder
    only ``task``, ``split``, ``rows``, ``labels`` and the texts of a ``sample``). ``not_read``: task -> why its data
    was not read, and ``encoder`` -> why its tokenizer was not.
    """

    file: str
    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    splits: list[dict[str, Any]] = field(default_factory=list)
    not_read: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_files(
    files: Sequence[str | Path],
    data: bool | None = None,
    encoder: str | None = None,
    root: Path | None = None,
    overrides: Sequence[str] = (),
    said: Said = lambda text: None,
) -> list[Checked]:
    """Checks experiment files (those with a ``recipe``) and task files, or shipped ones by name.

    ``data``: True insists on reading the data, False leaves it alone, None reads what can be read: a dataset of the hub
    that cannot be reached, or files whose folder nobody has named, are then no problem. ``encoder``: whose tokenizer
    measures lengths for task files. ``root``: where the data of task files lies. ``overrides``: ``key.path=value``
    texts for the experiments, as for a run. ``said`` hears what is being done.

    Raises :class:`InputError` with all problems of all files.
    """
    problems: list[Problem] = []
    checked: list[Checked] = []
    for file in files:
        said(f"checking {file}")
        try:
            path = _path(file)
            work = _Check(data, encoder, root, overrides, said)
            item = work.experiment(path) if "recipe" in _keys(path) else work.task(path)
        except InputError as error:
            problems += error.problems
            continue
        problems += work.problems
        checked.append(item)
    if problems:
        raise InputError(list(dict.fromkeys(problems)) if _hashable(problems) else problems)
    return checked


def _path(name: str | Path) -> Path:
    """The file, or the shipped experiment or task of this name."""
    path = Path(name)
    if os.path.exists(path) or path.suffix or len(path.parts) > 1:
        return path
    for kind in ("experiments", "tasks"):
        shipped = task_config_folder() / kind / f"{name}.yaml"
        if os.path.isfile(shipped):
            return shipped
    known = shipped_tasks() + sorted(p.stem for p in (task_config_folder() / "experiments").glob("*.yaml"))
    raise ConfigError(Problem("no such file, shipped experiment or task", found=str(name), hint=nearest(name, known)))


def _keys(path: Path) -> set[str]:
    folder = task_config_folder()
    return set(read_yaml(path, [path.parent, folder / "experiments", folder / "tasks"]).data)


def _hashable(problems: Sequence[Problem]) -> bool:
    try:
        hash(tuple(problems))
    except TypeError:
        return False
    return True


class _Check:
    """The check of one file; problems with data are collected, so that one task does not hide another."""

    def __init__(self, data: bool | None, encoder: str | None, root: Path | None, overrides: Sequence[str], said: Said):
        self.data, self.encoder, self.root, self.overrides, self.said = data, encoder, root, overrides, said
        self.problems: list[Problem] = []

    def experiment(self, path: Path) -> Checked:
        from mtl_tickets.experiment import load_experiment

        loaded = load_experiment(path, self.overrides)
        experiment = loaded.experiment
        facts = {
            "recipe": experiment.recipe.kind,
            "encoder": experiment.encoder.name,
            "tasks": list(loaded.tasks),
            "seeds": list(experiment.seeds),
            "writes to": str(loaded.folder),
        }
        base = getattr(experiment.recipe, "base", None)
        if base is not None:
            facts["base"] = str(base)
        item = Checked(str(path), "experiment", experiment.name, facts)
        if self.data is not False:
            tokenizer = self._tokenizer(experiment.encoder.name, experiment.cache, item)
            if base is not None and "encoder" not in item.not_read:
                self._base(base, experiment.encoder, experiment.cache, item)
            if (language := getattr(experiment.recipe, "language", None)) is not None:
                self._text(language, item)
            for spec in loaded.tasks.values():
                self._read(spec, experiment.data, tokenizer, experiment.encoder.max_length, experiment.cache, item)
        return item

    def task(self, path: Path) -> Checked:
        spec = load_task(path)
        facts = {
            "kind": spec.kind,
            "labels": list(spec.labels),
            "metrics": list(spec.metrics),
            "sources": list(spec.sources),
        }
        item = Checked(str(path), "task", spec.name, facts)
        if self.data is not False:
            tokenizer = self._tokenizer(self.encoder, Path(".cache"), item) if self.encoder else None
            self._read(spec, DataSettings(root=self.root), tokenizer, MAX_LENGTH, None, item)
        return item

    def _read(
        self,
        spec: TaskSpec,
        data: DataSettings,
        tokenizer: Any,
        max_length: int,
        cache: Path | None,
        item: Checked,
    ) -> None:
        """Reads the splits that a run reads: train, and all that the task is reported on."""
        data = data.of_task(spec.name)
        for split in [*(["train"] if spec.head is None else []), *spec.dev_splits]:
            self.said(f"reading {spec.name} {split}")
            try:
                _, source = choose_source(spec, split, data)
            except DataError as error:
                self.problems += error.problems
                continue
            if source.kind == "files" and data.root is None and getattr(source, "root", None) is None and not self.data:
                item.not_read[spec.name] = "files: the folder of the data is not given (root)"
                return
            try:
                rows = read_rows(spec, split, data)
                facts = _facts(spec, rows, split, tokenizer, spec.max_length or max_length, cache)
            except DataError as error:
                # the source says so by chaining the library's error: it could not be reached or is not there
                if source.kind == "hub" and error.__cause__ is not None and not self.data:
                    item.not_read[spec.name] = f"{source.kind}: {error.problems[0].hint or error.problems[0].rule}"
                    return
                self.problems += error.problems
                continue
            item.splits.append(facts)

    def _text(self, language: Any, item: Checked) -> None:
        """Whether the files of a recipe's text are there; what they hold is read by the run."""
        from mtl_tickets.pretraining.text import find_sources

        try:
            find_sources(language.text, language.playground_tokens, language.packs_vocabulary)
        except InputError as error:
            if self.data:
                self.problems += error.problems
            else:
                item.not_read["text"] = f"{error.problems[0].file}: {error.problems[0].rule}"

    def _base(self, base: Path, encoder: EncoderSettings, cache: Path, item: Checked) -> None:
        """Whether the recipe's base is of the encoder; of its weights only where they lie here."""
        from mtl_tickets.model.encoders import encoder_hash, load_encoder, read_config
        from mtl_tickets.pretraining.encoders import resolve_encoder
        from mtl_tickets.recipes.base_ticket import fitting_base

        self.said(f"comparing {base} with {encoder.name}")
        place = resolve_encoder(encoder.name, cache)
        try:
            here = encoder.weights == "pretrained" and Path(place).is_dir()
            fitting_base(base, read_config(place), encoder_hash(load_encoder(place)) if here else None)
        except TicketError as error:
            self.problems += error.problems
        except CheckpointError as error:
            if self.data or not _unreachable(error):
                raise
            item.not_read["encoder"] = f"{encoder.name}: the hub could not be reached, so the base was not compared"

    def _tokenizer(self, encoder: str, cache: Path, item: Checked) -> Any:
        """None where the hub cannot be reached and the data is not insisted on: that says nothing of the file."""
        from mtl_tickets.model.encoders import load_tokenizer
        from mtl_tickets.pretraining.encoders import resolve_encoder

        self.said(f"loading the tokenizer of {encoder} (an encoder that builds itself is built once)")
        try:
            return load_tokenizer(resolve_encoder(encoder, cache))
        except CheckpointError as error:
            if self.data or not _unreachable(error):
                raise
            item.not_read["encoder"] = f"{encoder}: the hub could not be reached, and it is not in the hub's cache here"
            return None


def _unreachable(error: BaseException) -> bool:
    """Whether it comes from a hub that did not answer and a cache without the file."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _facts(
    spec: TaskSpec, rows: Rows, split: str, tokenizer: Any, max_length: int, cache: Path | None
) -> dict[str, Any]:
    if tokenizer is not None:
        from mtl_tickets.tasks.encode import encode
        from mtl_tickets.tasks.summary import describe

        encoded = encode(spec, split, rows, tokenizer, max_length, cache)
        return {"split": split, **describe(spec, rows, encoded, tokenizer)}
    labels: dict[str, Any] | None = None
    if rows.labels is not None and spec.kind == "classification":
        labels = {name: int((rows.labels == i).sum()) for i, name in enumerate(spec.labels)}
    elif rows.labels is not None:
        labels = {name: float(getattr(rows.labels, name)()) for name in ("min", "mean", "max")}
    label = None if rows.labels is None else rows.labels[0].item()
    sample = {
        rows.unit: int(rows.lines[0]),
        "texts": [column[0] for column in rows.texts],
        "label": spec.labels[int(label)] if label is not None and spec.kind == "classification" else label,
    }
    return {"task": spec.name, "split": split, "file": rows.file, "rows": len(rows), "labels": labels, "sample": sample}
