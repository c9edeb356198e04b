"""What tickets save when a model is used: units removed, ONNX Runtime, and many tasks on the same text.

    python scripts/benchmark_serving.py [--shape base] [--rows 8] [--tokens 128] [--repeats 5] [--json FILE]

A BERT with random weights (speed does not depend on them), fp32, sdpa, rows without padding:

- the dense model against models from which heads and neurons were removed, and whole feed-forward blocks; the removed
  units' share of the multiply-adds beside the share of the time that they were; outputs against the masked model's;
- the smaller model saved, read in a new process and exported to ONNX: outputs again, and ONNX Runtime's latency;
- eight tasks on the same text, together against eight masked passes and against passes of eight smaller models, one a
  task: tickets of three quarters of the heads and of the blocks of every half that agree in the lower half of the
  layers, and such tickets that agree nowhere. (Tickets that agree in the lower half and drop nothing could not come
  below 9/16.)
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from measuring import Figures, comparison, machine, rounds, write
from mix import config, device, info, model
from safetensors.torch import load_file, save_file

from mtl_tickets.model import store
from mtl_tickets.model.anatomy import dimensions_of, space_of
from mtl_tickets.model.compact import compact
from mtl_tickets.model.multitask import MultiTaskModel
from mtl_tickets.model.onnx import save_onnx
from mtl_tickets.tasks.spec import load_task
from mtl_tickets.tickets.space import StructuredSpace
from mtl_tickets.tickets.ticket import Ticket

TASKS, TASK = 8, "mnli"
# the share of the units that tickets of tasks on the same text keep
KEPT = 0.75
Text = dict[str, torch.Tensor]
Answers = dict[str, torch.Tensor]
# a new process: reads the folder and the inputs, writes what the model answers
READER = """
import sys, torch
from safetensors.torch import load_file, save_file
from mtl_tickets.model import store
model = store.load(sys.argv[1], device=sys.argv[4])
text = {name: value.to(sys.argv[4]) for name, value in load_file(sys.argv[2]).items()}
with torch.inference_mode():
    save_file({name: value.cpu().contiguous() for name, value in model.forward_all(**text).items()}, sys.argv[3])
"""


def text_of(made: MultiTaskModel, rows: int, tokens: int) -> Text:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, made.config.vocab_size, (rows, tokens), generator=generator)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: value.to(device()) for name, value in text.items()}


def seconds(run: Callable[[], Any], times: int) -> float:
    """A run's, the mean of some after one that is not counted."""
    with torch.inference_mode():
        run()
        _wait()
        started = time.perf_counter()
        for _ in range(times):
            run()
        _wait()
    return (time.perf_counter() - started) / times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def units(space: StructuredSpace, heads: int, neurons: int) -> Ticket:
    """The first ``heads`` heads and ``neurons`` neurons of every layer."""
    shapes = space.parts
    return Ticket(
        space,
        {
            "heads": np.arange(shapes["heads"][1]) < np.full(shapes["heads"], heads)[:, :1],
            "ffn": np.ones(shapes["ffn"], dtype=bool),
            "neurons": np.arange(shapes["neurons"][1]) < np.full(shapes["neurons"], neurons)[:, :1],
        },
    )


def without_blocks(space: StructuredSpace, blocks: int) -> Ticket:
    """Everything but the feed-forward blocks of the last layers."""
    kept = {part: np.ones(shape, dtype=bool) for part, shape in space.parts.items()}
    kept["ffn"][len(kept["ffn"]) - blocks :] = False
    return Ticket(space, kept)


def multiply_adds(made: MultiTaskModel, ticket: Ticket, tokens: int) -> float:
    """Of a token through the layers."""
    sizes = dimensions_of(made.config)
    heads, blocks = ticket.units["heads"], ticket.units["ffn"]
    neurons = ticket.units.get("neurons", np.ones((sizes.layers, sizes.intermediate), dtype=bool))
    of_heads = heads.sum() * (4 * sizes.hidden * sizes.head_width + 2 * tokens * sizes.head_width)
    return float(of_heads + (neurons * blocks[:, None]).sum() * 2 * sizes.hidden)


def largest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[task].cpu() - two[task].cpu()).abs().max()) for task in one)


def removal(
    shape: str, tokens: int, rows: int, repeats: int, times: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Comparisons, and what is known of each of the smaller models."""
    made = model(shape, [info(TASK)]).to(device()).eval()
    sizes, text = dimensions_of(made.config), text_of(made, rows, tokens)
    whole, fine = space_of(made.config), space_of(made.config, neurons=True)
    tickets = {
        "half of heads and neurons": units(fine, sizes.heads // 2, sizes.intermediate // 2),
        "a third of heads, a quarter of neurons": units(fine, sizes.heads // 3, sizes.intermediate // 4),
        "half of the feed-forward blocks": without_blocks(whole, sizes.layers // 2),
    }
    models = {"dense": made} | {name: compact(made, ticket) for name, ticket in tickets.items()}
    ways = {name: lambda of=of: seconds(lambda: of.forward_all(**text), times) * 1000 for name, of in models.items()}
    figures = rounds(ways, repeats, "ms")
    dense = multiply_adds(made, without_blocks(whole, 0), tokens)
    comparisons, facts = [], []
    for name, ticket in tickets.items():
        comparisons.append(comparison("latency after removal", figures, "ms", "dense", name))
        made.set_tickets({TASK: ticket})
        with torch.inference_mode():
            # not all tasks at once, which leaves out what a task drops: through the gates
            masked = {TASK: made(**text, segments=[(0, 0, rows)])[0]}
            unlike = largest(masked, models[name].forward_all(**text))
        made.set_tickets({})
        left = multiply_adds(made, ticket, tokens) / dense
        facts.append(
            {
                "kept": name,
                "multiply_adds_left": round(left, 4),
                "time_left": round(1 / comparisons[-1]["ratio"], 4),
                "difference_from_masked": unlike,
                **read_again(models[name], text, masked),
            }
        )
        print(facts[-1], flush=True)
    comparisons += served(models, text, repeats, times)
    return comparisons, facts


def read_again(small: MultiTaskModel, text: Text, masked: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Saved, and read in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store.save(small, place / "model")
        save_file({name: value.cpu().contiguous() for name, value in text.items()}, place / "text")
        paths = [str(place / name) for name in ("model", "text", "answers")]
        subprocess.run([sys.executable, "-c", READER, *paths, device().type], check=True)
        unlike = largest(load_file(place / "answers"), masked)
        size = (place / "model" / "model.safetensors").stat().st_size
    return {"difference_after_reading_in_a_new_process": unlike, "megabytes": round(size / 1e6, 1)}


def served(models: dict[str, MultiTaskModel], text: Text, repeats: int, times: int) -> list[dict[str, Any]]:
    """The same models in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    sessions, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, of in models.items():
            path = Path(folder) / "graph.onnx"
            differences[name] = save_onnx(of, TASK, path)
            sessions[name] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in next(iter(sessions.values())).get_inputs()}
    given = {name: value.cpu().numpy() for name, value in text.items() if name in taken}
    ways = {
        name: lambda session=session: seconds(lambda: session.run(["logits"], given), times) * 1000
        for name, session in sessions.items()
    }
    figures = rounds(ways, repeats, "ms")
    return [
        comparison("latency in ONNX Runtime after removal", figures, "ms", "dense", name)
        | {"difference_from_torch": differences[name], "device": {"kind": "cpu", "name": platform.machine()}}
        for name in list(sessions)[1:]
    ]


def together(shape: str, tokens: int, rows: int, repeats: int, times: int) -> list[dict[str, Any]]:
    """Eight tasks on the same text."""
    names = [f"task{number}" for number in range(TASKS)]
    made = model(shape, [info(name, load_task(TASK)) for name in names]).to(device()).eval()
    text, layers = text_of(made, rows, tokens), made.space.parts["ffn"][0]
    comparisons = []
    for what, from_layer in (("agree in the lower half", layers // 2), ("agree nowhere", 0)):
        made.set_tickets(parting(made, from_layer))
        small = {name: compact(made, tasks=[name]) for name in names}
        one_by_one = [[(number, 0, rows)] for number in range(TASKS)]

        def masked(segments: list[list[tuple[int, int, int]]] = one_by_one) -> Answers:
            return {name: made(**text, segments=of)[0] for name, of in zip(names, segments, strict=True)}

        def smaller(models: dict[str, MultiTaskModel] = small) -> Answers:
            return {name: of(**text, segments=[(0, 0, rows)])[0] for name, of in models.items()}

        def at_once() -> Answers:
            return made.forward_all(**text)

        with torch.inference_mode():
            unlike = largest(at_once(), masked())
        ways = {
            "together": lambda: seconds(at_once, times) * 1000,
            "a masked pass for each": lambda: seconds(masked, times) * 1000,
            "a smaller model for each": lambda run=smaller: seconds(run, times) * 1000,
        }
        figures: Figures = rounds(ways, repeats, "ms")
        kept = float(np.mean([ticket.units[part].mean() for ticket in made.tickets.values() for part in ticket.units]))
        told = {"difference": unlike, "kept_units": round(kept, 4)}
        for other in list(ways)[1:]:
            found = comparison(f"8 tasks on the same text, tickets {what}", figures, "ms", "together", other)
            comparisons.append(found | told)
    return comparisons


def parting(made: MultiTaskModel, from_layer: int) -> dict[str, Ticket]:
    """Tickets of ``KEPT`` of the heads of every layer and of the blocks of either half: one below ``from_layer``, each
    its own from there."""
    (layers, heads), half = made.space.parts["heads"], made.space.parts["ffn"][0] // 2

    def drawn(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        of_layers = [rng.permutation(heads) < round(KEPT * heads) for _ in range(layers)]
        blocks = [rng.permutation(size) < round(KEPT * size) for size in (half, layers - half)]
        return {"heads": np.stack(of_layers), "ffn": np.concatenate(blocks)}

    tickets, common = {}, drawn(0)
    for number, task in enumerate(made.tasks, 1):
        own = drawn(number)
        for part in own:
            own[part][:from_layer] = common[part][:from_layer]
        tickets[task.name] = Ticket(made.space, own)
    return tickets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="base", choices=["4x256", "base"])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--times", type=int, default=3, help="passes in a round (default: 3)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shared = (given.shape, given.tokens, given.rows, given.repeats, given.times)
    comparisons, facts = removal(*shared)
    result = {
        "what": "serving",
        "shape": given.shape,
        "vocabulary": config(given.shape).vocab_size,
        "batch": f"{given.rows} rows of {given.tokens} tokens",
        "comparisons": [*comparisons, *together(*shared)],
        "removed": facts,
        **machine("fp32"),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
