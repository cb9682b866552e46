"""Small generated faces whose motion is known, as textured meshes and as pictures of two views, and whole corpora."""

import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from scipy.ndimage import map_coordinates
from torch.utils.data import DataLoader

from mer4d.cli import main
from mer4d.clip import EMOTIONS, Clip, Frame
from mer4d.data.folds import Fold, leave_one_out
from mer4d.parallel import import_once

import_once("mer4d.experiment")  # of all the processes that tests start


def make_speckle(height=96, width=96, seed=0, sigma=1.5):
    """Blurred noise, (H, W) uint8, grey levels 60..230."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width)), (0, 0), sigma)
    return cv2.normalize(noise, None, 60, 230, cv2.NORM_MINMAX).round().astype(np.uint8)


def make_envelope(frames, apex):
    """Strength of an expression over time: 0 at both ends, 1 at the apex."""
    time = np.arange(frames)
    return np.sin(np.pi / 2 * np.minimum(time / apex, (frames - 1 - time) / (frames - 1 - apex))) ** 2


def make_face_pictures(envelope, strength=1.5, head=None, noise=0.0, size=96, seed=0):
    """Two views (T, V, H, W) uint8 of a speckled ellipse on black; each view's shape and motion mirror the other's.

    A patch above the middle moves up and outwards by `strength` pixels times the envelope (T,); `head` (T, 3) adds a
    movement of the whole picture, as pixels to the right, pixels down and degrees.
    """
    rng = np.random.default_rng(seed)
    head = np.zeros((len(envelope), 3)) if head is None else head
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    pictures = np.empty((len(envelope), 2, size, size))
    for view, outwards in enumerate((-1, 1)):
        ellipse = 1 / (1 + np.exp(size / 3 * (np.hypot(x / 0.36, y / 0.44) / size - 1)))
        neutral = make_speckle(size, size, seed=seed + view) * ellipse
        for frame, (share, (right, down, degrees)) in enumerate(zip(envelope, head, strict=True)):
            cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            x0, y0 = cosine * (x - right) + sine * (y - down), cosine * (y - down) - sine * (x - right)
            patch = np.exp(-np.square([x0 - outwards * size / 8, y0 + size / 6]).sum(axis=0) / (2 * (size / 16) ** 2))
            moved = share * strength * patch
            source = np.stack([y0 + moved, x0 - outwards * moved]) + (size - 1) / 2
            pictures[frame, view] = map_coordinates(neutral, source, order=3, mode="nearest")
    return np.rint(pictures + noise * rng.standard_normal(pictures.shape)).clip(0, 255).astype(np.uint8)


def make_head(raised=0.0, shift=(0.0, 0.0, 0.0), grid=24):
    """Front of an ellipsoid, 16 x 20 x 10 cm: vertices (N, 3), triangles (M, 3), uv (N, 2); a brow `raised` by cm."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(0.02, 0.98, grid), np.linspace(0.02, 0.98, grid)))
    x, y = np.sin(np.pi * (u - 0.5)), np.sin(np.pi * (v - 0.5))
    x *= np.sqrt(1 - y**2)
    vertices = np.stack([8 * x, 10 * y, 10 * np.sqrt(np.maximum(1 - x**2 - y**2, 0))], axis=1)
    vertices[:, 1] += raised * np.exp(-np.square(vertices[:, :2] - (3, 4)).sum(axis=1) / 4)
    corner = (np.arange(grid - 1)[:, None] * grid + np.arange(grid - 1)).ravel()
    cells = [corner, corner + 1, corner + grid + 1, corner, corner + grid + 1, corner + grid]
    return vertices + shift, np.stack(cells, axis=1).reshape(-1, 3), np.stack([u, v], axis=1)


def write_textured_obj(path, vertices, triangles, uv, texture="skin.png"):
    """Writes an OBJ, and the MTL that names the texture; the texture itself is the caller's affair."""
    lines = [f"mtllib {path.stem}.mtl", "usemtl skin"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in vertices]
    lines += ["vt {:.6f} {:.6f}".format(*pair) for pair in uv]
    lines += ["f " + " ".join(f"{corner}/{corner}" for corner in triangle) for triangle in triangles + 1]
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl skin\nmap_Kd {texture}\n")


def frames_of(paths):
    """One frame for each file."""
    return tuple(Frame((path,)) for path in paths)


def write_mesh_clip(folder, clip_id="S1_01", frames=5, apex=2, seed=0):
    """A clip of textured meshes that raise a brow, onset to offset over all frames."""
    (folder / clip_id).mkdir(parents=True)
    Image.fromarray(make_speckle(128, 128, seed=seed)).save(folder / clip_id / "skin.png")
    paths = tuple(folder / clip_id / f"{8 + frame}.obj" for frame in range(frames))
    for path, share in zip(paths, make_envelope(frames, apex), strict=True):
        write_textured_obj(path, *make_head(raised=0.4 * share))
    return Clip(clip_id, "S1", frames_of(paths), onset=0, offset=frames - 1, emotions=("surprise",), apex=apex)


def write_packed_clip(folder, clip_id="S1_01", frames=5, apex=2, lead=0, **picture):
    """A clip of images that hold both views side by side; `lead` neutral frames come before the onset."""
    (folder / clip_id).mkdir(parents=True)
    envelope = np.concatenate([np.zeros(lead), make_envelope(frames, apex)])
    paths = tuple(folder / clip_id / f"{8 + frame}.png" for frame in range(len(envelope)))
    for path, views in zip(paths, make_face_pictures(envelope, **picture), strict=True):
        Image.fromarray(np.hstack(views)).save(path)
    return Clip(clip_id, "S1", frames_of(paths), lead, len(paths) - 1, emotions=("surprise",), apex=lead + apex)


def write_lossless_video(path, pictures, frame_rate=25):
    """A video (.avi, .mov or .mkv) of pictures (T, H, W) or (T, H, W, 3); grey levels or RGB come back exactly."""
    height, width = pictures[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*("png " if path.suffix == ".mov" else "FFV1"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, frame_rate, (width, height), pictures[0].ndim == 3)
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture))
    writer.release()
    return path


@pytest.fixture(scope="session")
def benchmark_of():
    """Imports a script of benchmarks/ as a module."""
    return import_module


@pytest.fixture
def started():
    """Starts a command of mer4d that takes Ctrl-C, also where the tests run in the background and ignore it."""
    processes = []

    def start(command):
        takes_ctrl_c = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen([sys.executable, "-m", "mer4d", *command], preexec_fn=takes_ctrl_c, **output))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def speckle():
    return make_speckle


@pytest.fixture(scope="session")
def envelope():
    return make_envelope


@pytest.fixture(scope="session")
def face_pictures():
    return make_face_pictures


@pytest.fixture(scope="session")
def head():
    return make_head


@pytest.fixture(scope="session")
def write_obj():
    return write_textured_obj


@pytest.fixture(scope="session")
def mesh_clip():
    return write_mesh_clip


@pytest.fixture(scope="session")
def packed_clip():
    return write_packed_clip


@pytest.fixture(scope="session")
def write_video():
    return write_lossless_video


SMALL = [
    "--data.preprocess.crop.size=64",
    "--data.preprocess.apex.size=32",
    "--data.preprocess.size=28",
    "--data.jobs=1",
    "--data.validation_subjects=1",
    "--data.batch_size=4",
    "--model.network.width=4",
    "--model.network.features=8",
    "--trainer.max_epochs=2",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--loso.name=quick",
    "--loso.jobs=1",
]
"""Overrides that make every command finish in seconds."""

QUICK = [
    "--data.corpus=mer4d.data.FourDME",
    "--data.corpus.frames=gray_micro/{sub_ID}/{fold_name}",
    *SMALL,
]
"""The same, on the packed corpus."""


@pytest.fixture(scope="session")
def packed_corpus(tmp_path_factory) -> Path:
    """Four subjects with three clips each in 4DME's layout, onset 8, apex 11, offset 13; not to be changed."""
    root, rows = tmp_path_factory.mktemp("packed"), []
    for subject in range(1, 5):
        for number in range(1, 4):
            clip_id = f"S{subject}_{number}"
            folder = root / "gray_micro" / f"S{subject}"
            write_packed_clip(folder, clip_id, frames=6, apex=3, size=64, seed=10 * subject + number, noise=0.5)
            emotion = EMOTIONS[(subject + number) % len(EMOTIONS)]
            rows.append((f"S{subject}", clip_id, 8, 11, 13, "AU1", emotion))
    columns = ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "sheet.csv", index=False)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Flow store that all tests of a session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(cache, tmp_path, monkeypatch) -> list[str]:
    """Overrides for quick runs on any corpus, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return [*SMALL, f"--data.cache={cache}"]


@pytest.fixture
def quick(packed_corpus, cache, tmp_path, monkeypatch) -> list[str]:
    """Overrides for quick runs on the packed corpus, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return [*QUICK, f"--data.root={packed_corpus}", f"--data.cache={cache}"]


@pytest.fixture(scope="session")
def trained_run(packed_corpus, cache, tmp_path_factory) -> Path:
    """A finished run on the packed corpus, two epochs for each of four folds; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    main(["loso", *QUICK, f"--data.root={packed_corpus}", f"--data.cache={cache}", f"--loso.runs={runs}"])
    return runs / "quick"


@pytest.fixture
def finished(quick, trained_run) -> list[str]:
    """Overrides of a run that is complete, in runs/quick of the working directory."""
    shutil.copytree(trained_run, "runs/quick")
    return quick


class InMemory(LightningDataModule):
    """What task, callbacks and LOSO need of a data module: four subjects with three clips each, of random flow."""

    seed, validation_subjects, permute_labels, leaky, digest = 0, 1, None, False, "digest"
    corpora, hold_out = (), "subject"

    def __init__(self, problem, test_subject=None, defects=(), notes=()):
        super().__init__()
        self.problem, self.test_subject = problem, test_subject
        self.defects, self.survey, self._clips = defects, SimpleNamespace(notes=notes), None

    def shared(self):
        return nullcontext()

    def prepare_data(self):
        names = [(f"S{subject}", f"S{subject}_{number}") for subject in range(1, 5) for number in range(1, 4)]
        classes, shown = self.problem.classes, (0, 0, 1, 2, 0, 1, 0, 4, 3, 0, 0, 2)
        self._clips = tuple(
            Clip(clip_id, subject, (), 0, 0, (classes[k % len(classes)],), flow=Path("flow.npy"))
            for k, (subject, clip_id) in zip(shown, names, strict=True)
        )

    @property
    def clips(self):
        """Known once they are prepared, as they are where unusable ones are skipped."""
        assert self._clips is not None
        return self._clips

    @property
    def labels(self):
        return np.float32([[name in clip.emotions for name in self.problem.classes] for clip in self.clips])

    @property
    def fold(self):
        validation, *training = [name for name in ("S1", "S2", "S3", "S4") if name != self.test_subject]
        return Fold(self.test_subject, (validation,), tuple(training), (self.test_subject,))

    @property
    def folds(self):
        return leave_one_out([clip.subject for clip in self.clips], self.labels, validation_subjects=1)

    @property
    def training_labels(self):
        return torch.from_numpy(self.labels[[clip.subject in self.fold.training for clip in self.clips]])

    def apex_error(self):
        return None

    def loader(self, *subjects):
        """Batches of the clips of some subjects."""
        rows = torch.tensor([row for row, clip in enumerate(self.clips) if clip.subject in subjects])
        axes = (len(self.clips), len(self.problem.views), len(self.problem.phases), 3, 28, 28)
        flow, labels = torch.randn(axes, generator=torch.Generator().manual_seed(0)), torch.from_numpy(self.labels)
        batches = [
            {
                "flow": flow[part], "label": labels[part],
                "subject": [self.clips[row].subject for row in part],
                "clip_id": [self.clips[row].clip_id for row in part],
            }
            for part in rows.split(4)
        ]  # fmt: skip
        return DataLoader(batches, batch_size=None)

    def train_dataloader(self):
        return self.loader(*self.fold.training)

    def val_dataloader(self):
        return self.loader(*self.fold.validation)

    def test_dataloader(self):
        return self.loader(self.fold.test)

    def predict_dataloader(self):
        return self.loader(self.fold.test)


@pytest.fixture(scope="session")
def in_memory():
    return InMemory
