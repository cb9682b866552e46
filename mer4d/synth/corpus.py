"""A whole synthetic corpus on disk, laid out as 4DME is, with meshes or pictures for frames."""

import shutil
from contextlib import nullcontext
from dataclasses import asdict
from itertools import repeat
from pathlib import Path

import pandas as pd

from mer4d.cache import write_atomically
from mer4d.clip import EMOTIONS
from mer4d.errors import CacheError, SettingError
from mer4d.parallel import hold, process_pool, processes, progress_bars
from mer4d.synth.difficulty import Preset
from mer4d.synth.layouts import FRAMES, TREE, frame_writer, frames_folder
from mer4d.synth.recording import Corpus, Layout, Recording, Take, paint_subject
from mer4d.synth.truth import measure, write_truth

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

MODES = """
Its people are mixed from the {modes} identity modes of a face model.
"""

PRESET = """
## Preset {preset}

    intensity at the apex      {low:g} to {high:g}
    image noise                {noise:g} grey levels (standard deviation)
    grain of the skin          {grain:.0%} of its contrast in the preset easy
    brightness                 changes by up to {drift:.0%} over a clip
    head                       turns by {head_motion:g} degrees about each axis (standard deviation) and shifts by 0.2
                               cm per degree, slowly, with a tremor of {tremor:.0%} of that on top
    missing AUs                {missing:.0%} of the emotions with several AUs lack one of them, never the first
    distractors                {distractor:.0%} of the clips show, and their annotation names, an AU that belongs to
                               none of their emotions
    asymmetry                  {one_sided:.0%} of the AUs with sides show on one alone; AUs, and sides of an AU, have
                               down to {evenness:.0%} of the intensity
    residue                    up to {residue:.0%} of the expression is there up to the onset, and up to {residue:.0%}
                               stays from the offset: neither frame is quite neutral

truth.csv has three more columns: distractor, the AU that does not belong, and residue_onset and residue_offset, the
shares of the expression that are there up to the onset and from the offset.
"""

TRUTH = """
## Ground truth

    truth/{sub_ID}/{fold_name}.npz

Arrays for `numpy.load`, or `mer4d.synth.read_truth`, which documents each. For two views (left, right) and two phases
(onset to apex, apex to offset): the exact flow in pixels of what `MeshViews` with its defaults sees (256 x 256, +x
right, +y down, NaN off the surface), `face`, where the first picture shows the surface, and `visible`, where the second
picture shows the same point of it. For every frame: the head's rotation vector (degrees) and shift (cm), about `pivot`,
and the intensities of the AUs on the subject's left and right. Besides: onset, apex and offset as positions from 0, and
the cameras.
"""


def write_corpus(
    out: Path,
    subjects: int = 10,
    clips: int = 8,
    preset: Preset = "easy",
    intensity: tuple[float, float] | None = None,
    noise: float | None = None,
    head_motion: float | None = None,
    seed: int = 0,
    face_model: Path | None = None,
    layout: Layout = "meshes",
    ground_truth: bool = False,
    jobs: int | None = None,
) -> None:
    """Writes a synthetic corpus, textured mesh sequences or pictures of them, with an annotation sheet.

    An interrupted run goes on where it stopped; the sheet is written last, so a corpus that has one is complete. The
    same options give the same bytes, however many processes write them.

    Args:
        out: Folder of the corpus.
        subjects: Number of people.
        clips: Number of clips of each person.
        preset: `easy`, for quick starts, or one for numbers that are reported. `hard`: weaker expressions, more noise
            and head motion with a tremor, AUs that are missing, uneven or do not belong, expressions that start and end
            above neutral, smoother skin. `faint`: the same, with expressions that are weaker still, but lack no AU and
            show none that does not belong. What is set below counts instead of the preset's value.
        intensity: Least and greatest intensity at the apex, 1 being a full expression; within 0.05..0.4.
        noise: Standard deviation of the image noise, grey levels.
        head_motion: Standard deviation of the head's rotation about each axis, degrees; 0.2 cm of shift per degree.
        seed: Everything random follows from it.
        face_model: Blendshape model to use instead of the built-in face: an .npz file, or the folder FaceXModel of
            ICT-FaceKit.
        layout: What a frame is: `meshes`; or pictures of the same meshes, as two cameras see them, in one image
            `side_by_side` or `stacked`, or `separate` in a folder for each view.
        ground_truth: Whether to write exact flow and visibility, the head's pose and the AUs' intensities over time as
            well (folder truth). A corpus that is there without them gets them.
        jobs: Processes to use; None for one per core.

    Raises:
        SettingError: An option is impossible, the model file is unusable, or the folder holds something else.
        CacheError: The disk refused a file; what is complete stays.
        RunError: Another process writes the same corpus.
    """
    corpus = Corpus(subjects, clips, intensity, noise, head_motion, seed, face_model, layout, preset)
    processes(jobs, tasks=1)  # so that an impossible setting is told before anything is written
    _ = corpus.face  # so is an unusable model file
    _claim(out, corpus)
    complete = (out / "annotation.csv").exists()
    if complete and not ground_truth:
        return
    takes = [Take(corpus, subject, clip) for subject in range(subjects) for clip in range(clips)]
    with hold(out / frames_folder(layout)):
        if not complete:
            write_clips(takes, out, jobs)
            _write_tables(takes, out)
        if ground_truth:
            _write_truths(takes, out, jobs)


def _claim(out: Path, corpus: Corpus) -> None:
    """Makes sure that the folder is or becomes this corpus."""
    note, options = out / "corpus.json", corpus.options
    if note.is_file() and note.read_text() == options:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "one with other options (see its corpus.json)" if note.is_file() else "something else"
        raise SettingError(out, "an empty folder, or this very corpus begun", found, "choose another folder")
    write_atomically(note, options.encode())


def is_synthetic(folder: Path) -> bool:
    """Whether a folder holds a corpus of `write_corpus`, by its README."""
    file = folder / "README.md"
    return file.is_file() and file.read_bytes().startswith(README.partition("\n")[0].encode())


def write_clips(takes: list[Take], out: Path, jobs: int | None = None) -> None:
    """Writes the frames of clips of one corpus, those that are missing, without sheet and README.

    Args:
        takes: The clips, at least one.
        out: Folder of the corpus.
        jobs: Processes to use; None for one per core.

    Raises:
        CacheError: The disk refused a file; what is complete stays.
    """
    corpus, frames = takes[0].corpus, out / frames_folder(takes[0].corpus.layout)
    missing = [take for take in takes if not (frames / take.sub_id / take.name).exists()]
    people = sorted({take.subject for take in missing})
    jobs = processes(jobs, len(missing))
    with progress_bars() as bars, nullcontext() if jobs == 1 else process_pool(jobs) as pool:
        each = pool.map if pool else map
        painted = each(paint_subject, repeat(corpus), people)
        skins = dict(zip(people, bars.track(painted, len(people), description="Painting faces"), strict=True))
        recordings = [Recording(corpus, take.subject, take.clip, skins[take.subject]) for take in missing]
        written = each(_write_clip, recordings, repeat(frames))
        for _ in bars.track(written, len(missing), description=f"Writing clips ({jobs} processes)"):
            pass


def _write_clip(recording: Recording, frames: Path) -> None:
    """Writes all frames of a clip, in a folder that appears when it is complete."""
    folder = frames / recording.sub_id / recording.name
    partial = folder.with_name(f".{recording.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write = frame_writer(recording)
        for position in range(recording.frames):
            write(partial / str(recording.performance.first + position), position)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CacheError(folder, "a writable place with room on the disk", error, "free space or move it") from error


def _write_truths(takes: list[Take], out: Path, jobs: int | None) -> None:
    """Writes the ground truth that is missing; the README tells of it last."""
    files = {take: out / "truth" / take.sub_id / f"{take.name}.npz" for take in takes}
    missing = [take for take, file in files.items() if not file.exists()]
    jobs = processes(jobs, len(missing))
    with progress_bars() as bars, nullcontext() if jobs == 1 else process_pool(jobs) as pool:
        written = (pool.map if pool else map)(_write_truth, missing, [files[take] for take in missing])
        for _ in bars.track(written, len(missing), description=f"Measuring motion ({jobs} processes)"):
            pass
    _write_readme(out, takes[0].corpus, more=TRUTH)


def _write_truth(take: Take, file: Path) -> None:
    write_truth(file, measure(take))


def _write_readme(out: Path, corpus: Corpus, more: str = "") -> None:
    text = README.format(frames=FRAMES[corpus.layout], tree=TREE[corpus.layout])
    if corpus.face_model is not None and corpus.face_model.is_dir():  # where as many count as were downloaded
        text += MODES.format(modes=len(corpus.face.identities))
    if corpus.preset != "easy":
        low, high = corpus.difficulty.intensity
        text += PRESET.format(preset=corpus.preset, low=low, high=high, **asdict(corpus.difficulty))
    text = (text + more).encode()
    if not ((file := out / "README.md").exists() and file.read_bytes() == text):
        write_atomically(file, text)


def _write_tables(takes: list[Take], out: Path) -> None:
    """Writes truth, README and, last, the annotation sheet."""
    _write_table(out / "truth.csv", [_truth(take) for take in takes])
    _write_readme(out, takes[0].corpus)
    shown = sorted({number for take in takes for number in take.performance.action_units})
    _write_table(out / "annotation.csv", [_annotation(take, shown) for take in takes])


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
    row = {
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
    if take.corpus.preset != "easy":
        row |= {"distractor": script.distractor}
        row |= dict(zip(("residue_onset", "residue_offset"), script.residue, strict=True))
    return row


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.4f", lineterminator="\n").encode())
