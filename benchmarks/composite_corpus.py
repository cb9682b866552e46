"""A synthetic corpus like the composite of MEGC2019: one view, three classes, 442 clips of 68 subjects in three parts.

    .venv/bin/python benchmarks/composite_corpus.py data/composite [--face_model model.npz] [--seed 7001]
    mer4d loso --config configs/megc2019_synthetic.yaml --data.root data/composite

Each part has as many subjects and clips of each class as that of MEGC2019 (J. See et al., FG 2019, doi
10.1109/FG.2019.8756611), by the generator's preset hard. Repression counts as negative, others is left out, and so is a
clip that shows emotions of two classes. The one view is the left of the generator's two.
"""

from pathlib import Path

import pandas as pd
from jsonargparse import auto_cli

from mer4d.cache import write_atomically
from mer4d.synth import Corpus, Take, write_clips

PARTS = {
    "casme2": (24, {"negative": 88, "positive": 32, "surprise": 25}),
    "smic": (16, {"negative": 70, "positive": 51, "surprise": 43}),
    "samm": (28, {"negative": 92, "positive": 26, "surprise": 15}),
}
"""Subjects, and clips of each class."""

CLASSES = {"negative": "negative", "repression": "negative", "positive": "positive", "surprise": "surprise"}

CANDIDATES = 40
"""Clips of each subject among which those of a part are found; only those are written."""


def chosen(corpus: Corpus, wanted: dict[str, int]) -> list[tuple[Take, str]]:
    """Clips of a part with their class, spread over the subjects as evenly as they show the class."""
    found: dict[str, list[Take]] = {name: [] for name in wanted}
    turns: dict[tuple[str, int], int] = {}
    order = {}
    for subject in range(corpus.subjects):
        for clip in range(corpus.clips):
            take = Take(corpus, subject, clip)
            classes = {CLASSES.get(emotion) for emotion in take.performance.emotions}
            if len(classes) == 1 and (name := classes.pop()) is not None:
                turn = turns[name, subject] = turns.get((name, subject), -1) + 1
                order[take.name] = turn, subject
                found[name].append(take)
    return [
        (take, name)
        for name, number in wanted.items()
        for take in sorted(found[name], key=lambda take: order[take.name])[:number]
    ]


def write(out: Path, face_model: Path | None = None, seed: int = 7001, jobs: int | None = None) -> None:
    """Writes the frames, then the manifest; what is there is not written again.

    Args:
        out: Folder of the corpus.
        face_model: Blendshape model instead of the built-in face.
        seed: Of the first part; the others have those after it.
        jobs: Processes; null for one per core.
    """
    rows = []
    for number, (part, (subjects, wanted)) in enumerate(PARTS.items()):
        corpus = Corpus(
            subjects, CANDIDATES, seed=seed + number, face_model=face_model, layout="separate", preset="hard"
        )
        takes = chosen(corpus, wanted)
        write_clips([take for take, _ in takes], out / part, jobs)
        for take, name in takes:
            script = take.performance
            rows.append(
                {
                    "clip_id": f"{part}-{take.name}",
                    "subject": f"{part}-{take.sub_id}",
                    "frames": f"{part}/gray_micro/{take.sub_id}/{take.name}/left",
                    "onset_frame": script.first + script.onset,
                    "apex_frame": script.first + script.apex,
                    "offset_frame": script.first + script.offset,
                    "label": name,
                    "frame_rate": 60,
                }
            )
    write_atomically(out / "manifest.csv", pd.DataFrame(rows).to_csv(index=False).encode())


if __name__ == "__main__":
    auto_cli(write, as_positional=True)
