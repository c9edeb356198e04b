"""Processes that were started together find what one finds: answers, scores and gradients, each row counted once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from mtl_tickets.evaluation.evaluate import predict_logits
from mtl_tickets.scoring import ScoreSettings, score_tasks
from mtl_tickets.scoring.gradients import gradient_products
from mtl_tickets.tasks.batches import BatchSettings, passes_over
from tests import tiny

CLASSES = {"a": 2, "b": 3, "c": 1}
# of the last one only one process has a batch
ROWS = {"a": 41, "b": 35, "c": 3}


def found(accelerator):
    model = tiny.model(CLASSES)
    tasks = {name: tiny.random_task(ROWS[name], n, seed=i) for i, (name, n) in enumerate(CLASSES.items())}
    scores = {
        kind: score_tasks(model, model.space, tasks, ScoreSettings(kind=kind), accelerator, pad_id=0, forward_rows=8)
        for kind in ("first_order", "fisher")
    }
    products = gradient_products(model, model.space, tasks, accelerator, pad_id=0, rows=None, forward_rows=8)
    return {
        "processes": accelerator.num_processes,
        "logits": {
            f"{name}/{head}": logits.tolist()
            for name, task in tasks.items()
            for head, logits in predict_logits(model, sorted({"a", name}), task, accelerator, 0, 8).items()
        },
        "scores": {
            f"{kind}/{task}": {part: values.tolist() for part, values in of_task.values.items()}
            for kind, of_kind in scores.items()
            for task, of_task in of_kind.items()
        },
        "agreement": {task: of_task.about.agreement for task, of_task in scores["first_order"].items()},
        "products": {part: values.tolist() for part, values in products.values.items()},
    }


def flat(content, place=""):
    if isinstance(content, dict):
        return {key: value for name, inner in content.items() for key, value in flat(inner, f"{place}/{name}").items()}
    return {place: content}


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_every_row_is_in_one_batch_of_one_process(world):
    task = tiny.random_task(41, 2, seed=0)
    shares = [[*passes_over({"": task}, BatchSettings(size=8), 0, share=(rank, world))] for rank in range(world)]
    rows = [batch.indices.tolist() for share in shares for batch in share]
    assert sorted(row for batch in rows for row in batch) == [*range(41)]
    alone = [batch.indices.tolist() for batch in passes_over({"": task}, BatchSettings(size=8), 0)]
    assert sorted(rows) == sorted(alone)


PROCESS = """
import json
from accelerate import Accelerator
from tests.test_processes import found
print(json.dumps(found(Accelerator(cpu=True))))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_find_what_one_finds():
    at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    at["ACCELERATE_USE_CPU"] = "true"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**os.environ, **at, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    both = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert [one.pop("processes") for one in both] == [2, 2]
    assert both[0] == both[1]
    alone = found(Accelerator(cpu=True))
    assert alone.pop("processes") == 1
    expected, seen = flat(alone), flat(both[0])
    assert expected.keys() == seen.keys()
    for place, values in expected.items():
        np.testing.assert_allclose(seen[place], values, rtol=1e-5, atol=1e-9, err_msg=place)
