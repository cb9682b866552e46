"""From files to flow, stage by stage."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from mer4d.cache import FlowStore, SourceDigests
from mer4d.clip import Clip
from mer4d.data import FourDME
from mer4d.preprocess import TVL1, ApexDetector, AutoViews, FaceCrop, Preprocess, pipeline
from mer4d.preprocess.prepare import cache_key
from mer4d.synth import write_corpus
from speeds.rows import Row, Sizes, say

STAGES = {
    "files, digests": (SourceDigests, "digest"),
    "views": (AutoViews, "read"),
    "face crop": (FaceCrop, "__call__"),
    "apex": (ApexDetector, "__call__"),
    "flow, TV-L1": (TVL1, "pairs"),
    "texture": (pipeline, "texture"),
    "flow back": (pipeline, "flow_back"),
    "head motion": (pipeline, "remove_head_motion"),
    "channels": (pipeline, "flow_channels"),
    "quality of flow": (pipeline, "flow_quality"),
    "writing": (FlowStore, "write"),
}
"""Stage of the preparation to the function that is it."""


def preparation(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Clips per second on one core, by stage, of meshes and of pictures of the same recordings."""
    cv2.setNumThreads(1)
    kinds = {}
    for layout, frames in (("meshes", "meshes/{sub_ID}/{fold_name}"), ("side_by_side", FourDME().frames)):
        # As many people as clips: faces take longest to find where they are new.
        write_corpus(folder / layout, subjects=sizes.prepared, clips=1, seed=sizes.seed, layout=layout, jobs=1)
        kinds[layout] = FourDME(frames=frames).read(folder / layout)
    spent = {layout: [] for layout in kinds}
    for turn in range(sizes.rounds):
        for layout, clips in kinds.items():
            say(f"preparation, round {turn + 1}: {layout}")
            with TemporaryDirectory(dir=folder) as fresh:
                spent[layout].append(prepare_in_stages(clips, Path(fresh)))
    for layout, rounds in spent.items():
        count = len(kinds[layout])
        whole = [seconds["whole"] for seconds in rounds]
        for stage in ("whole", *STAGES, "rest"):
            seconds = [each[stage] for each in rounds]
            speeds, shares = [count / each for each in seconds], np.divide(seconds, whole).tolist()
            row = Row("preparation", f"{layout}: {stage}", "clips/s per core", speeds)
            yield row if stage == "whole" else replace(row, to="whole time", ratios=shares)


def prepare_in_stages(clips: Sequence[Clip], cache: Path) -> dict[str, float]:
    """Seconds of CPU time that clips spend in each stage, in all, and in none."""
    seconds, under_way = defaultdict(float), []
    preprocess, store, digests = Preprocess(), FlowStore(cache), SourceDigests(cache / "sources")
    with ExitStack() as patches:
        for stage, (owner, name) in STAGES.items():
            timed = _timed(getattr(owner, name), seconds, stage, under_way)
            patches.enter_context(patch.object(owner, name, timed))
        start = time.process_time()
        for clip in clips:
            store.write(cache_key(clip, preprocess, digests), preprocess(clip))
        whole = time.process_time() - start
    return {**dict.fromkeys(STAGES, 0.0), **seconds, "whole": whole, "rest": whole - sum(seconds.values())}


def _timed(function: Callable, seconds: dict[str, float], stage: str, under_way: list[str]) -> Callable:
    """The function, which adds its time to a stage where no stage is under way."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        if under_way:
            return function(*args, **kwargs)
        under_way.append(stage)
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[under_way.pop()] += time.process_time() - start

    return timed
