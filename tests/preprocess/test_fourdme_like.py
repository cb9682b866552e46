"""Against scanned faces that other software rendered, with the exact motion; skipped where they are not at hand."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mer4d.clip import Clip
from mer4d.data.corpora.fourdme import FourDME
from mer4d.preprocess import TVL1, ApexDetector, FaceCrop, MeshViews, PictureViews, Preprocess
from mer4d.preprocess.flow import flow_in_passes, texture
from mer4d.preprocess.flow.tvl1 import PRESETS
from mer4d.preprocess.head_motion import remove_head_motion

DATA = Path(__file__).parents[3] / "shared" / "data"
SUBJECT = "S9"

pytestmark = pytest.mark.skipif(
    not (DATA / "fourdme_like").is_dir(), reason=f"no corpus fourdme_like in {DATA}, beside the checkout"
)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [clip for clip in FourDME().read(DATA / "fourdme_like") if clip.subject == SUBJECT]


def raw(frame) -> int:
    """Number in the name of a frame's file."""
    return int(frame.files[0].stem)


def pair(clip, *frames) -> Clip:
    """A clip of two frames alone."""
    return replace(clip, frames=frames, onset=0, apex=None, offset=1)


@pytest.fixture(scope="module")
def views(clips):
    return {clip.clip_id: PictureViews().read(clip) for clip in clips}


@pytest.fixture(scope="module")
def true_apex():
    with (DATA / "fourdme_like_truth" / "truth.csv").open(newline="") as sheet:
        return {row["clip"]: int(row["apex_raw"]) for row in csv.DictReader(sheet)}


def test_apex(clips, views, true_apex, capsys):
    errors = []
    for clip in clips:
        found = ApexDetector()(FaceCrop()(views[clip.clip_id])[0]).position
        errors.append(abs(raw(clip.sequence[found]) - true_apex[clip.clip_id]))
    with capsys.disabled():
        print(f"\nfourdme_like, {SUBJECT}: apex off by {np.mean(errors):.2f} frames on average, {max(errors)} at most")
    assert len(errors) == 6 and np.mean(errors) <= 1.5


@pytest.fixture(scope="module")
def known_pairs(true_apex):
    """Onset and apex of all clips of which the exact flow is known: what is seen, the flow (V, H, W, 2), where."""
    found = []
    for clip in FourDME().read(DATA / "fourdme_like"):
        with np.load(DATA / "fourdme_like_truth" / "clips" / f"{clip.clip_id}.npz") as truth:
            if "flow" not in truth:
                continue
            exact, counted = truth["flow"][0].astype(float), truth["visible"][0] & truth["face"][0]
        apex = next(frame for frame in clip.sequence if raw(frame) == true_apex[clip.clip_id])
        found.append((PictureViews().read(pair(clip, clip.sequence[0], apex)), exact, counted))
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_flow_from_onset_to_apex(known_pairs, preset, capsys):
    """Over the face in both views of all clips of which the exact flow is known."""
    errors = [
        np.linalg.norm(TVL1(preset).pairs(*views.images) - exact, axis=-1)[counted].mean()
        for views, exact, counted in known_pairs
    ]
    motion = [np.linalg.norm(exact, axis=-1)[counted].mean() for _, exact, counted in known_pairs]
    with capsys.disabled():
        print(
            f"\nfourdme_like, {len(errors)} clips, {preset}: end-point error from onset to apex "
            f"{np.mean(errors):.3f} px (standard deviation {np.std(errors):.3f}) of {np.mean(motion):.2f} px of motion"
        )
    assert len(errors) == 8 and np.mean(errors) < 0.25 < np.mean(motion)


def test_flow_of_texture_in_two_passes(known_pairs, capsys):
    """The same, head included, as the pipeline measures it."""
    errors = {"one pass": [], "texture, one pass": [], "texture, two passes": []}
    for views, exact, counted in known_pairs:
        first, second = (texture(*each, Preprocess.texture) for each in zip(views.images, views.face, strict=True))
        way = partial(remove_head_motion, views=views, frame=0, how="parametric")
        (once, _), (twice, _) = (flow_in_passes(TVL1(), first, second, way, passes) for passes in (1, 2))
        flows = TVL1().pairs(*views.images), once, twice
        for error, flow in zip(errors.values(), flows, strict=True):
            error.append(np.linalg.norm(flow - exact, axis=-1)[counted].mean())
    plain, once, twice = map(np.mean, errors.values())
    with capsys.disabled():
        print("\nfourdme_like, end-point error:", *(f"{name} {np.mean(each):.3f} px" for name, each in errors.items()))
    assert twice < once < 0.85 * plain


def test_views_of_the_packed_pictures(views):
    """The left view is the first half; the subject, on a background of 30 grey levels, is found in both."""
    for sequence in views.values():
        assert sequence.images.shape[1:] == (2, 256, 256)
        assert ((sequence.face.mean(axis=(2, 3)) > 0.3) & (sequence.face.mean(axis=(2, 3)) < 0.8)).all()
        rows, columns = slice(60, 200), np.arange(256)
        middle = [(face[rows] * columns).sum() / face[rows].sum() for face in sequence.face[0]]
        assert middle[0] < 127 < middle[1]  # each camera sees more of the side that it stands on


def test_meshes():
    corpus = DATA / "fourdme_like_meshes"
    clips = FourDME(frames="meshes/{sub_ID}/{fold_name}").read(corpus)
    assert len(clips) == 3
    for clip in clips:
        views = MeshViews(supersampling=1).read(pair(clip, clip.frames[clip.onset], clip.frames[clip.apex]))
        assert views.images.shape == (2, 2, 256, 256)
        assert ((views.face.mean(axis=(2, 3)) > 0.3) & (views.face.mean(axis=(2, 3)) < 0.7)).all()
        grey = views.images[views.face]
        assert 40 < grey.mean() < 220 and grey.std() > 8
        # The same head in the same place: a fraction of the silhouette changes, and a pixel of skin by little.
        assert (views.face[0] != views.face[1]).mean() < 0.02
        both = views.face.all(axis=0)
        assert np.abs(views.images[1].astype(int) - views.images[0])[both].mean() < 8
