"""Pre-training, start to end: text -> vocabulary -> token ids -> an encoder in a folder.

It runs through the one training loop, so a stopped pre-training goes on where it was, bit for bit on a CPU. While it
runs, everything it needs to go on lies in ``<folder>.unfinished``; the folder itself appears whole at the end.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from mtl_tickets.errors import CheckpointError, DataError, InputError, Problem
from mtl_tickets.files import digest, folder_written_whole, locked, read_json, recover_folder, write_json
from mtl_tickets.model.encoders import encoder_hash, load_tokenizer, quiet_transformers
from mtl_tickets.pretraining.mlm import (
    MaskedLanguageModel,
    PackedBatches,
    SpecialIds,
    held_out_loss,
    hold_out,
    masked_loss,
)
from mtl_tickets.pretraining.settings import PretrainSettings
from mtl_tickets.pretraining.text import Source, TokenText, find_sources, plain_lines, read_text
from mtl_tickets.pretraining.vocabulary import read_vocabulary, require_specials, save_tokenizer, train_vocabulary
from mtl_tickets.recipes.run_directory import device, versions
from mtl_tickets.recipes.workbench import Progress, Silent
from mtl_tickets.training.loop import TrainSettings, seed_everything, total_steps, train
from mtl_tickets.training.optim import OptimiserSettings

RECORD = "pretraining.json"
FORMAT = "mtl_tickets.pretraining"
# as RoBERTa (Liu et al. 2019, section 3.1): less memory in the second moment keeps large batches stable
BETAS, EPS = (0.9, 0.98), 1e-6
# the held-out loss is measured at every report: more sequences would cost time and tell nothing new
HELD_OUT_SEQUENCES = 1024
# the speed is measured over this long at least, after this many steps to warm up
MEASURED_SECONDS, WARM_UP_STEPS = 3.0, 3


@dataclass(frozen=True)
class Prepared:
    """Everything the training needs, before the number of tokens is fixed. ``held``: None where nothing is held out."""

    tokenizer: Any
    text: TokenText
    special: SpecialIds
    chunks: np.ndarray
    held: PackedBatches | None


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
    accelerator = accelerator or _accelerator(settings)
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
        prepared = _prepare(settings, work, cache, accelerator, progress)
        record = _train(settings, prepared, folder, work, accelerator, progress)
        if accelerator.is_main_process:
            shutil.rmtree(work)
    accelerator.wait_for_everyone()
    return record


def _accelerator(settings: PretrainSettings) -> Accelerator:
    if settings.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise InputError(Problem("fp16 needs an NVIDIA GPU", place="mixed_precision", hint="use bf16 or no"))
    try:
        return Accelerator(mixed_precision=settings.mixed_precision)
    except ValueError as error:  # this process has used another precision already
        reason = " ".join(str(error).split())
        raise InputError(Problem(f"this precision cannot be used ({reason})", place="mixed_precision")) from None


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
    if record.get("settings") != _deciding(settings):
        rule = "this folder holds a pre-training with other settings"
        raise CheckpointError(Problem(rule, str(folder), hint="choose another folder, or --restart to replace it"))
    return record


def _deciding(settings: PretrainSettings) -> dict[str, Any]:
    """The settings without those that change how a pre-training runs and not what comes out."""
    return settings.model_dump(mode="json", exclude={"checkpoint_seconds"})


def _open_work(work: Path, resume: bool, restart: bool) -> None:
    items = [item for item in work.iterdir() if item.name != ".lock"]
    if restart:
        for item in items:
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    elif not resume and (work / "plan.json").exists():
        hint = "add --resume to go on where it stopped, or --restart to throw it away"
        raise CheckpointError(Problem("this pre-training was stopped before its end", str(work), hint=hint))


def _prepare(
    settings: PretrainSettings, work: Path, cache: Path, accelerator: Accelerator, progress: Progress
) -> Prepared:
    """Tokenizer and text. The main process makes what is missing, the others then read it."""
    sources = find_sources(settings.text, settings.playground_tokens)
    with accelerator.main_process_first():
        progress.stage("pretrain/vocabulary")
        tokenizer = _tokenizer(settings, sources, work)
        progress.stage("pretrain/text")
        text = read_text(sources, tokenizer, cache)
    special = SpecialIds.of(tokenizer)
    number = len(text.ids) // (settings.length - 2)
    held_out = hold_out(number, settings.held_out)
    if number - held_out.sum() < 1:
        rule = f"the text must fill a sequence of {settings.length} tokens, beside what is held out"
        raise DataError(Problem(rule, settings.text[0], found=f"{len(text.ids)} tokens"))
    held = None
    if held_out.any():
        chosen = np.flatnonzero(held_out)
        chosen = chosen[:: max(1, len(chosen) // HELD_OUT_SEQUENCES)][:HELD_OUT_SEQUENCES]
        held = PackedBatches(
            text.ids, chosen, special, settings.length, settings.batch_size, seed=0, mask_share=settings.mask_share
        )
    return Prepared(tokenizer, text, special, np.flatnonzero(~held_out), held)


def _tokenizer(settings: PretrainSettings, sources: list[Source], work: Path) -> Any:
    if settings.trains_vocabulary:
        made = work / "tokenizer"
        if not made.is_dir():
            positions = settings.shape.positions
            tokenizer = train_vocabulary(
                lambda: plain_lines(sources), settings.vocabulary_size, settings.lower_case, positions
            )
            with folder_written_whole(made) as part:
                save_tokenizer(tokenizer, part)
        return load_tokenizer(made)
    name = settings.tokenizer or cast(str, settings.start)
    if Path(name).is_file():
        tokenizer = read_vocabulary(Path(name), settings.lower_case, settings.shape.positions)
    else:
        tokenizer = load_tokenizer(name)
    require_specials(tokenizer, name)
    return tokenizer


def _network(settings: PretrainSettings, tokenizer: Any, progress: Progress) -> Any:
    """The masked-language model to begin with; what a start lacks of a head is drawn from the seed."""
    seed_everything(settings.seed)
    if settings.start is None:
        shape = settings.shape
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate or 4 * shape.hidden,
            max_position_embeddings=shape.positions,
            initializer_range=shape.start_range,
            pad_token_id=tokenizer.pad_token_id,
        )
        return BertForMaskedLM(config)
    with quiet_transformers():
        try:
            network, info = AutoModelForMaskedLM.from_pretrained(
                settings.start, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            rule = f"must be an encoder that can be pre-trained, a folder or a name on the hub ({reason})"
            raise CheckpointError(Problem(rule, settings.start)) from None
    missing = sorted(info["missing_keys"])
    lost = [name for name in missing if name.startswith(network.base_model_prefix + ".")]
    if lost:
        rule = "the checkpoint must have this weight"
        raise CheckpointError([Problem(rule, settings.start, name) for name in lost[:20]])
    if missing:
        progress.say(f"{settings.start} has no masked-language head: a new one is trained")
    config = network.config
    # RoBERTa and its like count positions from the padding id on
    longest = config.max_position_embeddings - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)
    if settings.length > longest:
        raise InputError(
            Problem(
                f"length must not exceed the {longest} positions of {settings.start}", "length", found=settings.length
            )
        )
    if len(tokenizer) > config.vocab_size:
        rule = f"the tokenizer must not have more than the {config.vocab_size} pieces that {settings.start} knows"
        raise InputError(Problem(rule, "tokenizer", found=len(tokenizer)))
    return network


def _train(
    settings: PretrainSettings,
    prepared: Prepared,
    folder: Path,
    work: Path,
    accelerator: Accelerator,
    progress: Progress,
) -> dict[str, Any]:
    network = _network(settings, prepared.tokenizer, progress)
    identity = digest(
        [_deciding(settings), prepared.text.fingerprint, encoder_hash(network), accelerator.mixed_precision], length=16
    )
    model = MaskedLanguageModel(network).to(accelerator.device)
    if settings.dropout is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = settings.dropout
    tokens = _planned_tokens(settings, prepared, model, work, identity, accelerator, progress)
    source = _batches(settings, prepared, tokens, accelerator)
    plan = _train_settings(settings, source.legs)
    losses: list[dict[str, Any]] = []

    def measured() -> dict[str, Any]:
        held = prepared.held
        return {"held_out_loss": held_out_loss(model, held, accelerator.device)} if held is not None else {}

    def on_leg(leg: int) -> dict[str, Any]:
        row = {"tokens": source.tokens_after(leg), **measured()}
        progress.say(f"{row['tokens']:,} tokens" + "".join(f", {k} {row[k]:.3f}" for k in row if k != "tokens"))
        return row

    progress.begin(f"pretrain {folder.name}", total_steps(source, plan))
    progress.stage("pretrain/training")
    losses.append({"tokens": 0, "step": 0, **measured()})
    result = train(
        model,
        source,
        masked_loss,
        plan,
        accelerator,
        seed=settings.seed,
        identity=identity,
        checkpoint=work / "checkpoint.safetensors",
        on_epoch=on_leg,
        on_step=progress.advance,
    )
    # the loop's epoch is one of our legs and no pass over the text
    losses += [
        {key: row[key] for key in ("tokens", "step", "loss", "held_out_loss") if key in row} for row in result.history
    ]
    record = {
        "format": FORMAT,
        "version": 1,
        "settings": _deciding(settings),
        "identity": identity,
        "text": {"tokens": len(prepared.text.ids), "documents": len(prepared.text.ends)},
        "training": {
            "tokens": losses[-1]["tokens"],
            "passes": losses[-1]["tokens"] / (len(prepared.chunks) * source.content),
            "steps": result.steps,
            "predicted_tokens": result.examples,
            "seconds_since_resume": round(result.seconds, 3),
        },
        "parameters": sum(p.numel() for p in network.parameters()),
        "encoder_hash": encoder_hash(network.base_model),
        "loss": losses[-1].get("loss"),
        "held_out_loss": losses[-1].get("held_out_loss"),
        "losses": losses,
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


def _batches(
    settings: PretrainSettings, prepared: Prepared, tokens: int, accelerator: Accelerator, most: int | None = None
) -> PackedBatches:
    """Batches for at least ``tokens`` tokens of text (``most``: this many batches instead)."""
    sequences = -(-tokens // (settings.length - 2))
    passes, rest = divmod(sequences, len(prepared.chunks))
    per_pass = -(-len(prepared.chunks) // settings.batch_size)
    return PackedBatches(
        prepared.text.ids,
        prepared.chunks,
        prepared.special,
        settings.length,
        settings.batch_size,
        settings.seed,
        settings.mask_share,
        batches=passes * per_pass + -(-rest // settings.batch_size) if most is None else most,
        legs=settings.reports if most is None else 1,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )


def _train_settings(settings: PretrainSettings, legs: int) -> TrainSettings:
    return TrainSettings(
        epochs=legs,
        optimiser=OptimiserSettings(
            lr=settings.peak_lr,
            betas=BETAS,
            eps=EPS,
            weight_decay=settings.weight_decay,
            warm_up=settings.warm_up,
            schedule=settings.schedule,
        ),
        accumulate=settings.accumulate,
        checkpoint_seconds=settings.checkpoint_seconds,
    )


def _planned_tokens(
    settings: PretrainSettings,
    prepared: Prepared,
    model: MaskedLanguageModel,
    work: Path,
    identity: str,
    accelerator: Accelerator,
    progress: Progress,
) -> int:
    """How many tokens to train on, fixed once and kept: a resumed pre-training has the same plan to the last step.

    Minutes become tokens here, by the speed of a copy of the model, and not by a clock while training: the learning
    rate can come down to its end, and the same plan gives the same weights.
    """
    path = work / "plan.json"
    if accelerator.is_main_process and path.exists():
        plan = cast(dict[str, Any], read_json(path))
        if plan["identity"] != identity:
            rule = "the stopped pre-training must have the settings, text and start of this one"
            raise CheckpointError(Problem(rule, str(work), hint="add --restart to throw it away"))
    exists = path.exists()
    accelerator.wait_for_everyone()
    if not exists:
        tokens = settings.tokens
        if settings.minutes is not None:
            progress.stage("pretrain/speed")
            speed = _tokens_a_second(settings, prepared, model, accelerator)
            tokens = min(tokens, max(1, int(60 * settings.minutes * speed)))
            progress.say(f"{speed:,.0f} tokens a second: {tokens:,} tokens in {settings.minutes:g} minutes or less")
        if accelerator.is_main_process:
            write_json(path, {"identity": identity, "tokens": tokens})
        accelerator.wait_for_everyone()
    return int(cast(dict[str, Any], read_json(path))["tokens"])


def _tokens_a_second(
    settings: PretrainSettings, prepared: Prepared, model: MaskedLanguageModel, accelerator: Accelerator
) -> float:
    """Trains a copy for a few steps, more and more until they take long enough to tell."""
    steps = WARM_UP_STEPS
    while True:
        source = _batches(settings, prepared, 0, accelerator, most=steps * settings.accumulate)
        trial = copy.deepcopy(model)
        started = time.monotonic()
        train(trial, source, masked_loss, _train_settings(settings, 1), accelerator, seed=settings.seed)
        # every process must take the same number of steps
        seconds = torch.tensor([time.monotonic() - started], device=accelerator.device)
        longest = float(accelerator.gather(seconds).max())
        if steps > WARM_UP_STEPS and longest >= MEASURED_SECONDS:
            return source.tokens_after(0) / longest
        steps = max(2 * steps, int(steps * MEASURED_SECONDS / max(longest, 1e-3)))
