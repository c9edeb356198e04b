"""``evaluate``, ``predict``, ``export`` and ``pretrain``."""

from __future__ import annotations

import enum
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtl_tickets.cli.console import err, out, visible
from mtl_tickets.errors import InputError, Problem

if TYPE_CHECKING:
    from mtl_tickets.serving import Prediction, Scored

PANEL = "Models"

Place = Annotated[Path, typer.Argument(metavar="RUN", help="An experiment folder, a run (seed-N) or a model folder.")]
Task = Annotated[str, typer.Option("--task", help="A task of the model, or a task file that names its head.")]
Rule = Annotated[
    str | None,
    typer.Option("--rule", help="Which model of a run: a sharing rule (default: adaptive).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    for command in (evaluate, predict, export, pretrain):
        app.command(rich_help_panel=PANEL)(command)


def evaluate(
    run: Place,
    task: Task,
    data: Annotated[
        Path | None,
        typer.Option(help="A csv, tsv, jsonl or parquet file. Without it: the run's own dev rows.", show_default=False),
    ] = None,
    rule: Rule = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN[,COLUMN]", help="Text columns of the file.", show_default=False),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label column of the file.", show_default=False)] = None,
    split: Annotated[
        str | None, typer.Option(help="Another split than the task's dev splits.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a task on its dev rows or on any file; over all seeds of an experiment folder."""
    with err().status("evaluating"):
        from mtl_tickets import serving

        columns = [part.strip() for part in text.split(",")] if text else None
        scored = serving.evaluate(run, task, data, rule, columns, label, split)
    if as_json:
        typer.echo(json.dumps([vars(item) for item in scored], indent=2, ensure_ascii=False))
    else:
        _show_scores(task, scored)
    left_out = _seeds_left_out(run, scored)
    if left_out:
        err().print(f"left out, because it has no model yet: {', '.join(left_out)}", style="yellow", markup=False)


def _seeds_left_out(run: Path, scored: list[Scored]) -> list[str]:
    from mtl_tickets.locate import runs_in, seed_of

    if (run / "tasks.json").is_file():
        return []
    there = {item.seed for item in scored}
    return [f"seed {seed_of(place)}" for place in runs_in(run) if seed_of(place) not in there]


def _show_scores(task: str, scored: list[Scored]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    metrics = list(scored[0].metrics)
    table.add_column("model", no_wrap=True)
    table.add_column("data", overflow="fold")
    for heading in ("rows", *metrics, "score"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in scored:
        name = Path(item.model).name if item.seed is None else f"seed {item.seed}"
        values = [*(f"{item.metrics[metric]:.4f}" for metric in metrics), f"{item.score:.2f}"]
        table.add_row(Text(name), Text(item.split), f"{item.rows:,}", *values)
    for split in dict.fromkeys(item.split for item in scored):
        same = [item for item in scored if item.split == split]
        if len(same) < 2:
            continue
        table.add_section()
        cells = [_mean([item.metrics[metric] for item in same], 4) for metric in metrics]
        cells.append(_mean([item.score for item in same], 2))
        table.add_row(Text("mean", style="bold"), Text(split), f"{same[0].rows:,}", *cells)
    console = out()
    console.print(Text(task, style="bold"))
    console.print(table)


def _mean(values: list[float], digits: int) -> str:
    """Mean and sample standard deviation over seeds."""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def predict(
    run: Place,
    task: Annotated[
        list[str], typer.Option("--task", help="A task of the model, or a task file that names its head. Repeatable.")
    ],
    rule: Rule = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line, with every label's share; with several tasks by task.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Lines read before they are answered.")] = 1024,
) -> None:
    """Answer lines from standard input: a text a line, or two separated by a tab. Label and probability come out.

    With several tasks these stand side by side, in the order of the tasks; what the tasks' tickets agree on is computed
    once.
    """
    with err().status("loading the model"):
        from mtl_tickets import serving

        served = serving.serve(run, rule)
        specs = [served.task(name) for name in dict.fromkeys(task)]
    if sys.stdin.isatty():
        width = serving.spec_width(specs[0])
        what = {1: "a text", 2: "two texts separated by a tab"}.get(width or 0, "a text, or two separated by a tab,")
        err().print(f"type {what} a line; end with Ctrl-D", style="dim")
        batch = 1
    for examples in serving.read_lines(_stdin_lines(), batch):
        for answers in zip(*served.predict_all(specs, examples), strict=True):
            by_task = {spec.name: _answer(answer) for spec, answer in zip(specs, answers, strict=True)}
            if as_json:
                print(json.dumps(by_task if len(specs) > 1 else by_task[specs[0].name], ensure_ascii=False))
            else:
                print("\t".join(map(_shown, answers)))
        sys.stdout.flush()


def _stdin_lines() -> Any:
    """Lines of standard input as UTF-8, ended by LF alone."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(Problem("must be UTF-8 text", file="input", place=f"line {number}", found=line)) from None


def _answer(answer: Prediction) -> dict[str, Any]:
    if answer.label is None:
        return {"value": answer.value}
    shares = {label: round(share, 6) for label, share in answer.probabilities.items()}
    return {"label": answer.label, "probability": shares[answer.label], "probabilities": shares}


def _shown(answer: Prediction) -> str:
    if answer.label is None:
        return f"{answer.value:.4f}"
    return f"{visible(answer.label)}\t{answer.probability:.4f}"


class Form(enum.StrEnum):
    dir = "dir"
    onnx = "onnx"


def export(
    run: Place,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it goes: a new folder.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task to serve (default: all). Repeatable.", show_default=False)
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="dir: a model folder; onnx: a graph for every task, for ONNX Runtime.")
    ] = Form.dir,
    rule: Rule = None,
) -> None:
    """Write a model without the heads and blocks that the tasks to be served do not need."""
    with err().status("exporting"):
        from mtl_tickets.exporting import export as write

        written = write(run, target, task or (), form.value, rule)
    console = out()
    for item in written:
        share = f"{item.parameters:,} of {item.before:,} parameters"
        tried = "" if item.difference is None else f", logits within {item.difference:.0e} in ONNX Runtime"
        console.print(f"{item.file}: {', '.join(item.tasks)}; {share}{tried}", markup=False, soft_wrap=True)


def pretrain(
    folder: Annotated[Path, typer.Argument(help="Where the encoder goes.")],
    text: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|PATTERN", help="Plain text (.txt, .txt.xz), token packs, or the word playground. Repeatable."
        ),
    ],
    tokens: Annotated[int | None, typer.Option(help="Tokens of text to train on (default: 10000000).")] = None,
    minutes: Annotated[float | None, typer.Option(help="About how long to train at most.", show_default=False)] = None,
    start: Annotated[
        str | None, typer.Option(metavar="ENCODER", help="Go on from this encoder (default: random weights).")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder, hub name or vocab.txt (default: trained on the text).")
    ] = None,
    vocabulary_size: Annotated[int | None, typer.Option(help="Word pieces to train (default: 8192).")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of a new encoder (default: 4).")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of a new encoder (default: 256).")] = None,
    heads: Annotated[int | None, typer.Option(help="Heads a layer of a new encoder (default: 8).")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens in a sequence (default: 128).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences in a batch (default: 64).")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default=False)] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed (default: 0).")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, for example schedule=cosine. Repeatable."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Keeps tokenised text.")] = Path(".cache"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a pre-training was stopped.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what there is and start again.")] = False,
) -> None:
    """Pre-train an encoder on plain text by masked language modelling, from scratch or going on from another."""
    if resume and restart:
        raise InputError(Problem("--resume and --restart exclude each other", file="--restart"))
    from mtl_tickets.documents import Document
    from mtl_tickets.pretraining.settings import PretrainSettings
    from mtl_tickets.settings import check

    shape = {"layers": layers, "hidden": hidden, "heads": heads}
    given: dict[str, Any] = {
        "text": text,
        "tokens": tokens,
        "minutes": minutes,
        "start": start,
        "tokenizer": tokenizer,
        "vocabulary_size": vocabulary_size,
        "shape": {name: value for name, value in shape.items() if value is not None} or None,
        "length": length,
        "batch_size": batch_size,
        "lr": lr,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    document = Document("pretrain", {name: value for name, value in given.items() if value is not None}, {})
    wanted = check(PretrainSettings, document.override(settings or ()))
    console = out()
    with console.status("loading libraries"):
        from mtl_tickets.pretraining.pretrain import pretrain as pretrain_encoder
        from mtl_tickets.report.progress import make_progress
    with make_progress(console) as progress:
        record = pretrain_encoder(wanted, folder, cache=cache, progress=progress, resume=resume, restart=restart)
    _show_record(record, folder)


def _show_record(record: dict[str, Any], folder: Path) -> None:
    console = out()
    training = record["training"]
    names = {
        "held_out_loss": "held-out loss",
        "held_out_next_sentence": "of the next sentence",
        "held_out_contrast": "of the contrast",
    }
    if "held_out_loss" not in record:
        names = {"loss": "loss"}
    losses = [f"{name} {record[key]:.3f}" for key, name in names.items() if record.get(key) is not None]
    console.print(
        f"{record['parameters']:,} parameters, {training['tokens']:,} tokens ({training['passes']:.1f} passes over "
        f"the text), {', '.join(losses)}",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"encoder: {folder}", markup=False, soft_wrap=True)
