"""Reads the files that W&B writes offline, as `wandb sync` does."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record


@dataclass
class LoggedRun:
    """What a file holds: the run as a protocol buffer, its rows and settings, last values, and what lies beside it."""

    run: Any = None
    folder: Path | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)

    def table(self, name: str) -> dict[str, Any]:
        """Columns and data of a logged table."""
        return json.loads((self.folder / "files" / self.summary[f"{name}/path"]).read_text())


def read_runs(folder: Path) -> list[LoggedRun]:
    """Every run logged anywhere below a folder, by name."""
    runs = [_read(file) for file in folder.rglob("*.wandb")]
    return sorted(runs, key=lambda logged: logged.run.display_name)


def _read(file: Path) -> LoggedRun:
    logged = LoggedRun(folder=file.parent)
    for record in _records(file):
        match record.WhichOneof("record_type"):
            case "run":
                logged.run = record.run
                logged.config |= _items(record.run.config.update)
            case "config":
                logged.config |= _items(record.config.update)
            case "history":
                logged.history.append(_items(record.history.item))
            case "summary":
                logged.summary |= _items(record.summary.update)
            case "metric":
                logged.metrics[record.metric.name or record.metric.glob_name] = record.metric
            case "artifact":
                logged.artifacts.append(record.artifact)
    return logged


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(file: Path) -> Iterator[Record]:
    """Protocol buffers in a LevelDB log: blocks of 32 KiB, 7 bytes before each part."""
    content, position, parts = file.read_bytes(), 7, b""
    while position + 7 < len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last
            yield Record.FromString(parts)
            parts = b""
