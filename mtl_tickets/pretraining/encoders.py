"""Encoders that have a name here: one ships with the package, one builds itself. Loads no torch until it has to.

Each registers itself in ``ENCODERS`` as a function that returns the encoder's folder, building it where need be.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_tickets.errors import InputError, Problem, nearest
from mtl_tickets.files import digest
from mtl_tickets.pretraining.settings import PLAYGROUND_TEXT, PretrainSettings, ShapeSettings
from mtl_tickets.registry import Registry

if TYPE_CHECKING:
    from mtl_tickets.progress import Progress

NamedEncoder = Callable[[Path, "Progress | None"], Path]

ENCODERS: Registry[NamedEncoder] = Registry("encoder", "mtl_tickets.pretraining.encoders")

# the embedded default: change it here and it is built anew at its next use
PLAYGROUND = PretrainSettings(
    text=(PLAYGROUND_TEXT,),
    playground_tokens=1_000_000,
    vocabulary_size=2000,
    shape=ShapeSettings(layers=4, hidden=64, heads=8, intermediate=128, positions=64, dropout=0.0),
    tokens=1_000_000,
    # all three together learn more from half of the text than AdamW and random weights from all of it
    init_embeddings="ppmi",
    init_attention="neighbours",
    optimiser="muon",
    length=64,
    # in running text the words that tell each other are found only after many times as long
    next_sentence=True,
    batch_size=32,
    lr=2e-3,
    mask_share=0.2,
    reports=8,
)

MADE_FROM = {"playground": PLAYGROUND}

# owner/name; or one of the hub's few names without owner, which all have a hyphen or a digit (bert-base-cased, gpt2)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|(?=[\w.]*[-0-9])[A-Za-z][\w.-]*")


@ENCODERS.register("playground")
def playground(cache: Path, progress: Progress | None = None) -> Path:
    """A tiny BERT, pre-trained on the playground's own text at its first use (about a minute)."""
    return built("playground", PLAYGROUND, cache, progress)


@ENCODERS.register("mini")
def mini(cache: Path, progress: Progress | None = None) -> Path:
    """A small BERT pre-trained on English text, in the package itself: real tasks without a download."""
    return Path(__file__).parents[1] / "encoders" / "mini"


def made_from(name: str) -> str | None:
    """A digest of what the encoder of this name is made from; None where no encoder that builds itself has it."""
    return None if name not in MADE_FROM else digest(MADE_FROM[name].deciding())


def built(name: str, settings: PretrainSettings, cache: Path, progress: Progress | None = None) -> Path:
    """The folder of the encoder that ``settings`` make, ``cache``/encoders/<name>-<key>; built where it is missing.

    A build that was stopped goes on. A second process that needs the encoder meanwhile waits for the first.
    """
    from mtl_tickets.pretraining.pretrain import RECORD, pretrain
    from mtl_tickets.pretraining.text import find_sources
    from mtl_tickets.processes import accelerator_for, by_main

    accelerator = accelerator_for()
    sources = [
        s.fingerprint() for s in find_sources(settings.text, settings.playground_tokens, settings.packs_vocabulary)
    ]
    key = digest([settings.deciding(), sources, accelerator.mixed_precision])
    folder = cache / "encoders" / f"{name}-{key}"
    with _turn(folder) if accelerator.is_main_process else contextlib.nullcontext():
        # all processes of one run do what the main process found, or they would wait for each other for ever
        if not by_main((folder / RECORD).is_file):
            if progress is not None:
                progress.say(f"building the encoder {name!r} in {folder}")
            with _one_thread():
                pretrain(settings, folder, cache=cache, accelerator=accelerator, progress=progress, resume=True)
    return folder


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Layers this narrow gain nothing from a second thread, and with one the weights do not depend on the machine's
    number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def resolve_encoder(name_or_path: str | Path, cache: Path = Path(".cache"), progress: Progress | None = None) -> str:
    """Where ``from_pretrained`` finds the encoder: a folder (built where it is a named one), or a name on the hub.

    Raises :class:`InputError` where it can be none of these, with the nearest names.
    """
    name = str(name_or_path)
    if name in ENCODERS:
        return str(ENCODERS.get(name)(cache, progress))
    path = Path(name).expanduser()
    if path.is_dir():
        if not os.path.isfile(path / "config.json"):
            raise InputError(Problem("an encoder's folder must have a config.json", name))
        return str(path)
    if os.path.exists(path):
        raise InputError(Problem("an encoder must be a folder, not a file", name))
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    # owner/name may be on the hub even where a folder called owner is here
    misspelt = path.parent != Path() and difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.8)
    if misspelt or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(Problem("this folder must exist", name, hint=nearest(path.name, siblings)))
    slip = difflib.get_close_matches(name.lower(), ENCODERS.names(), n=1, cutoff=0.8)
    if slip or not HUB_ID.fullmatch(name):
        rule = "an encoder must be a folder, a name on the hub or one of the encoders with a name here"
        raise InputError(Problem(rule, found=name, hint=nearest(name, ENCODERS.names())))
    return name


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits until no other process builds this encoder. The operating system lets go of it however a process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.turn"), "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
