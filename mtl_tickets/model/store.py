"""A model as a directory, written whole and loaded by one call, compacted or not.

::

    config.json             the encoder's configuration, transformers' own format
    model.safetensors       all weights; the encoder's have the names transformers gives them
    tasks.json              format, version, pooling, tasks, hash of the weights, and what the writer adds
    compact.json            which units are there, where some were removed
    tickets/<task>.safetensors, .json
    tokenizer files

Because of the names, ``AutoModel.from_pretrained`` opens the encoder of a model from which nothing was removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from mtl_tickets import files
from mtl_tickets.errors import CheckpointError, InputError, Problem, problems_of
from mtl_tickets.model.anatomy import anatomy_of
from mtl_tickets.model.compact import Kept, build_compact
from mtl_tickets.model.encoders import empty_encoder, encoder_hash, load_tokenizer, read_by_transformers
from mtl_tickets.model.multitask import MultiTaskModel, TaskInfo
from mtl_tickets.model.pooling import POOLINGS
from mtl_tickets.tickets.ticket import Ticket

__all__ = ["encoder_hash", "load", "load_tokenizer", "read_extra", "save"]

FORMAT = "mtl_tickets.model"
VERSION = "1"


def save(
    model: MultiTaskModel, folder: str | Path, extra: Mapping[str, Any] | None = None, tokenizer: Any | None = None
) -> None:
    """Writes the directory, replacing what was there; a reader sees the old one or the new one.

    ``extra`` is any JSON-able mapping, given back by :func:`read_extra`. ``tokenizer`` is saved beside the weights.
    """
    prefix = _prefix(model.encoder)
    state = {
        prefix + name.removeprefix("encoder.") if name.startswith("encoder.") else name: tensor.detach()
        .cpu()
        .contiguous()
        for name, tensor in model.state_dict().items()
    }
    with files.folder_written_whole(Path(folder)) as part:
        config = model.config.to_dict()
        config["architectures"] = [type(model.encoder).__name__]
        config["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")  # transformers loads in this type
        files.write_json(part / "config.json", config)
        save_file(state, part / "model.safetensors", metadata={"format": "pt"})  # the metadata transformers asks for
        if model.present:
            files.write_json(part / "compact.json", Kept.of(model.present).to_json())
        for task, ticket in model.tickets.items():
            ticket.save(part / "tickets" / f"{task}.safetensors")
        if tokenizer is not None:
            if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
                # what the last call asked for is no part of the model
                backend.no_truncation()
                backend.no_padding()
            tokenizer.save_pretrained(part)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "pooling": model.pooling,
            "tasks": [asdict(task) for task in model.tasks],
            "tickets": sorted(model.tickets),
            "compact": bool(model.present),
            "weights_sha256": files.file_digest(part / "model.safetensors"),
            "extra": dict(extra or {}),
        }
        files.write_json(part / "tasks.json", content)


def load(folder: str | Path, attention: str = "sdpa", device: str | torch.device = "cpu") -> MultiTaskModel:
    """The model :func:`save` wrote, in eval mode, with its tickets on and, where units were removed, without them.

    Raises :class:`CheckpointError` that says what is missing, damaged or does not fit together,
    :class:`TicketError` for a ticket file that is damaged or of another encoder.
    """
    folder = Path(folder)
    files.recover_folder(folder)
    content = _read_tasks(folder)
    config = _read_config(folder)
    infos = _task_infos(content, str(folder / "tasks.json"))
    kept = None
    if content["compact"]:
        file = folder / "compact.json"
        kept = Kept.from_json(files.read_json(file), config, str(file))
    weights = _read_weights(folder / "model.safetensors", content["weights_sha256"])
    _require_plausible(config, weights, str(folder / "config.json"))
    with read_by_transformers("must describe an encoder that can be built", str(folder / "config.json")):
        encoder = empty_encoder(config, attention) if kept is None else build_compact(config, kept, attention)
    present = {} if kept is None else kept.present(config)
    model = MultiTaskModel(encoder, infos, pooling=content["pooling"], present=present)
    prefix = _prefix(encoder)
    state = {
        "encoder." + name.removeprefix(prefix) if name.startswith(prefix) else name: tensor
        for name, tensor in weights.items()
    }
    _require_same(model.state_dict(), state, str(folder / "model.safetensors"))
    model.load_state_dict(state, assign=True)
    model.set_tickets({task: Ticket.load(folder / "tickets" / f"{task}.safetensors") for task in content["tickets"]})
    return model.to(device).eval()


def read_extra(folder: str | Path) -> dict[str, Any]:
    """What :func:`save` was given as ``extra``."""
    return dict(_read_tasks(Path(folder))["extra"])


def _read_tasks(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CheckpointError(Problem("this model directory must exist", file=str(folder)))
    file = folder / "tasks.json"
    if not file.exists():
        rule = "a model directory must have tasks.json"
        found = sorted(path.name for path in folder.iterdir())[:10]
        raise CheckpointError(
            Problem(rule, file=str(folder), found=found, hint="is it a directory this program wrote?")
        )
    content = files.read_json(file)
    if not isinstance(content, dict):
        raise CheckpointError(Problem("must be a JSON object", file=str(file), found=content))
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if content.get(key) != expected:
            hint = "it was written by another version of this program" if key == "version" else ""
            raise CheckpointError(Problem(f"must be {expected!r}", str(file), key, content.get(key, "nothing"), hint))
    problems = []
    for key, kind in (
        ("pooling", str),
        ("tasks", list),
        ("tickets", list),
        ("compact", bool),
        ("weights_sha256", str),
        ("extra", dict),
    ):
        if not isinstance(content.get(key), kind):
            problems.append(Problem(f"must be a {kind.__name__}", str(file), key, content.get(key, "nothing")))
    if not problems and content["pooling"] not in POOLINGS:
        problems.append(Problem(f"must be one of {', '.join(POOLINGS)}", str(file), "pooling", content["pooling"]))
    if problems:
        raise CheckpointError(problems)
    return content


def _task_infos(content: dict[str, Any], file: str) -> list[TaskInfo]:
    try:
        infos = [TaskInfo(**task) for task in content["tasks"]]
    except (TypeError, InputError) as error:
        raise CheckpointError(Problem(f"must describe tasks ({error})", file, "tasks")) from None
    names = [info.name for info in infos]
    unknown = [task for task in content["tickets"] if task not in names]
    if not names or unknown:
        raise CheckpointError(Problem(f"must be tickets of the tasks {names}", file, "tickets", unknown))
    return infos


def _read_config(folder: Path) -> PretrainedConfig:
    file = folder / "config.json"
    files.read_json(file)  # our message for a file that is absent or no JSON
    with read_by_transformers("must be the configuration of an encoder", str(file)):
        config = AutoConfig.from_pretrained(str(folder))
    with problems_of(str(file)):
        anatomy_of(config)
    return config


def _require_plausible(config: PretrainedConfig, weights: dict[str, torch.Tensor], file: str) -> None:
    """A configuration that lies must not make us build more than there are weights for."""
    elements = sum(weight.numel() for weight in weights.values())
    most = {
        "num_hidden_layers": len(weights),
        "num_attention_heads": elements,
        "hidden_size": elements,
        "intermediate_size": elements,
        "vocab_size": elements,
        "max_position_embeddings": elements,
        "type_vocab_size": elements,
    }
    problems = [
        Problem(f"must be a whole number between {least} and {largest:,}, as the weights are", file, name, value)
        for name, largest in most.items()
        for least in [0 if name == "type_vocab_size" else 1]
        if (value := getattr(config, name, None)) is not None
        and (type(value) is not int or not least <= value <= largest)
    ]
    if problems:
        raise CheckpointError(problems)


def _read_weights(file: Path, expected: str) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise CheckpointError(Problem("this file must exist", file=str(file)))
    try:
        with safe_open(file, framework="pt") as opened:
            # clone: the file is mapped into memory at odd addresses, on which sums may round differently
            weights = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        rule = f"must be a whole safetensors file ({error})"
        raise CheckpointError(Problem(rule, str(file), hint="it is cut off or damaged")) from None
    found = files.file_digest(file)
    if found != expected:
        rule = "must be the weights that tasks.json was written with"
        hint = f"the hash there is {expected[:12]}...; the file was damaged or exchanged"
        raise CheckpointError(Problem(rule, str(file), "sha256", found[:12] + "...", hint))
    return weights


def _require_same(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], file: str) -> None:
    problems = [Problem("this weight is missing", file, name) for name in expected if name not in found]
    problems += [Problem("the model has no such weight", file, name) for name in found if name not in expected]
    problems += [
        Problem(f"must have the shape {list(expected[name].shape)}", file, name, list(tensor.shape))
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(problems[:20])


def _prefix(encoder: nn.Module) -> str:
    return f"{encoder.base_model_prefix}."
