"""Pre-training, start to end: text -> vocabulary -> token ids -> an encoder in a folder.

It runs through the one training loop, so a stopped pre-training goes on where it was, bit for bit on a CPU. While it
runs, everything it needs to go on lies in ``<folder>.unfinished``; the folder itself appears whole at the end.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydantic
import torch
from accelerate import Accelerator

from mtl_tickets.errors import CheckpointError, DataError, Problem
from mtl_tickets.files import digest, folder_written_whole, locked, read_json, recover_folder, write_json
from mtl_tickets.model.encoders import encoder_hash, quiet_transformers
from mtl_tickets.pretraining.masking import MaskedBatches
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, held_out_losses
from mtl_tickets.pretraining.plan import PLAN, Cut, Prepared, course_of, objective_of, planned_tokens, train_settings
from mtl_tickets.pretraining.sequences import Neighbours, Packed, PassagePairs, SpecialIds, held_spans, parted
from mtl_tickets.pretraining.settings import PretrainSettings
from mtl_tickets.pretraining.start import first_network, first_tokenizer
from mtl_tickets.pretraining.text import find_sources, read_text
from mtl_tickets.pretraining.vocabulary import save_tokenizer
from mtl_tickets.processes import accelerator_for
from mtl_tickets.progress import Progress, Silent
from mtl_tickets.provenance import device, versions
from mtl_tickets.training.loop import total_steps, train

RECORD = "pretraining.json"
FORMAT = "mtl_tickets.pretraining"
# the held-out loss is measured at every report: more sequences would cost time and tell nothing new
HELD_OUT_SEQUENCES = 1024


def pretrain(
    settings: PretrainSettings,
    folder: Path,
    *,
    cache: Path = Path(".cache"),
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    restart: bool = False,
) -> dict[str, Any]:
    """Pre-trains an encoder and returns its record, which is also ``folder/pretraining.json``.

    ``folder`` gets ``config.json``, ``model.safetensors`` (with the masked-language head), the tokenizer and the
    record. Where it holds the result of these settings already, nothing is done. ``resume`` goes on with a stopped
    pre-training, ``restart`` throws away a stopped or finished one. ``cache`` keeps tokenised text.

    Raises :class:`DataError` for text that breaks a rule, :class:`CheckpointError` for a folder that holds something
    else, a stopped pre-training without ``resume``, or a start that cannot be used, :class:`InputError` for a
    sequence length, tokenizer or precision that does not fit.
    """
    accelerator = accelerator or accelerator_for(settings.mixed_precision)
    progress = progress if progress is not None and accelerator.is_main_process else Silent()
    folder = folder.absolute()
    work = folder.with_name(folder.name + ".unfinished")
    recover_folder(folder)
    accelerator.wait_for_everyone()
    done = _finished(settings, folder, restart)
    if done is not None:
        if accelerator.is_main_process:
            shutil.rmtree(work, ignore_errors=True)
        return done
    with locked(work) if accelerator.is_main_process else contextlib.nullcontext():
        if accelerator.is_main_process:
            _open_work(work, resume, restart)
        accelerator.wait_for_everyone()
        prepared = prepare(settings, work, cache, accelerator, progress)
        record = _train(settings, prepared, folder, work, accelerator, progress)
        if accelerator.is_main_process:
            shutil.rmtree(work)
    accelerator.wait_for_everyone()
    return record


def _earlier(start: str | None) -> dict[str, Any] | None:
    """The record of the pre-training that this one goes on from, where it has one."""
    if start is None or not (Path(start) / RECORD).is_file():
        return None
    return cast(dict[str, Any], read_json(Path(start) / RECORD))


def _finished(settings: PretrainSettings, folder: Path, restart: bool) -> dict[str, Any] | None:
    """The record of the same pre-training, where it is done."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / RECORD).is_file():
        rule = "must not exist yet, or hold an earlier pre-training: what is in it would be lost"
        raise CheckpointError(Problem(rule, str(folder)))
    if restart:
        return None
    record = cast(dict[str, Any], read_json(folder / RECORD))
    if not _same_settings(record.get("settings"), settings):
        rule = "this folder holds a pre-training with other settings"
        raise CheckpointError(Problem(rule, str(folder), hint="choose another folder, or --restart to replace it"))
    return record


def _same_settings(recorded: Any, settings: PretrainSettings) -> bool:
    """Options that are newer than the record have their defaults there."""
    try:
        return PretrainSettings.model_validate(recorded).deciding() == settings.deciding()
    except pydantic.ValidationError:
        return False


def _open_work(work: Path, resume: bool, restart: bool) -> None:
    items = [item for item in work.iterdir() if item.name != ".lock"]
    if restart:
        for item in items:
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    elif not resume and (work / PLAN).exists():
        hint = "add --resume to go on where it stopped, or --restart to throw it away"
        raise CheckpointError(Problem("this pre-training was stopped before its end", str(work), hint=hint))


def prepare(
    settings: PretrainSettings, work: Path, cache: Path, accelerator: Accelerator, progress: Progress
) -> Prepared:
    """Tokenizer and text. The main process makes what is missing, the others then read it."""
    sources = find_sources(settings.text, settings.playground_tokens, settings.packs_vocabulary)
    with accelerator.main_process_first():
        progress.stage("pretrain/vocabulary")
        tokenizer = first_tokenizer(settings, sources, work)
        progress.stage("pretrain/text")
        text = read_text(sources, tokenizer, cache)
    special = SpecialIds.of(tokenizer)
    kind = PassagePairs if settings.next_sentence else Neighbours if settings.contrast else Packed
    # two neighbours, or a pair, which ends where its lines do: of three sequences' length, one at least lies within
    grain = (settings.length - 2) * (3 if settings.next_sentence or settings.contrast else 1)
    held_out = held_spans(len(text.ids), settings.held_out, grain)

    def cut(length: int, size: int) -> Cut:
        sequences = kind(text, special, length)
        trained, held = parted(sequences, held_out)
        if not len(trained):
            rule = f"the text must fill a sequence of {length} tokens, beside what is held out"
            raise DataError(Problem(rule, settings.text[0], found=f"{len(text.ids)} tokens"))
        # of many, some from all over the text
        held = held[np.linspace(0, len(held) - 1, min(len(held), HELD_OUT_SEQUENCES)).astype(int)]
        share, rank, world = settings.mask_share, accelerator.process_index, accelerator.num_processes
        size = max(1, size // sequences.rows_each)
        batches = MaskedBatches(sequences, trained, special, size, settings.seed, share, rank, world)
        return Cut(length, batches, MaskedBatches(sequences, held, special, size, 0, share) if len(held) else None)

    long = cut(settings.length, settings.batch_size)
    if long.held is None and settings.held_out:
        progress.say("the text is too short to hold any of it out")
    short = cut(settings.short_length, settings.short_batch_size) if settings.short_length else None
    return Prepared(tokenizer, text, long, short)


def _train(
    settings: PretrainSettings,
    prepared: Prepared,
    folder: Path,
    work: Path,
    accelerator: Accelerator,
    progress: Progress,
) -> dict[str, Any]:
    network = first_network(settings, prepared.tokenizer, prepared.text, progress)
    identity = digest(
        [settings.course(), prepared.text.fingerprint, encoder_hash(network), accelerator.mixed_precision], length=16
    )
    model = MaskedLanguageModel(network, settings.next_sentence, settings.seed, bool(settings.contrast))
    model = model.to(accelerator.device)
    if settings.dropout is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = settings.dropout
    tokens = planned_tokens(settings, prepared, model, work, identity, accelerator, progress)
    source = course_of(settings, prepared, tokens)
    plan = train_settings(settings, source.legs)
    losses: list[dict[str, Any]] = []

    def measured(part: MaskedBatches) -> dict[str, Any]:
        """On held-out sequences of the length that is trained: places never trained would count as ignorance."""
        here = prepared.short if prepared.short is not None and part is prepared.short.trained else prepared.long
        losses = {} if here.held is None else held_out_losses(model, here.held, accelerator.device)
        return {"length": here.length, **losses}

    def on_leg(leg: int) -> dict[str, Any]:
        tokens, figures = source.tokens_after(leg), measured(source.part_after(leg))
        losses = [f", {name} {value:.3f}" for name, value in figures.items() if name != "length"]
        progress.say(f"{tokens:,} tokens{''.join(losses)}")
        return {"tokens": tokens, **figures}

    planned_steps = total_steps(source, plan)
    if (wanted := settings.stop_after) is not None:
        nearest = min(range(source.legs), key=lambda leg: abs(source.tokens_after(leg) - wanted))
        plan = plan.model_copy(update={"epochs": nearest + 1})
    progress.begin(f"pretrain {folder.name}", total_steps(source, plan))
    progress.stage("pretrain/training")
    losses.append({"tokens": 0, "step": 0, **measured(source.parts[0][0])})
    result = train(
        model,
        source,
        objective_of(settings),
        plan,
        accelerator,
        seed=settings.seed,
        identity=identity,
        checkpoint=work / "checkpoint.safetensors",
        on_epoch=on_leg,
        on_step=progress.advance,
        planned_steps=planned_steps,
    )
    # the loop's epoch is one of our legs and no pass over the text
    losses += [{key: row[key] for key in row if key != "epoch"} for row in result.history]
    record = {
        "format": FORMAT,
        "version": 1,
        "settings": settings.deciding(),
        "identity": identity,
        "text": {"tokens": len(prepared.text.ids), "documents": len(prepared.text.ends)},
        "training": {
            "tokens": losses[-1]["tokens"],
            "passes": losses[-1]["tokens"] / prepared.long.trained.pass_tokens,
            "steps": result.steps,
            "predicted_tokens": result.examples,
            "seconds": round(result.seconds, 3),
        },
        "parameters": sum(p.numel() for p in network.parameters()),
        "encoder_hash": encoder_hash(network.base_model),
        "loss": losses[-1].get("loss"),
        **{name: value for name, value in losses[-1].items() if name.startswith("held_out")},
        "losses": losses,
        "started_from": _earlier(settings.start),
        "mixed_precision": accelerator.mixed_precision,
        "versions": versions(),
        "device": device(),
    }
    if accelerator.is_main_process:
        with folder_written_whole(folder) as part, quiet_transformers():
            network.save_pretrained(str(part))
            save_tokenizer(prepared.tokenizer, part)
            write_json(part / RECORD, record)
    return record
