"""All speeds that matter, in one table: preparation, cache, a fold, a whole LOSO, memory, and growth with the corpus.

    make bench [ARGS="--quick true"]
    .venv/bin/python benchmarks/bench.py [--out bench] [--parts "[fold, loso]"] [--growth "[1,4,16]"] [--clips 60]
        [--epochs 20] [--rounds 3] [--prepared 6] [--seed 0] [--quick true]

Writes `bench.json`, with every single measurement, and `bench.md`, with medians, into `out`. Absolute times are those
of one machine; ratios come first, each of measurements that were made in turn, A B A B ..., the ratio taken within a
round. What needs a GPU is measured where there is one, and left empty elsewhere. `--growth "[17,167]"` trains on 1,000
and 10,000 clips; it takes 0.25 MB of the temporary folder for each.

`preparation` times the pipeline's own functions while it prepares clips of a synthetic corpus on one core. All else
runs on clips of generated flow, without any preparation. `fold` trains the same network twice, as `mer4d loso` does and
in a plain torch loop, and ends with an error unless both come to the same weights. `loso` runs whole commands, each in
a process of its own; resident memory is that of the command with all its children, pages that they share counted for
each. On a CPU, `preparation`, `fold` and `growth` measure CPU time of one thread, unless a row says wall time.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import psutil
import torch
from jsonargparse import auto_cli

from mer4d.cache import write_atomically
from mer4d.loso.summary import provenance
from mer4d.parallel import processes
from speeds.folds import fold
from speeds.growth import growth
from speeds.preparation import preparation
from speeds.reading import cache
from speeds.rows import COLUMNS, Row, Sizes, say
from speeds.runs import loso

PartName = Literal["preparation", "cache", "fold", "loso", "growth"]

PARTS: dict[PartName, Callable[[Sizes, Path], Iterator[Row]]] = {
    "preparation": preparation,
    "cache": cache,
    "fold": fold,
    "loso": loso,
    "growth": growth,
}


def machine() -> dict[str, Any]:
    """What it runs on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": model[1] if model else "unknown",
        "cores": processes(None, sys.maxsize),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": ", ".join(gpus) or "none",
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def markdown(record: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table, and above it all that one must know to read it."""
    found, sizes = record["machine"], record["sizes"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    about = [
        f"Machine: {found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, GPU: {found['gpu']};"
        f" load average at the start {found['load_at_start']}",
        f"Versions: {versions}; commit {record['commit']}",
        f"Date: {record['date']}, {record['minutes']:.1f} minutes",
        "Sizes: " + ", ".join(f"{name} {value}" for name, value in sizes.items()),
        "Median and range over the rounds, which are in turn; ratios are taken within a round. An empty cell was not"
        " measured.",
    ]
    table = [[*COLUMNS], [*COLUMNS.values()], *(row.cells() for row in rows)]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(["# Benchmarks", "", *(f"- {line}" for line in about), "", *lines, ""])


def bench(
    out: Path = Path("bench"),
    parts: tuple[PartName, ...] = get_args(PartName),
    clips: int = 60,
    epochs: int = 20,
    rounds: int = 3,
    growth: tuple[int, ...] = (1, 4, 16),
    prepared: int = 6,
    seed: int = 0,
    quick: bool = False,
) -> None:
    """Measures all parts and writes the table.

    Args:
        out: Folder of bench.json and bench.md; both are complete after every part.
        parts: What to measure.
        clips: Clips of generated flow, six of each subject.
        epochs: Of every training, without early stopping.
        rounds: How often everything is measured.
        growth: Sizes of the corpus, as multiples of `clips`.
        prepared: Clips of the synthetic corpus that are prepared, in each of two forms.
        seed: Of everything random.
        quick: Take tiny sizes, whatever the others say, to see that all runs.
    """
    sizes = Sizes(clips, epochs, rounds, growth, prepared, seed)
    if quick:
        sizes = Sizes(clips=24, epochs=4, rounds=1, growth=(1, 2), prepared=1, seed=seed)
    torch.set_num_threads(1)
    start = time.perf_counter()
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **provenance(),
        "sizes": {**vars(sizes), "growth": list(sizes.growth)},
    }
    rows: list[Row] = []
    for part in parts:
        with TemporaryDirectory() as folder:
            rows += PARTS[part](sizes, Path(folder) / part)
        record["minutes"] = (time.perf_counter() - start) / 60
        content = {**record, "rows": [row.plain() for row in rows]}
        write_atomically(out / "bench.json", json.dumps(content, indent=2).encode())
        write_atomically(out / "bench.md", markdown(record, rows).encode())
    say(f"files: {out / 'bench.json'}, {out / 'bench.md'}")


if __name__ == "__main__":
    auto_cli(bench, as_positional=False)
