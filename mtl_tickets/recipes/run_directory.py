"""One run on disk: stages that are done once, rows, and a record of where the numbers came from.

config.yaml       the experiment, resolved            record.json     commit, versions, device, seed, times
inputs.json       what the encoder and the data held  .lock           held by the process that writes
stages/<stage>/   done.json and what the stage kept   tickets/        one safetensors file a task and rule
model/<rule>/     the multi-task models               results.jsonl   every metric row     log.txt
SHA256SUMS        of what a stage, and of what the finished run has written: what is damaged is done anew

Of several processes that run together the first reads what there is and writes; the others are told what it found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mtl_tickets.errors import CheckpointError, Problem
from mtl_tickets.evaluation.records import Row
from mtl_tickets.files import (
    json_text,
    locked,
    nothing_kept,
    read_json,
    sweep_parts,
    write_json,
    write_jsonl,
    write_text,
    writing_noted,
)
from mtl_tickets.processes import by_main, is_main
from mtl_tickets.provenance import commit, device, now, versions
from mtl_tickets.recipes.shared import DONE, SharedStages, linked
from mtl_tickets.sums import SUMS, damages, write_sums

# a stage's checkpoint while it runs; it goes when the stage is done
CHECKPOINT = "checkpoint.safetensors"
# what a finished run's own list of sums has
OF_THE_RUN = ("config.yaml", "inputs.json", "record.json", "results.jsonl")
# where the stages of a restarted run lie while they are deleted
THROWN_AWAY = ".thrown-away"

logger = logging.getLogger(__name__)

StageWork = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Input:
    """What stages are made from, for people (``name`` and ``file``) and as ``key``, a hash of its content."""

    name: str
    file: str
    key: str


class RunDirectory:
    """The folder of one run (one recipe, one configuration, one seed)."""

    def __init__(
        self, path: Path, config: dict[str, Any], config_digest: str, seed: int, shared: SharedStages | None = None
    ):
        self.path = path
        self.shared = shared
        self.config = config
        self.config_digest = config_digest
        self.seed = seed
        self.name = f"{path.parent.name}/{path.name}"
        self._stages: list[str] = []
        # a worker process writes stages; results.jsonl is its parent's
        self.only_stages = False

    @contextlib.contextmanager
    def opened(self, resume: bool, restart: bool) -> Iterator[None]:
        """Locks the run for this process and writes its configuration.

        An unfinished run is only gone on with where ``resume`` says so, and thrown away where ``restart`` does.
        """
        with contextlib.ExitStack() as held:
            by_main(lambda: held.enter_context(self._held(resume, restart)))
            yield

    @contextlib.contextmanager
    def _held(self, resume: bool, restart: bool) -> Iterator[None]:
        with locked(self.path, patience=10.0):
            if restart:
                self._throw_away()
            shutil.rmtree(self.path / THROWN_AWAY, ignore_errors=True)
            sweep_parts(self.path)
            damaged = damages(self.path / SUMS, self.path)
            stages = self._damaged_stages() if resume else {}
            finished = run_finished(self.path) and not damaged and not stages
            if (self.path / "stages").is_dir() and not finished and not resume:
                rule = "this run was stopped before its end" if not damaged else f"this run is damaged ({damaged[0]})"
                hint = "add --resume to go on where it stopped, or --restart to throw it away"
                raise CheckpointError(Problem(rule, file=str(self.path), hint=hint))
            self._found([*damaged, *(problem for of_stage in stages.values() for problem in of_stage)])
            for done in stages:  # are done anew
                done.unlink()
            if not finished:
                (self.path / SUMS).unlink(missing_ok=True)
            # the configuration makes a folder a run: what is read of every run is there before it
            if not finished:
                write_json(self.path / "record.json", self._record(finished=None))
            if not finished or not (self.path / "config.yaml").exists():
                self._write_config()
            yield

    def _damaged_stages(self) -> dict[Path, list[Problem]]:
        """Where stages say that they are done, and are not, bit for bit, what they were then -> what is not."""
        found = {}
        for done in sorted((self.path / "stages").rglob(DONE)):
            problems = damages(done.with_name(SUMS), self.path)
            try:
                read_json(done)  # a list that is gone says nothing, but what cannot be read is no result
            except CheckpointError as error:
                problems = problems or list(error.problems)
            if problems:
                found[done] = problems
        return found

    def _found(self, damaged: Sequence[Problem]) -> None:
        for problem in damaged:
            self.log(f"found damaged and made anew: {problem}")
            logger.warning("%s; it is made anew", problem)

    def _throw_away(self) -> None:
        """Stages go at once and before what they say is there: killed at any moment, what is left is a whole run or the
        leavings of none, never one that seems finished or half done and is not."""
        (self.path / "record.json").unlink(missing_ok=True)
        shutil.rmtree(self.path / THROWN_AWAY, ignore_errors=True)
        if (self.path / "stages").exists():
            os.replace(self.path / "stages", self.path / THROWN_AWAY)
        for item in self.path.iterdir():
            if item.name != ".lock":
                shutil.rmtree(item) if item.is_dir() else item.unlink()

    @property
    def finished(self) -> bool:
        return by_main(lambda: run_finished(self.path))

    def began_elsewhere(self, places: dict[str, Any]) -> bool:
        """Whether the run was made from files that lay in other places than these."""
        path = self.path / "inputs.json"

        def elsewhere() -> bool:
            return path.exists() and dict(read_json(path))["places"] != places  # type: ignore[call-overload]

        return by_main(elsewhere)

    def keep_inputs(self, inputs: Sequence[Input], places: dict[str, Any], tasks: Mapping[str, dict[str, Any]]) -> None:
        """Keeps what the run is made from; once a stage has used it, other content is refused.

        ``places`` are the folders it lies in, which may change as long as the content does not; ``tasks`` what the
        tasks are, for who reads the run. Raises :class:`CheckpointError` with every input that is not what it was.
        """
        by_main(lambda: self._keep_inputs(inputs, places, tasks))

    def _keep_inputs(
        self, inputs: Sequence[Input], places: dict[str, Any], tasks: Mapping[str, dict[str, Any]]
    ) -> None:
        path, record = self.path / "inputs.json", self.path / "record.json"
        keys = {i.name: {"file": i.file, "key": i.key} for i in inputs}
        now_kept = json_text({"places": places, "inputs": keys, "tasks": dict(tasks)})
        known, damaged = self._known_inputs()
        self._found(damaged)
        if self._has_begun() and (known or damaged):
            rule = "must hold what it held when this run began"
            hint = f"--restart throws {self.path} away and starts over; "
            hint += "to keep that run, give the experiment another name"
            changed = [i for i in inputs if i.key not in [copy.get(i.name) for copy in known]]
            if changed:
                raise CheckpointError([Problem(rule, file=i.file, place=i.name, hint=hint) for i in changed])
        plain = {name: about["key"] for name, about in keys.items()}
        written = self._record(finished=None, begins=False)
        if written.get("inputs") == plain and path.exists() and path.read_bytes() == now_kept.encode():
            return
        sealed = (self.path / SUMS).exists()
        (self.path / SUMS).unlink(missing_ok=True)
        write_json(record, {**written, "inputs": plain})
        self._write_config()  # it says where the inputs lie
        write_text(path, now_kept)
        if sealed:  # a finished run whose inputs have moved
            self._list_sums()

    def _known_inputs(self) -> tuple[list[dict[str, str]], list[Problem]]:
        """Name -> key of what the run is made from, as it is kept in two places; and those of them that are damaged."""
        copies: list[dict[str, str]] = []
        found: list[Problem] = []
        for name in ("inputs.json", "record.json"):
            with_keys = (self.path / name).exists()
            try:
                content = dict(read_json(self.path / name)) if with_keys else {}  # type: ignore[call-overload]
                if (inputs := content.get("inputs")) is not None:
                    copies.append({k: v["key"] if isinstance(v, dict) else v for k, v in inputs.items()})
            except (CheckpointError, TypeError, ValueError, AttributeError, KeyError):
                found.append(Problem("must say what the run is made from: it is damaged", file=str(self.path / name)))
        return copies, found

    def _has_begun(self) -> bool:
        return any(item.is_file() for item in (self.path / "stages").rglob("*"))

    def _write_config(self) -> None:
        write_text(self.path / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    def stage_folder(self, stage: str) -> Path:
        return self.path / "stages" / stage

    def stage(self, stage: str, work: StageWork, made_from: str | None = None) -> dict[str, Any]:
        """Does ``work(folder)`` once and keeps what it returns (JSON-able, with its metric rows under ``rows``).

        Where the stage is done already, what was kept is returned and nothing is computed. ``made_from`` stands for
        everything that decides the result: runs that share stages find it by that (:meth:`take`).
        """
        folder = self.stage_folder(stage)
        self._stages.append(stage)
        if self.is_done(stage):
            return by_main(lambda: self.result(stage))
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with contextlib.nullcontext() if is_main() else nothing_kept(), writing_noted() as written:
            result = work(folder)
        result["seconds"] = round(time.monotonic() - started, 3)

        def keep() -> dict[str, Any]:
            self._write_done(folder, result, [path for path in written if path.name != CHECKPOINT])
            self.drop_checkpoint(stage)
            if self.shared is not None and made_from is not None:
                left = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != CHECKPOINT]
                self.shared.give(made_from, left)
            self._write_results(all_done=True)
            return result

        with writing_noted():  # what is kept of this stage is none of what a stage around it has written
            return by_main(keep)

    def _write_done(self, folder: Path, result: dict[str, Any], written: Sequence[Path]) -> None:
        text = json_text(result)
        own = [path for path in written if path.is_relative_to(self.path)]
        write_sums(folder / SUMS, self.path, own, {folder / DONE: text})
        write_text(folder / DONE, text)

    def drop_checkpoint(self, stage: str) -> None:
        """What a stage that is done, or given up, would have gone on from."""
        (self.stage_folder(stage) / CHECKPOINT).unlink(missing_ok=True)

    def take(self, stage: str, made_from: str | None) -> None:
        """Takes the stage over from a run that has done it from the same, if there is one. Its rows become this run's,
        and ``taken`` says where they are from."""
        if (shared := self.shared) is not None and made_from is not None:
            by_main(lambda: self._take(stage, shared, made_from))

    def _take(self, stage: str, shared: SharedStages, made_from: str) -> None:
        if self._is_done(stage):
            return
        source, problems = shared.find(made_from)
        self._found(problems)
        if source is None:
            return
        folder = self.stage_folder(stage)
        folder.mkdir(parents=True, exist_ok=True)
        taken = [folder / file.name for file in sorted(source.iterdir()) if file.name not in (DONE, SUMS)]
        for file in taken:
            file.unlink(missing_ok=True)
            linked(source / file.name, file)
        result = dict(read_json(source / DONE))  # type: ignore[call-overload]
        rows = [{**row, "run": self.name, "config": self.config_digest} for row in result.get("rows", [])]
        by = {"run": result["rows"][0]["run"]} if result.get("rows") else {}
        result = {**result, "rows": rows, "taken": {**by, "made_from": made_from}}
        self._write_done(folder, result, taken)
        self.drop_checkpoint(stage)

    def result(self, stage: str) -> dict[str, Any]:
        """What a finished stage kept; a :class:`CheckpointError` where it is not done."""
        return dict(read_json(self.stage_folder(stage) / DONE))  # type: ignore[call-overload]

    def is_done(self, stage: str) -> bool:
        return by_main(lambda: self._is_done(stage))

    def _is_done(self, stage: str) -> bool:
        return (self.stage_folder(stage) / DONE).exists()

    def row(
        self, stage: str, task: str, split: str, metric: str, value: float, n: int, step: int = 0
    ) -> dict[str, Any]:
        """A metric row of this run, to be returned by a stage."""
        row = Row(self.name, stage, task, split, metric, float(value), n, self.seed, step, self.config_digest)
        return row.to_json()

    def rows(self, all_done: bool = True) -> list[dict[str, Any]]:
        """All rows of the stages visited so far, in the order of the recipe; with ``all_done`` also those of stages
        that were done before and are not reached yet, or not at all with ``--to``."""
        stages = [stage for stage in dict.fromkeys(self._stages) if self._is_done(stage)]
        if all_done:
            root = self.path / "stages"
            done = sorted(file.parent.relative_to(root).as_posix() for file in root.rglob(DONE))
            stages += [stage for stage in done if stage not in self._stages]
        return [row for stage in stages for row in self.result(stage).get("rows", [])]

    def write_results(self) -> None:
        by_main(lambda: self._write_results(all_done=True))

    def _write_results(self, all_done: bool) -> None:
        if self.only_stages:
            return
        write_jsonl(self.path / "results.jsonl", self.rows(all_done))

    def finish(self) -> None:
        def finish() -> None:
            self._write_results(all_done=False)
            write_json(self.path / "record.json", self._record(finished=now()))
            self._list_sums()

        by_main(finish)

    def _list_sums(self) -> None:
        own = [self.path / name for name in OF_THE_RUN]
        write_sums(self.path / SUMS, self.path, [path for path in own if path.exists()])

    def log(self, text: str) -> None:
        """A line with the time in log.txt."""
        if not is_main():
            return
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{now()} {text}\n")

    def _record(self, finished: str | None, begins: bool = True) -> dict[str, Any]:
        """What there is of record.json, finished or begun once more."""
        path = self.path / "record.json"
        try:
            old = dict(read_json(path)) if path.exists() else {}  # type: ignore[call-overload]
        except (CheckpointError, TypeError, ValueError):
            self._found([Problem("must be a record of the run: it is damaged", file=str(path))])
            old = {}
        if finished is not None:  # where it ran is what it was when it began: a checkout may have moved on
            return {**old, "finished": finished}
        if not begins:
            return old
        return {
            "name": self.name,
            "config": self.config_digest,
            "seed": self.seed,
            "starts": [*old.get("starts", []), now()],
            "finished": None,
            "commit": commit(),
            "versions": versions(),
            "device": device(),
            **({"inputs": old["inputs"]} if "inputs" in old else {}),
        }


def run_finished(path: Path) -> bool:
    """Whether the run at ``path`` has come to its end; one that has not begun, or whose record is damaged, has not."""
    try:
        content = read_json(path / "record.json") if (path / "record.json").exists() else None
    except CheckpointError:
        return False
    return isinstance(content, dict) and bool(content.get("finished"))
