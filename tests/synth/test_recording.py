"""A recording is, bit for bit, what the files of a corpus hold."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import mer4d
from mer4d.clip import Clip, Frame
from mer4d.preprocess import MeshViews
from mer4d.preprocess.mesh import capture, cast_rays, read_mesh
from mer4d.synth import Corpus, record, recording, write_corpus
from mer4d.synth.recording import Take

MODEL = Path(mer4d.__file__).parents[2] / "shared" / "data" / "ict_face_light.npz"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason="ict_face_light.npz is not beside the checkout")


@pytest.fixture(
    scope="module",
    params=[
        {"subjects": 2, "seed": 3},
        {"preset": "hard", "subjects": 1, "noise": 5.0},
        pytest.param({"subjects": 1, "face_model": MODEL}, marks=needs_model),
    ],
    ids=["easy", "hard", "model"],
)
def pair(request, tmp_path_factory):
    """A corpus of one clip for each subject on disk, and its options."""
    out, options = tmp_path_factory.mktemp("recording") / "corpus", {"clips": 1, **request.param}
    write_corpus(out, jobs=1, **options)
    return out, Corpus(**options)


def files(out, take):
    """Mesh files of a clip, in order."""
    folder = out / "meshes" / take.sub_id / take.name
    return [folder / f"{take.performance.first + position}.obj" for position in range(take.frames)]


def test_meshes_are_those_of_the_files(pair):
    out, corpus = pair
    for subject in range(corpus.subjects):
        clip = record(corpus, subject, 0)
        paths = files(out, clip)
        assert len(list(paths[0].parent.glob("*.obj"))) == clip.frames
        for position in (0, clip.performance.apex, clip.frames - 1):
            kept, read = clip.mesh(position), read_mesh(paths[position])
            for name in ("vertices", "triangles", "uv", "texture"):
                one, other = getattr(kept, name), getattr(read, name)
                assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
            assert clip.picture(position) == paths[position].with_suffix(".jpg").read_bytes()


def test_views_are_those_of_the_files(pair, monkeypatch):
    out, corpus = pair
    views = MeshViews(resolution=64)
    monkeypatch.setattr(recording, "CAMERAS", views)
    clip = record(corpus, 0, 0)
    frames = tuple(Frame((path,)) for path in files(out, clip)[clip.performance.onset :][:2])
    seen = views.read(Clip("clip", "S01", frames, 0, 1, ("others",))).images
    rays = [cast_rays(camera, views.supersampling) for camera in clip.cameras]
    for position, pictures in enumerate(seen, clip.performance.onset):
        np.testing.assert_array_equal(capture(clip.mesh(position), rays)[0], pictures)


def test_names_are_those_of_the_sheet(pair):
    out, corpus = pair
    for subject, row in enumerate(pd.read_csv(out / "annotation.csv").itertuples()):
        take = Take(corpus, subject, 0)
        assert (take.sub_id, take.name) == (row.sub_ID, row.fold_name)


def test_a_clip_does_not_depend_on_others_or_on_the_layout():
    one, other = Corpus(subjects=3, clips=2), Corpus(subjects=3, clips=2, layout="stacked")
    clips = [record(corpus, 1, 1) for corpus in (one, other)]
    assert clips[0].picture(4) == clips[1].picture(4)
    np.testing.assert_array_equal(clips[0].vertices(4), clips[1].vertices(4))
    assert record(one, 0, 1).performance != clips[0].performance


def test_a_recording_without_noise_and_drift_shows_the_skin():
    clip = record(Corpus(subjects=1, clips=1, noise=0.0), 0, 0)
    shown = cv2.imdecode(np.frombuffer(clip.picture(0), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - clip.skin).mean() < 3


@pytest.mark.parametrize("place", [(2, 0), (0, 3), (-1, 0), (0, -1)])
def test_clips_that_the_corpus_does_not_have_are_refused(place):
    with pytest.raises(IndexError, match="2 subjects with 3 clips"):
        record(Corpus(subjects=2, clips=3), *place)
