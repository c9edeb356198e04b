"""What a recipe's losses with a model of the bias look up: what that model, and the fine-tuned network, say of every
training row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mtl_tickets.evaluation.evaluate import predict_logits
from mtl_tickets.files import written_whole
from mtl_tickets.recipes.jobs import Origin, put_on_top
from mtl_tickets.recipes.workbench import Workbench
from mtl_tickets.tasks.bias import BiasModel, bias_log_probs, bias_report
from mtl_tickets.training.loop import TrainSettings
from mtl_tickets.training.objectives.debiasing import Debiased, Debiasing

TEACHER = "log_probs.safetensors"


def debiased(
    bench: Workbench, task: str, loss: Debiasing, settings: TrainSettings, bias: BiasModel, powers: tuple[float, float]
) -> Debiased:
    """The objective of a training of this task alone. ``confidence`` needs :func:`ask_teacher` before."""
    log_probs, teacher = bias_of(bench, task, bias), None
    if loss == "confidence":
        teacher = {0: load_file(bench.run.stage_folder(f"teacher/{task}") / TEACHER)["log_probs"].numpy()}
    return Debiased(loss, {0: log_probs}, teacher, powers, bench.steps([task], settings))


def bias_of(bench: Workbench, task: str, bias: BiasModel) -> np.ndarray:
    """What the bias model says of the training rows, log-probabilities [rows, classes], made once in a run. The stage
    ``bias/<task>`` keeps how good it is. Raises what the bias model raises for a task or rows that it is not for."""
    name = f"bias/{task}"
    if name not in bench.made:
        rows = bench.data[task].raw("train")
        found = bench.made[name] = bias_log_probs(bias, bench.tasks[task], rows, bench.cache)
        bench.run.stage(name, lambda _: {"rows": [], "bias": bias_report(found, np.asarray(rows.labels))})
    return bench.made[name]


def ask_teacher(bench: Workbench, task: str, stage: str) -> None:
    """Keeps what the network that ``stage`` has kept says of the training rows: log-probabilities [rows, classes]."""

    def teacher_stage(folder: Path) -> dict[str, Any]:
        bench.progress.stage(f"teacher/{task}")
        model = bench.start((task,)).rewound()
        Origin("stage", stage=stage).put_into(model.encoder, bench.run.path / "stages")
        put_on_top(model, bench.run.stage_folder(stage))
        rows, pad = bench.data[task].train, bench.tokenizer.pad_token_id
        logits = predict_logits(model, [task], rows, bench.accelerator, pad)[task]
        with written_whole(folder / TEACHER) as part:
            save_file({"log_probs": torch.from_numpy(logits).log_softmax(-1)}, part)
        return {"rows": []}

    bench.run.stage(f"teacher/{task}", teacher_stage)
