"""Flow from the cache."""

import time
from collections.abc import Iterator
from pathlib import Path

from speeds.flow_corpus import Experiment
from speeds.rows import Row, Sizes, against, say


def cache(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Clips and megabytes per second of entries, and of all that a fold reads, beside the bare bytes."""
    made = Experiment.make(folder, sizes.clips * max(sizes.growth), sizes.epochs, sizes.seed)
    data = made.data(sizes.seed)
    keys = sorted(data.keys.values())
    megabytes = sum(data.store.path(key).stat().st_size for key in keys) / len(keys) / 1e6

    def read_bytes() -> int:
        return sum(bool(data.store.path(key).read_bytes()) for key in keys)

    def read_entries() -> int:
        return sum(data.store.read(key).flow.size > 0 for key in keys)

    def set_up() -> int:
        fresh.setup("fit")  # anew in every round, since a corpus keeps in memory what it has read
        return sum(len(loader().dataset) for loader in (fresh.train_dataloader, fresh.val_dataloader))

    ways = {"bytes of the files": read_bytes, "FlowStore.read": read_entries, "setup('fit')": set_up}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(sizes.rounds):
        say(f"cache, round {turn + 1}")
        fresh = made.data(sizes.seed, test_subject=data.clips[0].subject)
        fresh.prepare_data()
        for name, way in ways.items():
            start = time.perf_counter()
            speeds[name].append(way() / (time.perf_counter() - start))
    bare = speeds["bytes of the files"]
    for name, each in speeds.items():
        clips = Row("cache", name, "clips/s", each)
        yield clips if each is bare else against(clips, bare, "time of the bytes alone", inverse=True)
        yield Row("cache", name, "MB/s", [megabytes * speed for speed in each])
