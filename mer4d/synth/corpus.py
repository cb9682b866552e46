"""A whole synthetic corpus on disk, laid out as 4DME is, with meshes or pictures for frames."""

import hashlib
import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mer4d.cache import write_atomically
from mer4d.clip import EMOTIONS
from mer4d.errors import CacheError, SettingError
from mer4d.parallel import hold, process_pool, processes, progress_bars
from mer4d.synth.builtin import built_in_face
from mer4d.synth.face import Face
from mer4d.synth.layouts import FRAMES, LAYOUTS, TREE, Layout, frame_writer, frames_folder
from mer4d.synth.model_file import read_face_model
from mer4d.synth.performance import Performance, cast, perform
from mer4d.synth.skin import paint

FORMAT = 1
"""Version of the corpus; raise it whenever the same settings would give other files."""

JPEG_QUALITY = 90

README = """# A synthetic 4D micro-expression corpus

Written by `mer4d synth`; no real person is shown. It is laid out as 4DME is (DOI 10.1109/TAFFC.2022.3182342), \
{frames}. 60 frames per second.

    annotation.csv                         one row per clip; Onset is the last, Offset the first neutral frame
    {tree}
    truth.csv                              one row per clip: raw frame numbers, AU=left/right intensity at the apex (1:
                                           a full expression), exponents of time in rise and fall, standard deviation
                                           of the head motion (degrees, cm), drift of the brightness
    corpus.json                            the options
"""


@dataclass(frozen=True)
class Corpus:
    """What the content of a corpus depends on; `write_corpus` describes the fields.

    Raises:
        SettingError: A field is impossible.
    """

    subjects: int
    clips: int
    intensity: tuple[float, float]
    noise: float
    head_motion: float
    seed: int
    face_model: Path | None
    layout: Layout = "meshes"

    def __post_init__(self) -> None:
        low, high = self.intensity
        for name, fine, expected in (
            ("subjects", self.subjects >= 1, "at least 1"),
            ("clips", self.clips >= 1, "at least 1"),
            ("intensity", 0.1 <= low <= high <= 0.4, "two numbers within 0.1..0.4, the smaller one first"),
            ("noise", 0 <= self.noise < np.inf, "at least 0"),
            ("head_motion", 0 <= self.head_motion < np.inf, "at least 0"),
            ("seed", self.seed >= 0, "at least 0"),
            ("layout", self.layout in LAYOUTS, f"one of {', '.join(LAYOUTS)}"),
        ):
            if not fine:
                raise SettingError(f"setting `{name}`", expected, getattr(self, name), "correct the setting")

    @property
    def face(self) -> Face:
        """The face that every subject is a variation of."""
        return built_in_face() if self.face_model is None else read_face_model(self.face_model)

    @property
    def options(self) -> str:
        """All options as JSON; a model file counts by its content, wherever it lies."""
        options = {"format": FORMAT, **asdict(self)}
        if self.layout == "meshes":  # as corpora from before there were layouts have it
            del options["layout"]
        if self.face_model is not None:
            options["face_model"] = hashlib.blake2b(self.face_model.read_bytes(), digest_size=16).hexdigest()
        return json.dumps(options, indent=2) + "\n"

    def rng(self, *place: int) -> np.random.Generator:
        """The generator of the corpus (), a subject (number), a clip (and its number) or a frame (and its number)."""
        return np.random.default_rng([self.seed, len(place), *place])


@dataclass(frozen=True)
class Take:
    """A clip of the corpus: its place, counted from 0, and what happens in it."""

    subject: int
    clip: int
    session: str
    performance: Performance

    @property
    def sub_id(self) -> str:
        """Name of the subject."""
        return f"S{self.subject + 1:02d}"

    @property
    def name(self) -> str:
        """Name of the clip, of the form that 4DME uses."""
        return f"{self.sub_id}_{self.session}_{self.clip + 1:03d}_01_1"


def write_corpus(
    out: Path,
    subjects: int = 10,
    clips: int = 8,
    intensity: tuple[float, float] = (0.2, 0.4),
    noise: float = 1.5,
    head_motion: float = 0.15,
    seed: int = 0,
    face_model: Path | None = None,
    layout: Layout = "meshes",
    jobs: int | None = None,
    progress: bool = True,
) -> None:
    """Writes a synthetic corpus, textured mesh sequences or pictures of them, with an annotation sheet.

    An interrupted run goes on where it stopped; the sheet is written last, so a corpus that has one is complete. The
    same options give the same bytes, however many processes write them.

    Args:
        out: Folder of the corpus.
        subjects: Number of people.
        clips: Number of clips of each person.
        intensity: Least and greatest intensity at the apex, 1 being a full expression; within 0.1..0.4.
        noise: Standard deviation of the image noise, grey levels.
        head_motion: Standard deviation of the head's rotation about each axis, degrees; 0.2 cm of shift per degree.
        seed: Everything random follows from it.
        face_model: Blendshape model (.npz) to use instead of the built-in face.
        layout: What a frame is: `meshes`; or pictures of the same meshes, as two cameras see them, in one image
            `side_by_side` or `stacked`, or `separate` in a folder for each view.
        jobs: Processes to use; None for one per core.
        progress: Whether to show progress bars.

    Raises:
        SettingError: An option is impossible, the model file is unusable, or the folder holds something else.
        CacheError: The disk refused a file; what is complete stays.
        RunError: Another process writes the same corpus.
    """
    corpus = Corpus(subjects, clips, intensity, noise, head_motion, seed, face_model, layout)
    processes(jobs, tasks=1)  # so that an impossible setting is told before anything is written
    modes = len(corpus.face.identities)  # now, so that an unusable model file is told before anything is written
    _claim(out, corpus)
    if not (out / "annotation.csv").exists():
        with hold(out / frames_folder(layout)):
            _write(corpus, modes, out, jobs, progress)


def _write(corpus: Corpus, modes: int, out: Path, jobs: int | None, progress: bool) -> None:
    """Writes what is missing, the annotation sheet last; `modes` is how many the face's identities have."""
    emotions = cast(corpus.subjects, corpus.clips, corpus.rng())
    takes = [
        Take(
            subject,
            clip,
            "1st" if clip < corpus.clips / 2 else "2nd",
            perform(emotions[subject][clip], corpus.intensity, corpus.head_motion, corpus.rng(subject, clip)),
        )
        for subject in range(corpus.subjects)
        for clip in range(corpus.clips)
    ]
    frames = out / frames_folder(corpus.layout)
    missing = [take for take in takes if not (frames / take.sub_id / take.name).exists()]
    people = {take.subject: corpus.rng(take.subject).standard_normal(modes).clip(-2, 2) for take in missing}
    jobs = processes(jobs, len(missing))
    with progress_bars(disable=not progress) as bars, nullcontext() if jobs == 1 else process_pool(jobs) as pool:
        each = pool.map if pool else map
        painted = each(_paint, repeat(corpus), people, people.values())
        textures = dict(zip(people, bars.track(painted, len(people), description="Painting faces"), strict=True))
        looks = [(people[take.subject], textures[take.subject]) for take in missing]
        written = each(_write_clip, repeat(corpus), missing, looks, repeat(frames))
        for _ in bars.track(written, len(missing), description=f"Writing clips ({jobs} processes)"):
            pass

    _write_table(out / "truth.csv", [_truth(take) for take in takes])
    write_atomically(out / "README.md", README.format(frames=FRAMES[corpus.layout], tree=TREE[corpus.layout]).encode())
    shown = sorted({number for take in takes for number in take.performance.action_units})
    _write_table(out / "annotation.csv", [_annotation(take, shown) for take in takes])


def _claim(out: Path, corpus: Corpus) -> None:
    """Makes sure that the folder is or becomes this corpus."""
    note, options = out / "corpus.json", corpus.options
    if note.is_file() and note.read_text() == options:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "one with other options (see its corpus.json)" if note.is_file() else "something else"
        raise SettingError(out, "an empty folder, or this very corpus begun", found, "choose another folder")
    write_atomically(note, options.encode())


def _paint(corpus: Corpus, subject: int, identity: np.ndarray) -> np.ndarray:
    return paint(corpus.face, identity, corpus.rng(subject).spawn(1)[0])


def _write_clip(corpus: Corpus, take: Take, look: tuple[np.ndarray, np.ndarray], frames: Path) -> None:
    """Writes all frames of a clip, in a folder that appears when it is complete."""
    face, script, (identity, texture) = corpus.face, take.performance, look
    brightness = np.linspace(1, 1 + script.drift, script.frames, dtype=np.float32)
    folder = frames / take.sub_id / take.name
    partial = folder.with_name(f".{take.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shapes = script.vertices(face, identity)
        write = frame_writer(corpus.layout, face, shapes[script.onset])
        for number, vertices in enumerate(shapes):
            grain = corpus.rng(take.subject, take.clip, number).standard_normal((*texture.shape[:2], 1), np.float32)
            picture = (brightness[number] * texture[..., ::-1] + corpus.noise * grain).round().clip(0, 255)
            jpeg = cv2.imencode(".jpg", picture.astype(np.uint8), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
            write(partial / str(script.first + number), vertices, jpeg.tobytes())
        partial.rename(folder)
    except OSError as error:
        raise CacheError(folder, "a writable place with room on the disk", error, "free space or move it") from error


def _annotation(take: Take, shown: list[int]) -> dict[str, object]:
    script = take.performance
    marks = [("L" if right == 0 else "R" if left == 0 else "") for left, right in script.action_units.values()]
    return {
        "sub_ID": take.sub_id,
        "fold_name": take.name,
        "fold": take.subject + 1,
        "eye blink": int(45 in script.action_units),
        "Onset": script.first + script.onset,
        "Apex": script.first + script.apex,
        "Offset": script.first + script.offset,
        "AUs": "AU" + "+".join(f"{mark}{number}" for mark, number in zip(marks, script.action_units, strict=True)),
        "Emotion": "+".join(emotion.capitalize() for emotion in script.emotions),
        **{emotion.capitalize(): int(emotion in script.emotions) for emotion in EMOTIONS},
        **{f"AU{number}": int(number in script.action_units) for number in shown},
    }


def _truth(take: Take) -> dict[str, object]:
    script = take.performance
    return {
        "clip": take.name,
        "emotions": "+".join(script.emotions),
        "first_raw": script.first,
        "onset_raw": script.first + script.onset,
        "apex_raw": script.first + script.apex,
        "offset_raw": script.first + script.offset,
        "last_raw": script.first + script.frames - 1,
        "peak": max(max(sides) for sides in script.action_units.values()),
        "aus": ";".join(f"{number}={left:.4f}/{right:.4f}" for number, (left, right) in script.action_units.items()),
        "bend_rise": script.bend[0],
        "bend_fall": script.bend[1],
        "rotation_std": script.rotation.std(axis=0).mean(),
        "translation_std": script.translation.std(axis=0).mean(),
        "drift": script.drift,
    }


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.4f", lineterminator="\n").encode())
