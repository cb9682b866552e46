"""Where the face is in a picture: one small interface, and the detectors behind it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from mer4d.errors import FaceError, InstallationError, SettingError
from mer4d.preprocess.opencv import silent_opencv

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of a view, x1 and y1 exclusive."""

SETTING = "`face` in data.preprocess.views"

JUMP = 0.05
"""Least change of a box that can make it an outlier, as a share of its longer side; a cascade's steps are as large."""


RISE = 6
"""Least grey levels by which a subject is brighter than a background without noise."""

FLAT = 4
"""Grey levels between the darkest and the brightest pixel below which a picture shows nothing."""


@dataclass(frozen=True)
class Face:
    """The face in one picture.

    Args:
        mask: (H, W) bool, True where a pixel shows the subject, which at least one does.
        eyes: (2, 2) float64, x and y in pixels of the eye on the left and of the eye on the right of the picture; None
            where the finder does not look for eyes.
    """

    mask: np.ndarray
    eyes: np.ndarray | None = None


class FaceFinder(ABC):
    """Finds the face in pictures. What it finds depends on its settings and on the picture alone."""

    @property
    def description(self) -> str:
        """Its name, and its model if it has one, for errors."""
        return type(self).__name__

    @abstractmethod
    def find(self, image: np.ndarray, box: Box | None = None) -> Face | None:
        """The face in one picture.

        Args:
            image: (H, W) uint8.
            box: Where somebody annotated the face of this view.

        Returns:
            The face, None where there is none to be seen.

        Raises:
            SettingError: Its model cannot be read.
            InstallationError: Its model is missing from the environment.
        """

    def saw(self, image: np.ndarray, box: Box | None = None) -> str:
        """What it saw instead, in a picture (H, W) in which it finds no face."""
        return "nothing"

    def sequence(
        self, images: np.ndarray, box: Box | None, where: Sequence[str | Path]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The face in every frame of one view.

        A frame without a face, and a frame whose box is an outlier (`steady_frames`), takes the mask of the frame
        nearest in time that is neither, the earlier of two: motion is measured where the mask of a frame is.

        Args:
            images: (T, H, W) uint8.
            box: Where somebody annotated the face of this view.
            where: (T,) what to name in an error, such as the frames' files.

        Returns:
            Masks (T, H, W) bool, and eyes (T, 2, 2) float64, NaN in frames whose mask is borrowed; None where the
            finder does not look for eyes.

        Raises:
            FaceError: There is no face in half of the frames, or in more, or a frame is blank while others are not.
            SettingError, InstallationError: See `find`.
        """
        blank = np.ptp(images, axis=(1, 2)) < FLAT
        if blank.any() and not blank.all():  # flow to a frame that was lost is no motion
            first = int(blank.argmax())
            found = f"nothing but grey level {images[first].min()}, as in {blank.sum()} of {len(blank)} frames"
            raise FaceError(where[first], "a face, or anything to be seen", found, "restore the frame")
        faces = [self.find(image, box) for image in images]
        found = np.flatnonzero([face is not None for face in faces])
        if 2 * len(found) <= len(faces):
            first = next(frame for frame, face in enumerate(faces) if face is None)
            raise FaceError(
                where[first],
                f"a face that {self.description} sees, in more than half of the frames",
                f"one in {len(found)} of {len(faces)}, and in this frame {self.saw(images[first], box)}",
                f"change {SETTING}, or set it to Whole if the pictures show nothing but the face",
            )
        boxes = np.concatenate([mask_boxes(faces[frame].mask[None]) for frame in found])
        good = found[steady_frames(boxes)]
        nearest = good[np.abs(np.arange(len(faces))[:, None] - good).argmin(axis=1)]
        masks = np.stack([faces[frame].mask for frame in nearest])
        if faces[good[0]].eyes is None:
            return masks, None
        eyes = np.full((len(faces), 2, 2), np.nan)
        eyes[good] = [faces[frame].eyes for frame in good]
        return masks, eyes


@dataclass(frozen=True)
class Foreground(FaceFinder):
    """The largest bright region, holes filled: a subject before a darker background.

    The threshold is Otsu's (1979, doi 10.1109/TSMC.1979.4310076). Where the background is seen at the rim of the
    picture it is lowered to just above the noise of what is dark there, so that dark hair belongs to the subject.
    """

    def find(self, image: np.ndarray, box: Box | None = None) -> Face | None:
        """See `FaceFinder.find`."""
        mask, share, contrast = _bright_region(image)
        return Face(mask) if share >= 0.05 and contrast >= 10 else None

    def saw(self, image: np.ndarray, box: Box | None = None) -> str:
        """See `FaceFinder.saw`."""
        _, share, contrast = _bright_region(image)
        return f"a region of {share:.0%} of the picture, {contrast:.0f} grey levels brighter than the rest"


@dataclass(frozen=True)
class Whole(FaceFinder):
    """The whole picture, where pictures show nothing but a face."""

    def find(self, image: np.ndarray, box: Box | None = None) -> Face:
        """See `FaceFinder.find`."""
        return Face(np.ones(image.shape, bool))


@dataclass(frozen=True)
class Annotated(FaceFinder):
    """The box that the corpus has for each view of a clip, the same in all frames."""

    def find(self, image: np.ndarray, box: Box | None = None) -> Face | None:
        """See `FaceFinder.find`."""
        mask = np.zeros(image.shape, bool)
        if box is not None:
            x0, y0, x1, y1 = np.maximum(box, 0)
            mask[y0:y1, x0:x1] = True
        return Face(mask) if mask.any() else None

    def saw(self, image: np.ndarray, box: Box | None = None) -> str:
        """See `FaceFinder.saw`."""
        height, width = image.shape
        return "no box" if box is None else f"the box {tuple(box)}, in a picture of {width} x {height} pixels"


@dataclass(frozen=True)
class Cascade(FaceFinder):
    """A cascade of weak classifiers, OpenCV's (Viola and Jones 2001, doi 10.1109/CVPR.2001.990517); the largest face.

    The default is made for frontal faces (local binary patterns: Liao et al. 2007, doi 10.1007/978-3-540-74549-5_87).
    At 35 degrees from the front it misses many.

    Args:
        model: Cascade file (.xml); null for the frontal one that scikit-image ships (`pip install 'mer4d[faces]'`),
            because OpenCV's own wheels ship none since version 5.
        scale_factor: Size of a face looked for relative to the next smaller one.
        neighbours: Detections beside a first one that make it a face; fewer find more faces, also where there are none.
        smallest: Height of the smallest face looked for, as a share of the picture's shorter side.
    """

    model: Path | None = None
    scale_factor: float = 1.1
    neighbours: int = 3
    smallest: float = 0.2

    SHIPPED: ClassVar[str] = "lbpcascade_frontalface_opencv.xml"

    def __post_init__(self) -> None:
        if self.scale_factor <= 1 or self.neighbours < 1 or not 0 < self.smallest <= 1:
            raise SettingError(
                SETTING, "scale_factor > 1, neighbours >= 1 and smallest within 0..1", self, "correct the setting"
            )

    @property
    def description(self) -> str:
        """See `FaceFinder.description`."""
        return f"Cascade ({self.SHIPPED if self.model is None else self.model.name})"

    def find(self, image: np.ndarray, box: Box | None = None) -> Face | None:
        """See `FaceFinder.find`."""
        boxes, _ = self._detect(image, self.neighbours)
        return Face(_filled(image.shape, max(boxes, key=lambda face: (face[2], *face)))) if len(boxes) else None

    def saw(self, image: np.ndarray, box: Box | None = None) -> str:
        """See `FaceFinder.saw`."""
        _, detections = self._detect(image, 1)
        return f"detections with at most {max(detections, default=1) - 1} neighbours"

    def _detect(self, image: np.ndarray, neighbours: int) -> tuple[Sequence, Sequence]:
        """Boxes (N, 4) as x, y, width, height, and of how many detections each is the mean, (N,)."""
        side = round(self.smallest * min(image.shape))
        return self._classifier().detectMultiScale2(
            image, scaleFactor=self.scale_factor, minNeighbors=neighbours, minSize=(side, side)
        )

    def _classifier(self) -> cv2.CascadeClassifier:
        path = self._shipped() if self.model is None else self.model
        # No release of scikit-image so far (0.26) spells this tag right, and OpenCV reads no cascade without it.
        text = _read(path, "a cascade").decode(errors="replace").replace("featuhreParams", "featureParams")
        classifier = cv2.CascadeClassifier()
        try:
            storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
            readable = classifier.read(storage.getFirstTopLevelNode())
        except (cv2.error, SystemError):  # its constructors raise the latter, caused by the former
            readable = False
        if not readable:
            raise SettingError(
                f"`model` of {SETTING}",
                "a cascade file of OpenCV",
                f"{path}, which is none",
                "give the path of a cascade",
            )
        return classifier

    def _shipped(self) -> Path:
        package = find_spec("skimage")  # finds a package without importing it
        path = Path(package.submodule_search_locations[0], "data", self.SHIPPED) if package else None
        if path is None or not path.is_file():
            raise InstallationError(
                "Cascade",
                f"{self.SHIPPED} of scikit-image, because OpenCV {cv2.__version__} ships no cascade",
                "none",
                f"run `pip install 'mer4d[faces]'`, or set `model` of {SETTING} to a cascade file",
            )
        return path


@dataclass(frozen=True)
class YuNet(FaceFinder):
    """A small neural network for faces and eyes, run by OpenCV (Wu et al. 2023, doi 10.1007/s11633-023-1423-y).

    The largest face counts. The network's file is not part of any package: OpenCV's model zoo has it under the MIT
    licence, as face_detection_yunet_2023mar.onnx and later.

    Args:
        model: Network file (.onnx).
        threshold: Least score of a face, within 0..1; the default is OpenCV's.
        resolution: Longer side in pixels to which a larger picture is reduced for the search; the network was trained
            on faces of 10 to 300 pixels.
    """

    model: Path
    threshold: float = 0.9
    resolution: int = 320

    CANVAS: ClassVar[int] = 640  # height and width that the network of 2023 has built in; later ones take any

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not 32 <= self.resolution <= self.CANVAS:
            raise SettingError(
                SETTING,
                f"threshold within 0..1 and resolution within 32..{self.CANVAS}",
                self,
                "correct the setting",
            )

    @property
    def description(self) -> str:
        """See `FaceFinder.description`."""
        return f"YuNet ({self.model.name})"

    def find(self, image: np.ndarray, box: Box | None = None) -> Face | None:
        """See `FaceFinder.find`."""
        faces = self._detect(image, self.threshold)
        if len(faces) == 0:
            return None
        x, y, width, height, *landmarks = faces[np.argmax(faces[:, 2] * faces[:, 3])]
        mask = _filled(image.shape, (x, y, width, height))
        # The subject's right eye comes first, which is on the left of the picture.
        return Face(mask, np.reshape(landmarks[:4], (2, 2))) if mask.any() else None

    def saw(self, image: np.ndarray, box: Box | None = None) -> str:
        """See `FaceFinder.saw`."""
        best = max(self._detect(image, 0.01)[:, -1], default=0.0)
        return f"a best score of {best:.2f}, below {self.threshold:g}"

    def _detect(self, image: np.ndarray, threshold: float) -> np.ndarray:
        """Faces (N, 15) float64: box as x, y, width, height, five landmarks, score; pixels of the image."""
        height, width = image.shape
        shrink = min(1.0, self.resolution / max(image.shape))
        small = cv2.resize(
            image, (max(1, round(width * shrink)), max(1, round(height * shrink))), interpolation=cv2.INTER_AREA
        )
        canvas = np.zeros((self.CANVAS, self.CANVAS, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small[..., None]
        content = np.frombuffer(_read(self.model, "a network"), np.uint8)
        try:
            with silent_opencv():  # which warns of every network that it loads
                network = cv2.FaceDetectorYN.create(
                    "onnx", content, np.empty(0, np.uint8), canvas.shape[:2], score_threshold=threshold
                )
                _, faces = network.detect(canvas)
        except cv2.error as error:
            raise SettingError(
                f"`model` of {SETTING}",
                "YuNet of 2023 or later",
                f"{self.model}, of which OpenCV says: {error.err.rstrip('.')}",
                "download face_detection_yunet_2023mar.onnx or a later one from OpenCV's model zoo",
            ) from error
        if faces is None:
            return np.empty((0, 15))
        faces = faces[np.isfinite(faces).all(axis=1)].astype(np.float64)
        faces[:, :-1] *= np.tile([width / small.shape[1], height / small.shape[0]], 7)
        return faces


def steady_frames(boxes: np.ndarray) -> np.ndarray:
    """Which frames of a sequence count, because their box is no outlier.

    The distance of two boxes is the largest difference of an edge. A jump is a distance of more than 3.5 standard
    deviations (Iglewicz and Hoaglin 1993), estimated as 1.4826 times the median distance of the boxes from their
    median box, and more than `JUMP` times the longer side of that box. Jumps divide the sequence; a part of it counts
    if any of its boxes is no jump away from the median box. So a face counts however far it moves, unless it jumps
    there and is elsewhere for most of the time.

    Args:
        boxes: (T, 4) as x0, y0, x1, y1, T >= 1.

    Returns:
        (T,) bool; True for at least half of the frames.

    Example:
        >>> steady_frames(np.array([[0, 0, 100, 100], [1, 0, 101, 100], [0, 0, 160, 100], [1, 1, 101, 101]])).tolist()
        [True, True, False, True]
        >>> steady_frames(np.array([[x, 0, x + 100, 100] for x in range(0, 60, 5)])).all()
        np.True_
    """
    median = np.median(boxes, axis=0)
    distance = np.abs(boxes - median).max(axis=1)
    longer = max(median[2] - median[0], median[3] - median[1])
    jump = max(3.5 * 1.4826 * np.median(distance), JUMP * longer)
    part = np.cumsum(np.abs(np.diff(boxes, axis=0, prepend=boxes[:1])).max(axis=1) > jump)
    return np.isin(part, part[distance <= jump])


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes around the faces of a sequence: (T, 4) int64 as x0, y0, x1, y1, x1 and y1 exclusive.

    Args:
        masks: (T, H, W) bool, each with a face.

    Example:
        >>> masks = np.zeros((1, 10, 10), bool)
        >>> masks[0, 2:6, 3:5] = True
        >>> mask_boxes(masks).tolist()
        [[3, 2, 5, 6]]
    """
    columns, rows = masks.any(axis=1), masks.any(axis=2)
    first = columns.argmax(axis=1), rows.argmax(axis=1)
    last = (line.shape[1] - line[:, ::-1].argmax(axis=1) for line in (columns, rows))
    return np.stack([*first, *last], axis=1)


def _bright_region(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Largest bright region (H, W) bool, its share of the picture, and by how many grey levels it is brighter."""
    blurred = cv2.GaussianBlur(image, (5, 5), 0)
    _, bright = cv2.threshold(blurred, _level(blurred), 1, cv2.THRESH_BINARY)
    # Padded, or a gap of a few pixels between the subject and the picture's edge would be closed as well.
    bright = cv2.copyMakeBorder(bright, 4, 4, 4, 4, cv2.BORDER_CONSTANT)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))[4:-4, 4:-4]
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    region = np.zeros_like(bright)
    if contours:
        cv2.drawContours(region, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    mask, share = region.astype(bool), region.mean()
    contrast = blurred[mask].mean() - blurred[~mask].mean() if 0 < share < 1 else 0.0
    return mask, share, contrast


def _level(picture: np.ndarray) -> float:
    """Grey level above which a pixel of a picture (H, W) shows more than background."""
    otsu, _ = cv2.threshold(picture, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    background = rim[rim <= otsu]
    if 4 * len(background) < len(rim):
        return otsu
    middle = np.median(background)
    spread = 1.4826 * np.median(np.abs(background - middle))
    return min(otsu, middle + max(RISE, 5 * spread))


def _filled(shape: tuple[int, int], box: Sequence[float]) -> np.ndarray:
    """Mask (H, W) of a box given as x, y, width, height, as far as it lies within the picture."""
    x, y, width, height = box
    x0, y0, x1, y1 = np.rint(np.maximum((x, y, x + width, y + height), 0)).astype(np.int64)
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _read(model: Path, kind: str) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise SettingError(f"`model` of {SETTING}", f"{kind} that can be read", error, "correct the path") from error
