"""Clips of a synthetic corpus in memory, exactly as its files hold them."""

import io
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image
from trimesh.visual.texture import unmerge_faces

from mer4d.errors import SettingError
from mer4d.preprocess import MeshViews
from mer4d.preprocess.mesh import Camera, Mesh, frame_cameras, grey_levels
from mer4d.synth.builtin import built_in_face
from mer4d.synth.difficulty import PRESETS, Difficulty, Preset
from mer4d.synth.face import Face
from mer4d.synth.model_file import digest, read_face_model
from mer4d.synth.performance import Performance, cast, perform
from mer4d.synth.skin import paint

FORMAT = 1
"""Version of the corpus; raise it whenever the same settings would give other files."""

Layout = Literal["meshes", "side_by_side", "stacked", "separate"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CAMERAS = MeshViews()
"""Where pictures are taken from: with these settings the mesh form of a corpus gives the same pictures."""

DECIMALS = 3
"""How many a file keeps of a coordinate."""

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Corpus:
    """What the content of a corpus depends on; `write_corpus` describes the fields.

    Raises:
        SettingError: A field is impossible.
    """

    subjects: int = 10
    clips: int = 8
    intensity: tuple[float, float] | None = None
    noise: float | None = None
    head_motion: float | None = None
    seed: int = 0
    face_model: Path | None = None
    layout: Layout = "meshes"
    preset: Preset = "easy"

    def __post_init__(self) -> None:
        self._expect("preset", self.preset in PRESETS, f"one of {', '.join(PRESETS)}")
        low, high = self.difficulty.intensity
        # weaker ones are lost in the noise of the flow, stronger ones are no micro-expressions
        within = 0.05 <= low <= high <= 0.4
        self._expect("subjects", self.subjects >= 1, "at least 1")
        self._expect("clips", self.clips >= 1, "at least 1")
        self._expect("intensity", within, "two numbers within 0.05..0.4, the smaller one first")
        self._expect("noise", 0 <= self.difficulty.noise < np.inf, "at least 0")
        self._expect("head_motion", 0 <= self.difficulty.head_motion < np.inf, "at least 0")
        self._expect("seed", self.seed >= 0, "at least 0")
        self._expect("layout", self.layout in LAYOUTS, f"one of {', '.join(LAYOUTS)}")

    def _expect(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise SettingError(f"setting `{name}`", expected, getattr(self, name), "correct the setting")

    @cached_property
    def difficulty(self) -> Difficulty:
        """The preset, but with what the corpus sets itself."""
        own = {"intensity": self.intensity, "noise": self.noise, "head_motion": self.head_motion}
        return replace(PRESETS[self.preset], **{name: value for name, value in own.items() if value is not None})

    @property
    def face(self) -> Face:
        """The face that every subject is a variation of."""
        return built_in_face() if self.face_model is None else read_face_model(self.face_model)

    @cached_property
    def emotions(self) -> list[list[str]]:
        """First emotion of every clip of every subject."""
        return cast(self.subjects, self.clips, self.rng())

    @property
    def options(self) -> str:
        """All options as JSON; a model file counts by its content, wherever it lies."""
        options = {"format": FORMAT, **asdict(self)}
        difficulty = asdict(self.difficulty)
        if self.preset == "easy":  # as corpora from before there were presets have it
            del options["preset"]
            difficulty = {name: value for name, value in difficulty.items() if name in options}
        if self.layout == "meshes":  # as corpora from before there were layouts have it
            del options["layout"]
        if self.face_model is not None:
            options["face_model"] = digest(self.face_model)
        return json.dumps(options | difficulty, indent=2) + "\n"

    def rng(self, *place: int) -> np.random.Generator:
        """The generator of the corpus (), a subject (number), a clip (and its number) or a frame (and its number)."""
        return np.random.default_rng([self.seed, len(place), *place])


@dataclass(frozen=True)
class Take:
    """What happens in a clip of a corpus, and to whom; `subject` and `clip` count from 0, positions of T frames too."""

    corpus: Corpus
    subject: int
    clip: int

    @property
    def sub_id(self) -> str:
        """Name of the subject."""
        return f"S{self.subject + 1:02d}"

    @property
    def name(self) -> str:
        """Name of the clip, of the form that 4DME uses."""
        session = "1st" if self.clip < self.corpus.clips / 2 else "2nd"
        return f"{self.sub_id}_{session}_{self.clip + 1:03d}_01_1"

    @cached_property
    def performance(self) -> Performance:
        """What happens."""
        emotion = self.corpus.emotions[self.subject][self.clip]
        return perform(emotion, self.corpus.difficulty, self.corpus.rng(self.subject, self.clip))

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return self.performance.frames

    @cached_property
    def identity(self) -> np.ndarray:
        """(K,) the subject's coefficients."""
        modes = len(self.corpus.face.identities)
        return self.corpus.rng(self.subject).standard_normal(modes).clip(-2, 2)

    @cached_property
    def cameras(self) -> tuple[Camera, ...]:
        """The V cameras that `CAMERAS` places around the onset."""
        onset = self.surface(self.performance.onset)
        return frame_cameras(onset, CAMERAS.yaw, CAMERAS.distance, CAMERAS.resolution)

    def vertices(self, position: int) -> np.ndarray:
        """Vertices (N, 3) of a frame, centimetres, as many decimals as a file keeps."""
        return self.performance.vertices(self.corpus.face, self.identity, position).round(DECIMALS)

    def surface(self, position: int) -> Mesh:
        """The mesh of a frame without its texture; vertices and triangles are numbered as `read_mesh` numbers them."""
        triangles, rows, uv_rows = self._corners
        return Mesh(self.vertices(position)[rows], triangles, self.corpus.face.uv[uv_rows])

    @cached_property
    def _corners(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(unmerge_faces(self.corpus.face.triangles, self.corpus.face.uv_triangles))


@dataclass(frozen=True)
class Recording(Take):
    """A clip with its pictures.

    Args:
        skin: (SIZE, SIZE, 3) uint8, the subject's texture, red, green and blue.
    """

    skin: np.ndarray

    def picture(self, position: int) -> bytes:
        """The texture of a frame as JPEG: its brightness, and noise of its own."""
        brightness = np.linspace(1, 1 + self.performance.drift, self.frames, dtype=np.float32)[position]
        rng = self.corpus.rng(self.subject, self.clip, position)
        grain = rng.standard_normal((*self.skin.shape[:2], 1), np.float32)
        picture = brightness * self.skin[..., ::-1] + self.corpus.difficulty.noise * grain
        pixels = picture.round().clip(0, 255).astype(np.uint8)
        return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()

    def mesh(self, position: int) -> Mesh:
        """What `read_mesh` reads from the files of a frame, bit for bit."""
        with Image.open(io.BytesIO(self.picture(position))) as picture:
            return replace(self.surface(position), texture=grey_levels(picture).astype(np.float32))


def record(corpus: Corpus, subject: int, clip: int) -> Recording:
    """One clip of a corpus, without a corpus on disk.

    Args:
        corpus: The options of the corpus; `layout` makes no difference.
        subject: Its number, from 0.
        clip: Its number, from 0.

    Raises:
        IndexError: The corpus has no such subject or clip.
    """
    if not (0 <= subject < corpus.subjects and 0 <= clip < corpus.clips):
        raise IndexError(f"a corpus of {corpus.subjects} subjects with {corpus.clips} clips: {subject}, {clip}")
    return Recording(corpus, subject, clip, paint_subject(corpus, subject))


@lru_cache(maxsize=16)
def paint_subject(corpus: Corpus, subject: int) -> np.ndarray:
    """Texture (SIZE, SIZE, 3) uint8 of a subject."""
    rng = corpus.rng(subject).spawn(1)[0]
    return paint(corpus.face, Take(corpus, subject, 0).identity, rng, corpus.difficulty.grain)
