"""Runs as tasks of a Ray cluster (https://docs.ray.io), each with its resources.

Ray places a run where its CPUs, GPUs and memory are free, and begins it anew on another worker when its worker dies;
there the run goes on from its last checkpoint. All machines must see the folders of the study, the data and the cache
by the same names; or, with ``storage``, those of the data and the cache: then runs, and the stages that points share,
are kept at a URL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from mtl_tickets.errors import InputError, MtlTicketsError, Problem
from mtl_tickets.study.executors.base import EXECUTORS, Executor, Outcome, attempted
from mtl_tickets.study.executors.standing import Board, View, Word
from mtl_tickets.study.storage import Storage, StoredStages

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress
    from mtl_tickets.recipes.shared import SharedStages
    from mtl_tickets.study.plan import Study, StudyRun

# seconds between two looks of the driver
LOOK = 1.0


@EXECUTORS.register("ray")
class OnRay(Executor):
    """Every run is a task of a Ray cluster, with its resources; the runs of lost workers go on elsewhere."""

    kind: Literal["ray"] = "ray"
    address: str = pydantic.Field(
        "", description="of a running cluster; auto: this machine's; empty: one is started here"
    )
    cpus: pydantic.PositiveFloat = pydantic.Field(1.0, description="CPUs of a run, which are its threads, too")
    gpus: pydantic.NonNegativeFloat = pydantic.Field(0.0, description="GPUs of a run; a part of one is possible")
    memory: pydantic.PositiveFloat | None = pydantic.Field(None, description="gigabytes of memory a run asks for")
    retries: int = pydantic.Field(
        3, ge=-1, description="how often a run goes on after its worker has died; -1: as often as it takes"
    )
    storage: str | None = pydantic.Field(
        None,
        description="a URL (s3://..., gs://...) for the runs; none: the study's folder, which all machines see",
    )

    def run(self, study: Study, progress: Progress, told: Callable[[str], None]) -> Outcome:
        ray = _ray()
        storage = None if self.storage is None else Storage(self.storage)
        if storage is not None:
            _exchange(study, storage)
        outcome = Outcome()
        with _connected(ray, self.address):
            self._check_room(ray, told)
            view = View(study.runs, progress, told)
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
            task = ray.remote(_do)
            resources = {
                "num_cpus": self.cpus,
                "num_gpus": self.gpus,
                "memory": None if self.memory is None else int(self.memory * 1e9),
                "max_retries": self.retries,
            }
            left = {
                task.options(name=run.name, **resources).remote(study, run, Path.cwd(), self.storage, board): run
                for run in study.runs
            }
            try:
                while left:
                    done, _ = ray.wait([*left], num_returns=len(left), timeout=LOOK)
                    with contextlib.suppress(ray.exceptions.RayError):  # no news is no reason to end
                        view.show(ray.get(board.read.remote()))
                    for reference in done:
                        run = left.pop(reference)
                        try:
                            ray.get(reference)
                            outcome.finished.add(run.path)
                        except ray.exceptions.RayTaskError as error:
                            if not isinstance(error.cause, MtlTicketsError | OSError):
                                raise
                            outcome.fail(run, error.cause)
                        except ray.exceptions.RayError as error:
                            outcome.fail(
                                run,
                                MtlTicketsError(f"its worker was lost, and no retry is left ({type(error).__name__})"),
                            )
                        view.ended(run, outcome)
            except BaseException:
                for reference in left:
                    ray.cancel(reference, force=True)
                raise
        if storage is not None:
            _exchange(study, storage)
        return outcome

    def _check_room(self, ray: Any, told: Callable[[str], None]) -> None:
        """Ray would wait for ever, without a word, for a machine that can hold a run."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory or 0) * 1e9}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            return
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
        for name, setting in (("CPU", "cpus"), ("GPU", "gpus"), ("memory", "memory")):
            if wanted[name] > most[name]:
                unit = 1e9 if name == "memory" else 1
                rule = f"no machine of the cluster has so much; the most is {most[name] / unit:g}"
                if not self.address:
                    raise InputError(Problem(rule, place=f"executor.{setting}", found=wanted[name] / unit))
                told(f"executor.{setting}: {rule}; waiting for one that has {wanted[name] / unit:g}")


def _ray() -> Any:
    # nothing is sent anywhere
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise InputError(
            Problem("needs Ray", place="executor", found="ray", hint="pip install 'mtl-tickets[ray]'")
        ) from None
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Inside, this process is a driver of the cluster; one that was started here ends with it."""
    if ray.is_initialized():  # by who called us
        yield
        return
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.WARNING,
            include_dashboard=None if address else False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(Problem(f"no cluster answers ({reason})", place="executor.address", found=address)) from None
    try:
        yield
    finally:
        ray.shutdown()


# -- on a worker ------------------------------------------------------------------------------------------------------


def _do(study: Study, run: StudyRun, cwd: Path, url: str | None, board: Any) -> None:
    """A run, from what is there of it to its end."""
    if not cwd.is_dir():
        rule = f"every machine of the cluster must see this folder; {socket.gethostname()} does not"
        raise InputError(Problem(rule, file=str(cwd)))
    os.chdir(cwd)
    name = str(run.path)
    ray = _ray()
    # heard before anything is done: what a worker has said but not sent dies with it
    ray.get(board.begin.remote(name, f"{socket.gethostname()}, process {os.getpid()}"))
    with _kept(study, run, url) as (here, shared, mirror):
        word = Word(board, name, mirror)
        try:
            while not attempted(here, _one_worker(here, run), word, shared=shared):
                time.sleep(2 * LOOK)
        finally:
            word.close()


def _exchange(study: Study, storage: Storage) -> None:
    """What is finished here goes to the storage; of all else what the storage has comes here."""
    for run in study.runs:
        name = f"{study.folder.name}/{run.path.relative_to(study.folder)}"
        if run.finished:
            storage.push(run.path, name)
        else:
            storage.pull(name, run.path)


@contextlib.contextmanager
def _kept(study: Study, run: StudyRun, url: str | None) -> Iterator[tuple[Study, SharedStages, Callable[[], None]]]:
    """The study where this worker writes it, what its points share, and what puts the run to the storage."""
    if url is None:
        yield study, study.shared, lambda: None
        return
    storage, name = Storage(url), f"{study.folder.name}/{run.path.relative_to(study.folder)}"
    with tempfile.TemporaryDirectory(prefix="mtl-tickets-") as scratch:
        here = replace(study, scratch=Path(scratch))
        folder = here.folder / run.path.relative_to(study.folder)
        stages = here.shared.folder
        shared = StoredStages(stages, storage, f"{study.folder.name}/{stages.relative_to(here.folder)}")
        storage.pull(name, folder)
        try:
            yield here, shared, lambda: storage.push(folder, name)
        finally:
            storage.push(folder, name, tries=3)


def _one_worker(study: Study, run: StudyRun) -> StudyRun:
    """The run in ``study``, in this process alone: Ray has the machine's other cores for other runs."""
    from mtl_tickets.study.plan import Point, StudyRun

    (point,) = (point for point in study.points if point.loaded.digest == run.point.loaded.digest)
    loaded = point.loaded.with_one_worker()
    return StudyRun(Point(point.values, loaded), run.seed)
