"""Masked-language modelling as a task of a recipe: trained on a text, measured on what is held out of it.

The network is the encoder with the masked-language head of its checkpoint. Its row task is ``mlm``: ``loss`` in nats
per predicted token, ``accuracy`` and, as the score, accuracy x 100, on split ``held_out``, whose masks are always the
same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors.torch import save_file

from mtl_tickets.errors import InputError, Problem
from mtl_tickets.files import digest, written_whole
from mtl_tickets.model import weight_masks
from mtl_tickets.model.gates import Gates
from mtl_tickets.pretraining.masking import Course, MaskedBatches
from mtl_tickets.pretraining.mlm import MaskedLanguageModel, MaskedLoss
from mtl_tickets.pretraining.plan import Prepared
from mtl_tickets.pretraining.pretrain import prepare
from mtl_tickets.pretraining.settings import PretrainSettings, Share
from mtl_tickets.pretraining.start import first_network
from mtl_tickets.recipes.base import HELD_OUT, MLM
from mtl_tickets.recipes.jobs import PRETRAINED, Origin, Prune
from mtl_tickets.recipes.measured import remaining_rows
from mtl_tickets.recipes.run_directory import CHECKPOINT, Input
from mtl_tickets.recipes.workbench import PRUNED, Workbench, derived_seed
from mtl_tickets.settings import Settings
from mtl_tickets.tickets.space import WeightSpace
from mtl_tickets.tickets.ticket import Ticket
from mtl_tickets.training.loop import TrainResult, TrainSettings, train
from mtl_tickets.training.optim import OptimiserSettings
from mtl_tickets.training.rewind import Snapshot


class LanguageSettings(Settings):
    """A text, and how an encoder is trained on it."""

    text: tuple[str, ...] = pydantic.Field(
        min_length=1,
        description="files as in mtl-tickets pretrain (.txt, .txt.xz, .u16, .u16.xz, patterns), or the word playground",
    )
    packs_vocabulary: str | None = pydantic.Field(
        None, description="the vocab.txt that .u16 packs were made with, where it is not the encoder's"
    )
    playground_tokens: pydantic.PositiveInt = pydantic.Field(1_000_000, description="size of the generated text")
    length: int = pydantic.Field(128, ge=5, description="tokens in a sequence, [CLS] and [SEP] included")
    batch_size: pydantic.PositiveInt = pydantic.Field(16, description="sequences in a batch")
    mask_share: float = pydantic.Field(0.15, gt=0, lt=1, description="share of a sequence's tokens to be predicted")
    held_out: float = pydantic.Field(0.01, gt=0, le=0.5, description="share of the text kept out of training")
    held_out_sequences: pydantic.PositiveInt = pydantic.Field(1024, description="of what is held out, measured on")
    steps: pydantic.PositiveInt = pydantic.Field(10_000, description="optimiser steps of one training")
    optimiser: OptimiserSettings = OptimiserSettings(lr=5e-5, weight_decay=0.0, warm_up=0.0)
    dropout: Share | None = pydantic.Field(
        0.0, description="inside the encoder while it is trained on text; None: as it is configured"
    )
    checkpoint_seconds: pydantic.NonNegativeFloat = 60.0


@dataclass(frozen=True)
class LanguageTraining:
    """One training on the text: from ``origin`` with the checkpoint's head, through ``base``; fields as in
    :class:`~mtl_tickets.recipes.jobs.Training`."""

    stage: str
    report_as: str
    base: Ticket | None = None
    origin: Origin = PRETRAINED
    prune: Prune | None = None
    horizon: int = 1
    until: int | None = None
    keep_weights: bool = False


class Language:
    """The text, the network and the verbs, for one run."""

    def __init__(self, bench: Workbench, settings: LanguageSettings, cache: Path):
        self.bench, self.settings, self.cache = bench, settings, cache

    @cached_property
    def prepared(self) -> Prepared:
        """The tokenised text, parted. Raises as :func:`mtl_tickets.pretraining.pretrain.prepare`."""
        found = prepare(self._as_pretraining(), self.cache, self.cache, self.bench.accelerator, self.bench.progress)
        held = found.long.held
        if held is None:
            rule = "must be long enough to hold some of it out"
            raise InputError(Problem(rule, self.settings.text[0], "language.held_out", self.settings.held_out))
        fewer = held.chosen[:: -(-len(held.chosen) // self.settings.held_out_sequences)]
        held = MaskedBatches(held.sequences, fewer, held.special, held.size, held.seed, held.mask_share)
        return replace(found, long=replace(found.long, held=held))

    @property
    def held(self) -> MaskedBatches:
        held = self.prepared.long.held
        assert held is not None
        return held

    @cached_property
    def _start(self) -> tuple[MaskedLanguageModel, Snapshot]:
        settings = self._as_pretraining()
        network = first_network(settings, self.prepared.tokenizer, self.prepared.text, self.bench.progress)
        model = MaskedLanguageModel(network, seed=settings.seed)
        if self.settings.dropout is not None:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = self.settings.dropout
        return model.to(self.bench.accelerator.device), Snapshot(model)

    def make_ready(self) -> None:
        """Reads text and network, so that workers that are forked find them."""
        _ = self._start

    @property
    def start_digest(self) -> str:
        """Of the pretrained weights and the head they come with."""
        return self._start[1].digest

    def deciding(self) -> dict[str, Any]:
        """What of the settings and the text can change a number."""
        settings = self.settings.model_dump(mode="json", exclude={"text", "checkpoint_seconds"})
        return {"settings": settings, "text": self.prepared.text.fingerprint}

    def inputs(self) -> list[Input]:
        return [Input("text", ", ".join(self.settings.text), self.prepared.text.fingerprint)]

    def rewound(self, base: Ticket | None = None, origin: Origin = PRETRAINED) -> MaskedLanguageModel:
        """The network with the weights of ``origin``, bit for bit, seen through ``base``."""
        model, snapshot = self._start
        encoder = encoder_of(model)
        weight_masks.take_off(encoder)
        snapshot.restore(model)
        origin.put_into(encoder, self.bench.run.path / "stages")
        if base is not None:
            weight_masks.put_on(encoder, base)
        return model

    def steps(self, training: LanguageTraining) -> int:
        return self.settings.steps if training.until is None else training.until

    def train_each(self, trainings: Sequence[LanguageTraining]) -> None:
        """Trainings that do not need each other: side by side where the run has workers."""
        if not all(self.bench.run.is_done(training.stage) for training in trainings):
            self.make_ready()
        self.bench.each_once(self.train, trainings, self.steps)

    def train(self, training: LanguageTraining) -> None:
        """Rewinds, trains, measures, and prunes where the training says so."""
        bench = self.bench

        def train_stage(folder: Path) -> dict[str, Any]:
            bench.progress.stage(training.stage)
            model = self.rewound(training.base, training.origin)
            result = self._trained(model, training, folder)
            rows = self.rows(training.report_as, model, training.base, result.steps)
            # without zeros in the weights: a vocabulary matrix that is tied to masked embeddings is whole
            weight_masks.take_off(encoder_of(model))
            if training.prune is not None:
                # the pooler, which text does not train
                pretrained = bench.start(bench.learned[:1]).rewound().encoder
                training.prune.ticket(encoder_of(model), training.base, pretrained).where(
                    task=MLM, seed=bench.seed, encoder=bench.settings.name, weight_hash=bench.weight_hash
                ).save(folder / PRUNED)
            if training.keep_weights:
                own = {f"encoder.{name}": w.contiguous() for name, w in encoder_of(model).state_dict().items()}
                with written_whole(folder / "weights.safetensors") as part:
                    save_file(own, part)
            return {"rows": rows, "history": result.history, "steps": result.steps, "examples": result.examples}

        bench.run.stage(training.stage, train_stage)

    def measure(self, stage: str, report_as: str, ticket: Ticket | None, suffix: str = "") -> None:
        """What the pretrained network makes of the held-out text through ``ticket``, nothing trained. ``suffix``: of
        the metrics' names, where the ticket has others too."""

        def measure_stage(_: Path) -> dict[str, Any]:
            self.bench.progress.stage(stage)
            model, device = self.rewound(), self.bench.accelerator.device
            with seen_through(encoder_of(model), ticket):
                found = held_out_scores(model, self.held, device)
            rows = [self.row(report_as, name + suffix, value, 0) for name, value in found.items()]
            return {"rows": rows if suffix else rows + remaining_rows(self.bench, report_as, MLM, ticket)}

        self.bench.run.stage(stage, measure_stage)

    def rows(self, report_as: str, model: torch.nn.Module, ticket: Ticket | None, steps: int) -> list[dict[str, Any]]:
        """The metric rows of a model as it is, which sees its encoder through ``ticket``."""
        found = held_out_scores(model, self.held, self.bench.accelerator.device)
        rows = [self.row(report_as, name, value, steps) for name, value in found.items()]
        return rows + remaining_rows(self.bench, report_as, MLM, ticket)

    def row(self, report_as: str, metric: str, value: float, steps: int) -> dict[str, Any]:
        """A metric of the held-out text; its number of rows is that of the predicted tokens."""
        return self.bench.run.row(report_as, MLM, HELD_OUT, metric, value, self._predicted, steps)

    @cached_property
    def _predicted(self) -> int:
        return sum(len(batch.labels) for batch in self.held.one_pass())

    def _trained(self, model: MaskedLanguageModel, training: LanguageTraining, folder: Path) -> TrainResult:
        bench, steps = self.bench, self.settings.steps
        settings = TrainSettings(
            epochs=1, optimiser=self.settings.optimiser, checkpoint_seconds=self.settings.checkpoint_seconds
        )
        what: dict[str, Any] = {
            "start": self.start_digest,
            **self.deciding(),
            "horizon": training.horizon,
            "seed": bench.seed,
            "origin": asdict(training.origin),
            "base": None if training.base is None else training.base.digest(),
        }
        result = train(
            model,
            Course([(self.prepared.long.trained, steps)]),
            MaskedLoss(),
            settings,
            bench.accelerator,
            seed=derived_seed(bench.seed, "train", MLM),
            identity=digest(what),
            checkpoint=folder / CHECKPOINT,
            on_step=bench.progress.advance,
            planned_steps=steps * training.horizon,
            until=training.until,
        )
        bench.run.log(f"{training.stage}: {result.steps} steps, {result.seconds:.1f} s")
        return result

    def _as_pretraining(self) -> PretrainSettings:
        settings = self.settings
        return PretrainSettings(
            text=settings.text,
            packs_vocabulary=settings.packs_vocabulary,
            playground_tokens=settings.playground_tokens,
            start=self.bench.encoder,
            length=settings.length,
            batch_size=settings.batch_size,
            mask_share=settings.mask_share,
            held_out=settings.held_out,
            seed=derived_seed(self.bench.seed, "text"),
        )


def encoder_of(model: MaskedLanguageModel) -> torch.nn.Module:
    """The encoder inside, without the masked-language head."""
    encoder = model.network.base_model
    assert isinstance(encoder, torch.nn.Module)
    return encoder


@contextlib.contextmanager
def seen_through(encoder: torch.nn.Module, ticket: Ticket | None) -> Iterator[None]:
    """Inside, the encoder is seen through a ticket of any kind."""
    if ticket is None:
        yield
    elif isinstance(ticket.space, WeightSpace):
        weight_masks.put_on(encoder, ticket)
        try:
            yield
        finally:
            weight_masks.take_off(encoder)
    else:
        gates = Gates(encoder, 1)
        try:
            gates.set_tickets([ticket])
            with gates.on(0):
                yield
        finally:
            gates.remove()


@torch.no_grad()
def held_out_scores(model: torch.nn.Module, batches: MaskedBatches, device: torch.device) -> dict[str, float]:
    """One pass, dropout off: ``loss`` in nats per predicted token, ``accuracy`` of the most likely token, ``score`` =
    accuracy x 100. The masks are the same at every call."""
    training = model.training
    model.eval()
    loss, right, tokens = 0.0, 0, 0
    for batch in batches.one_pass():
        batch = batch.to(device)
        logits, _ = model(batch.input_ids, batch.positions, batch.attention_mask, batch.token_type_ids)
        loss += float(torch.nn.functional.cross_entropy(logits.float(), batch.labels, reduction="sum"))
        right += int((logits.argmax(-1) == batch.labels).sum())
        tokens += len(batch.labels)
    model.train(training)
    return {"loss": loss / tokens, "accuracy": right / tokens, "score": 100 * right / tokens}
