"""The results of the benchmarks as one Markdown table.

    python scripts/performance_table.py scripts/results/*.json

A line for each comparison of each file that has any; a ratio is the median over rounds of the ratio within a round.
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
# what a comparison must tell
FIELDS = ("what", "unit", "of", "over", "ratio", "medians", "figures")


def performance_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """``results``: file -> what a benchmark wrote. Raises :class:`CheckpointError` for a comparison without a field."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---:|---:|---:|---|"]
    for file, result in results.items():
        for number, found in enumerate(result.get("comparisons", [])):
            missing = [field for field in FIELDS if field not in found]
            if missing:
                raise CheckpointError(Problem(f"must have {missing[0]}", file, f"comparisons[{number}]", list(found)))
            setting = [result.get("shape"), result.get("batch"), found.get("precision", result.get("precision"))]
            cells = [
                found["what"],
                f"{found['of']} / {found['over']}",
                f"{found['ratio']:.2f}",
                *(f"{found['medians'][way]:,.4g} {found['unit']}" for way in (found["of"], found["over"])),
                ", ".join(str(part) for part in setting if part),
            ]
            lines.append(f"| {' | '.join(map(escaped, cells))} |")
    return "\n".join(lines)


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
