"""The results of the benchmarks as one Markdown table.

    python scripts/performance_table.py scripts/results/*.json

A line for each comparison of each file; a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_tickets.errors import CheckpointError, MtlTicketsError, Problem
from mtl_tickets.files import read_json
from mtl_tickets.report.tables import escaped

HEADINGS = ("what", "A / B", "ratio", "A", "B", "with")


def performance_table(results: Mapping[str, Any]) -> str:
    """``results``: file -> what a benchmark wrote. Raises :class:`CheckpointError` for a file that is no such thing or
    holds no comparison."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---:|---:|---:|---|"]
    for file, result in results.items():
        try:
            comparisons = result["comparisons"]
            if not comparisons:
                raise ValueError("no comparison")
            lines += [f"| {' | '.join(map(escaped, _cells(result, found)))} |" for found in comparisons]
        except (TypeError, KeyError, ValueError) as error:
            rule = f"must be what a benchmark with comparisons wrote ({type(error).__name__}: {error})"
            raise CheckpointError(Problem(rule, file)) from None
    return "\n".join(lines)


def _cells(result: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A comparison's line. What it says of device and precision counts before what its file says."""
    device = found.get("device", result["device"])
    setting = [result.get("shape"), result.get("batch"), found.get("precision", result["precision"]), device["name"]]
    if device["kind"] == "cpu":
        setting[-1] = f"{result['threads']} thread{'s' * (result['threads'] != 1)} of {setting[-1]}"
    return [
        found["what"],
        f"{found['of']} / {found['over']}",
        f"{found['ratio']:.3g}",
        *(f"{found['medians'][way]:,.10g} {found['unit']}" for way in (found["of"], found["over"])),
        ", ".join(str(part) for part in setting if part),
    ]


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(performance_table({path: read_json(Path(path)) for path in arguments}))
    except MtlTicketsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
