"""One clip looked at: every file of it opened, its face found, and small pictures made of it.

This is what worker processes of `mer4d check` import, hence no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mer4d.check.contact_sheet import CELL, Strip
from mer4d.clip import Clip
from mer4d.errors import Defect, FaceError, MER4DError
from mer4d.preprocess import PictureViews, Preprocess, Views, ViewSource
from mer4d.preprocess.ready_flow import read_flow
from mer4d.preprocess.views.source import place, view_boxes


@dataclass(frozen=True)
class Look:
    """What the files of one clip hold.

    Args:
        clip_id: Its name.
        defects: All that is wrong with them.
        views: Names along the view axis V, empty where nothing could be read.
        form: What must be alike in all clips: the names of the views, or the shape of ready-made flow. Empty where
            nothing could be read.
        resolution: Height and width of a view in pixels, None where nothing could be read.
    """

    clip_id: str
    defects: tuple[Defect, ...]
    views: tuple[str, ...]
    form: str
    resolution: tuple[int, int] | None


def look_at(clip: Clip, preprocess: Preprocess) -> tuple[Look, Strip]:
    """Opens all files of a clip, and cuts out its face as preprocessing does for a contact sheet."""
    inspection = preprocess.inspect(clip)
    defects, pictures = [Defect(clip.clip_id, error) for error in inspection.problems], ()
    form = f"views {', '.join(inspection.views)}" if inspection.views else ""
    try:
        if clip.flow is not None:
            flow = read_flow(clip.flow)
            phases = [f"phase {phase + 1}" for phase in range(flow.shape[1])]
            form, pictures = f"flow {flow.shape}", flow_pictures(flow, inspection.views, phases)
        else:
            views = preprocess.views.read(clip)
            pictures = face_pictures(clip, preprocess.crop(views)[0], inspection.views)
            defects += unseen_faces(clip, views, inspection.views, preprocess.views.serving(clip))
    except MER4DError as error:
        if error.args not in [known.args for known in inspection.problems]:
            defects.append(Defect(clip.clip_id, error))
    said = [clip.clip_id, clip.subject, " + ".join(clip.emotions) or "to be predicted"]
    if defects:
        said.append("(see problems.csv)")
    look = Look(clip.clip_id, tuple(defects), inspection.views, form, inspection.resolution)
    return look, Strip("   ".join(said), pictures)


def moments(clip: Clip) -> dict[str, int]:
    """Positions of onset, apex (or the middle, where nobody annotated it) and offset within the sequence."""
    apex = {"middle": len(clip.sequence) // 2} if clip.apex is None else {"apex": clip.apex - clip.onset}
    return {"onset": 0, **apex, "offset": clip.offset - clip.onset}


def face_pictures(clip: Clip, crops: Views, names: Sequence[str]) -> tuple[tuple[str, np.ndarray], ...]:
    """Small pictures of onset, apex and offset in every view."""
    return tuple(
        (f"{name} {moment}", cv2.resize(crops.images[position, view], (CELL, CELL), interpolation=cv2.INTER_AREA))
        for view, name in enumerate(names)
        for moment, position in moments(clip).items()
    )


def flow_pictures(flow: np.ndarray, views: Sequence[str], phases: Sequence[str]) -> tuple[tuple[str, np.ndarray], ...]:
    """Small pictures of the magnitude in every view and phase, white being the largest of the clip."""
    magnitude = flow[:, :, 2]
    grey = (255 * magnitude / max(magnitude.max(), 1e-6)).astype(np.uint8)
    return tuple(
        (f"{views[view]} {phases[phase]}", cv2.resize(grey[view, phase], (CELL, CELL)))
        for view, phase in np.ndindex(grey.shape[:2])
    )


def unseen_faces(clip: Clip, views: Views, names: Sequence[str], source: ViewSource) -> list[Defect]:
    """A doubt `face` for each of onset, apex and offset in which some view shows no face.

    Preprocessing borrows the face's place from a neighbouring frame, but the flow starts and ends in just these frames.
    """
    if not isinstance(source, PictureViews):
        return []
    defects = []
    for moment, position in moments(clip).items():
        pictures = list(zip(names, views.images[position], view_boxes(clip, len(names)), strict=True))
        if unseen := [each for each in pictures if source.face.find(*each[1:]) is None]:
            error = FaceError(
                place(clip.sequence[position]),
                f"a face that {source.face.description} sees at the {moment}",
                ", ".join(f"{source.face.saw(image, box)} in view {name}" for name, image, box in unseen),
                "look at the frame, then repair it, change the annotation or data.preprocess.views.face",
            )
            defects.append(Defect(clip.clip_id, error, "face"))
    return defects
