"""From a clip's files to its flow tensor, and the settings that a cache key must know."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mer4d.cache import content_key
from mer4d.clip import Clip, Frame
from mer4d.data.augment import mirror
from mer4d.errors import AnnotationError, FaceError, FrameError, SettingError
from mer4d.preprocess import (
    TVL1,
    ApexDetector,
    AutoViews,
    FaceCrop,
    MeshViews,
    PictureViews,
    Preprocess,
    Whole,
    YuNet,
)
from mer4d.preprocess.flow import QUALITIES

SMALL = Preprocess(PictureViews(), FaceCrop(size=80), ApexDetector(size=48), size=20)


def files_of(clip):
    return [file for frame in clip.frames for file in frame.files]


ANNOTATED = replace(SMALL, apex=ApexDetector(mode="annotated", size=48))
MESH = replace(SMALL, views=MeshViews(resolution=96, supersampling=1))


@pytest.fixture(scope="module")
def entry(tmp_path_factory, packed_clip):
    return SMALL(packed_clip(tmp_path_factory.mktemp("packed"), frames=7, apex=3, lead=2))


def test_entry(entry):
    assert entry.flow.shape == (2, 2, 3, 20, 20) and entry.flow.dtype == np.float32
    assert np.array_equal(entry.flow[:, :, 2], np.hypot(entry.flow[:, :, 0], entry.flow[:, :, 1]))
    assert entry.apex.dtype == np.int64 and abs(int(entry.apex) - 5) <= 1  # two frames come before the onset
    assert entry.curve.shape == (7,) and entry.curve.dtype == np.float32
    assert entry.boxes.shape == (2, 4) and entry.boxes.dtype == np.int64


def test_flow_is_the_motion_that_was_made(entry):
    """Onset to apex the patches move up and outwards, apex to offset back."""
    for view, outwards in enumerate((-1, 1)):
        patch = np.s_[4:9, 5:10] if outwards < 0 else np.s_[4:9, 10:15]
        (u1, v1, _), (u2, v2, _) = entry.flow[view][..., *patch].mean(axis=(-2, -1))
        assert u1 * outwards > 0.3 and v1 < -0.3
        assert u2 * outwards < -0.3 and v2 > 0.3
        still = np.s_[14:18, 7:13]
        assert np.abs(entry.flow[view][..., *still]).max() < 0.3


def test_mesh_clips(tmp_path, mesh_clip):
    entry = MESH(mesh_clip(tmp_path, frames=5, apex=2))
    assert entry.flow.shape == (2, 2, 3, 20, 20) and abs(int(entry.apex) - 2) <= 1
    peak = np.unravel_index(entry.flow[1, 0, 2].argmax(), (20, 20))
    assert peak[0] < 12 and entry.flow[1, 0, 1][peak] < -0.2  # the brow goes up: v is negative


def test_one_view_and_three(tmp_path, mesh_clip):
    clip = mesh_clip(tmp_path, frames=3, apex=1)
    for yaw in ((0.0,), (-30.0, 0.0, 30.0)):
        assert replace(MESH, views=replace(MESH.views, yaw=yaw))(clip).flow.shape == (len(yaw), 2, 3, 20, 20)


def test_a_mirrored_clip_gives_the_mirrored_tensor(tmp_path, packed_clip):
    """Mirroring a packed picture mirrors both views and swaps them; the shift makes the motion of the two unlike."""
    head = np.outer([0, 0.5, 1, 0.5, 0], (1.2, -0.5, 0.0))
    clip = packed_clip(tmp_path, frames=5, apex=2, strength=2.0, head=head)
    raw = replace(ANNOTATED, stabilize="none")
    flow = raw(clip).flow
    for file in files_of(clip):
        Image.fromarray(np.array(Image.open(file))[:, ::-1].copy()).save(file)
    flipped = raw(clip).flow
    mirrored = mirror(torch.from_numpy(flow)).numpy()
    assert np.abs(mirrored - flipped).mean() < 0.03 < 0.3 < np.abs(flow - flipped).mean()


def write_forms(folder, views, write_video):
    """The same pictures (T, V=2, H, W) in every form that keeps them as they are: name to clip."""
    forms, last = {}, len(views) - 1

    def save(name, number, picture):
        path = folder / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        return path

    joined = {"side by side": np.hstack, "stacked": np.vstack, "16 bit": lambda pair: np.hstack(pair) * np.uint16(257)}
    for name, join in joined.items():
        forms[name] = tuple(Frame((save(name, number, join(pair)),)) for number, pair in enumerate(views))
    forms["separate"] = tuple(
        Frame(tuple(save(f"separate {view}", number, image) for view, image in enumerate(pair)))
        for number, pair in enumerate(views)
    )
    both = write_video(folder / "both.avi", [np.hstack(pair) for pair in views])
    each = tuple(write_video(folder / f"{view}.mkv", views[:, view]) for view in range(2))
    forms["video"] = tuple(Frame((both,), index) for index in range(last + 1))
    forms["two videos"] = tuple(Frame(each, index) for index in range(last + 1))
    return {name: Clip("S1_01", "S1", frames, 0, last, ("others",)) for name, frames in forms.items()}


def test_every_form_of_a_clip_gives_the_same_flow(tmp_path, mesh_clip, write_video):
    """Pictures give the same bits in whatever files they lie, and what the mesh they were taken of gives, nearly: its
    face is where the mesh is, that of the pictures where they are bright, and they have no geometry."""
    clip = mesh_clip(tmp_path, frames=5, apex=2)
    alike = {"apex": replace(SMALL.apex, stabilize="parametric"), "stabilize": "parametric"}
    auto = replace(SMALL, views=AutoViews(MeshViews(resolution=96, supersampling=2)), **alike)
    forms = write_forms(tmp_path, auto.views.read(clip).images, write_video)
    mesh, first, *others = (auto(each) for each in (clip, *forms.values()))
    assert len(others) == 5
    for entry in others:
        assert all(np.array_equal(a, b) for a, b in zip(vars(entry).values(), vars(first).values(), strict=True))
    assert first.apex == mesh.apex and np.abs(first.boxes - mesh.boxes).max() <= 2
    assert np.abs(first.flow - mesh.flow).mean() < 0.35 * np.abs(mesh.flow).mean()


def test_stabilize(tmp_path, packed_clip):
    """The whole picture shifts by (1.5, -1) from onset to apex, which only `none` shows, outside the face too."""
    head = np.zeros((5, 3))
    head[2] = 1.5, -1.0, 0.0
    clip = packed_clip(tmp_path, frames=5, apex=2, strength=0.0, head=head)
    raw, still = (replace(ANNOTATED, stabilize=kind)(clip).flow[:, 0, :2] for kind in ("none", "parametric"))
    centre = np.s_[:, :, 6:-6, 6:-6]
    scale = 80 / np.ptp(ANNOTATED(clip).boxes[0, ::2])
    assert raw[centre].mean(axis=(0, 2, 3)) == pytest.approx(np.array([1.5, -1.0]) * scale, abs=0.1)
    assert np.abs(still[centre]).mean() < 0.05
    assert not still[..., 0, 0].any() and raw[..., 0, 0].any()


def test_light_that_changes_is_no_motion_of_the_texture(tmp_path, packed_clip):
    """Nothing moves; the apex is brighter by a twentieth."""
    clip = packed_clip(tmp_path, frames=5, apex=2, strength=0.0)
    file = clip.frames[2].files[0]
    with Image.open(file) as picture:
        brighter = picture.point(lambda grey: min(round(grey * 1.05), 255))
    brighter.save(file)
    plain, of_texture = (np.abs(replace(ANNOTATED, texture=scale)(clip).flow[:, :, :2]).mean() for scale in (0.0, 3.0))
    assert 5 * of_texture < plain


def test_a_second_pass_measures_what_the_head_does_not_explain(tmp_path, packed_clip):
    """The head moves and the face does not; what remains is error, and less of it each time."""
    head = np.outer([0, 1, 2, 1, 0], (1.5, -1.0, 0.02))
    clip = packed_clip(tmp_path, frames=5, apex=2, strength=0.0, head=head)
    once, twice = (replace(ANNOTATED, passes=passes)(clip) for passes in (1, 2))
    left = [np.abs(entry.flow[:, :, :2]).mean() for entry in (once, twice)]
    assert left[1] < 0.7 * left[0]
    moved = QUALITIES.index("head_motion")
    np.testing.assert_allclose(twice.quality[..., moved], once.quality[..., moved], rtol=0.05)


def test_stabilized_flow_lies_on_the_face_that_the_phase_begins_with(tmp_path, packed_clip):
    """At the apex the face stands 6 pixels to the right of where it was at the onset."""
    head = np.outer([0, 3, 6, 3, 0], (1.0, 0.0, 0.0))
    flow = ANNOTATED(packed_clip(tmp_path, frames=5, apex=2, head=head)).flow
    columns = [np.nonzero(flow[:, phase, 2])[2].mean() for phase in (0, 1)]
    assert columns[1] - columns[0] == pytest.approx(6 * 20 / 96, abs=0.3)


def test_the_apex_splits_the_phases(tmp_path, packed_clip):
    """With the apex at the onset or the offset one phase holds no motion."""
    annotated = replace(ANNOTATED, stabilize="none")
    clip = packed_clip(tmp_path, frames=5, apex=2, lead=1)
    for apex, empty in ((1, 0), (5, 1)):
        entry = annotated(replace(clip, apex=apex))
        assert entry.apex == apex
        assert not entry.flow[:, empty].any()
    middle = annotated(clip)
    assert middle.apex == 3 and all(np.abs(middle.flow[:, phase]).max() > 0.5 for phase in (0, 1))


def test_shortest_clips(tmp_path, packed_clip):
    clip = packed_clip(tmp_path, frames=5, apex=2)
    for offset in (1, 2):
        entry = SMALL(replace(clip, offset=offset, apex=None))
        assert entry.apex == 1 and np.isfinite(entry.flow).all() and len(entry.curve) == offset + 1


def test_the_same_bytes_every_time(tmp_path, mesh_clip):
    clip = mesh_clip(tmp_path, frames=3, apex=1)
    first, second = MESH(clip), MESH(clip)
    assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


# Errors name clip and file


def test_errors_name_clip_and_file(tmp_path, packed_clip):
    clip = packed_clip(tmp_path)
    file = files_of(clip)[3]
    content = file.read_bytes()
    file.write_bytes(content[:500])
    with pytest.raises(FrameError) as info:
        SMALL(clip)
    assert info.value.where == f"clip 'S1_01', {file}"
    with pytest.raises(FrameError) as info:
        SMALL.names(replace(clip, onset=3, apex=None))
    assert info.value.where == f"clip 'S1_01', {file}"
    for file in files_of(clip)[2:]:
        Image.new("L", (192, 96)).save(file)
    with pytest.raises(FaceError) as info:
        SMALL(clip)
    assert info.value.where == f"clip 'S1_01', {files_of(clip)[2]}"


def test_a_missing_annotated_apex_names_the_clip(tmp_path, packed_clip):
    clip = replace(packed_clip(tmp_path), apex=None)
    with pytest.raises(AnnotationError, match=r"^clip 'S1_01', .*set data\.preprocess\.apex\.mode to auto"):
        ANNOTATED(clip)
    files_of(clip)[0].write_bytes(b"")
    assert [type(problem) for problem in ANNOTATED.inspect(clip).problems] == [FrameError, AnnotationError]
    assert [type(problem) for problem in SMALL.inspect(clip).problems] == [FrameError]


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 7}, {"size": 225}, {"stabilize": "yes"}, {"texture": -1.0}, {"texture": 225.0}, {"passes": 0},
    ],
)  # fmt: skip
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.(size|stabilize|texture|passes): expected"):
        Preprocess(**settings)


# Ready-made flow


@pytest.fixture
def ready(tmp_path):
    """A clip of flow with one view and three phases, in float16."""
    u, v = np.random.default_rng(0).normal(size=(2, 1, 3, 9, 7))
    np.save(tmp_path / "S1_01.npy", np.stack([u, v, np.hypot(u, v)], axis=2).astype(np.float16))
    return Clip("S1_01", "S1", (), 0, 0, ("surprise",), flow=tmp_path / "S1_01.npy")


def test_ready_made_flow_comes_as_it_is(ready, tmp_path, packed_clip):
    entry = SMALL(ready)
    assert entry.flow.dtype == np.float32 and np.array_equal(entry.flow, np.load(ready.flow))
    assert entry.apex == entry.detected_apex == -1 and entry.confidence == 0 and entry.boxes.shape == (0, 4)
    assert SMALL(replace(ready, apex=4)).apex == 4
    ours = SMALL(packed_clip(tmp_path))
    for field in fields(entry):
        made, ready_made = getattr(ours, field.name), getattr(entry, field.name)
        assert (made.dtype, made.ndim) == (ready_made.dtype, ready_made.ndim)
        assert not ready_made.size or field.name in ("flow", "apex", "detected_apex", "confidence")


def test_an_error_names_clip_and_flow(ready):
    ready.flow.write_bytes(b"")
    with pytest.raises(FrameError) as info:
        SMALL(ready)
    assert info.value.where == f"clip 'S1_01', {ready.flow}"
    (problem,) = SMALL.inspect(ready).problems
    assert problem.where == str(ready.flow)


@pytest.mark.parametrize(
    ("views", "phases", "names"),
    [
        (1, 1, (("front",), ("onset_apex",))),
        (2, 2, (("left", "right"), ("onset_apex", "apex_offset"))),
        (3, 3, (("view1", "view2", "view3"), ("phase1", "phase2", "phase3"))),
    ],
)
def test_names_of_ready_made_flow(ready, views, phases, names):
    np.save(ready.flow, np.zeros((views, phases, 3, 8, 9), np.float32))
    assert SMALL.names(ready) == names
    found = SMALL.inspect(ready)
    assert (found.problems, found.resolution, found.views) == ((), (8, 9), names[0])


def test_names_and_inspection_of_frames(tmp_path, packed_clip):
    clip = packed_clip(tmp_path)
    assert SMALL.names(clip) == (("left", "right"), ("onset_apex", "apex_offset"))
    assert SMALL.inspect(clip) == SMALL.views.inspect(clip)


# What the key knows


CLIP = Clip("S1_01", "S1", tuple(Frame((Path(f"{number}.png"),)) for number in range(9)), 1, 7, (), apex=4)
MESHES = replace(CLIP, frames=tuple(Frame((Path(f"{number}.obj"),)) for number in range(9)))


def key(preprocess, clip=CLIP):
    return content_key("sources", preprocess.parameters(clip))


def other(value: Any) -> list[Any]:
    """Values of the same kind; at least one of them is a possible setting."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 2, value - 2]
    if isinstance(value, float):
        return [value * 0.9 + 0.001]
    if isinstance(value, tuple):
        return [value[:1]]
    return {
        "auto": ["annotated", "stacked", "cpu", "none"],
        "balanced": ["fast"],
        "opencv": ["torch"],
        None: [3, 0.7, ("right", "left")],
    }[value]


def variants(settings):
    """The same settings with one changed, for every single one: pairs of its name and the settings."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value) and fields(value):
            for name, inner in variants(value):
                yield f"{field.name}.{name}", replace(settings, **{field.name: inner})
        else:
            choices = [Whole()] if is_dataclass(value) else other(value)
            yield field.name, next(filter(None, (changed(settings, field.name, choice) for choice in choices)))


def changed(settings, name, value):
    try:
        return replace(settings, **{name: value})
    except (SettingError, TypeError):
        return None


@pytest.mark.parametrize(("views", "clip"), [(MeshViews(), MESHES), (PictureViews(), CLIP)], ids=["mesh", "picture"])
def test_every_setting_changes_the_key(views, clip):
    base = Preprocess(views=views)
    different = dict(variants(base))
    expected = {"views": type(views), "crop": FaceCrop, "apex": ApexDetector, "flow": TVL1}
    leaves = {f"{part}.{field.name}" for part, kind in expected.items() for field in fields(kind)}
    assert different.keys() == leaves | {"stabilize", "texture", "passes", "size"}
    keys = {name: key(preprocess, clip) for name, preprocess in different.items()}
    keys["nothing"] = key(base, clip)
    assert len(set(keys.values())) == len(keys)


def test_every_position_that_matters_changes_the_key():
    clips = [
        CLIP,
        replace(CLIP, onset=2),
        replace(CLIP, offset=6),
        replace(CLIP, frames=(Frame((Path("x.png"),)), *CLIP.frames), onset=2, apex=5, offset=8),  # the same sequence
        replace(CLIP, frames=CLIP.frames[::-1]),
        replace(CLIP, frames=tuple(Frame(CLIP.frames[0].files, index) for index in range(9))),
        replace(CLIP, frames=tuple(Frame(CLIP.frames[0].files, index) for index in range(1, 10))),
        replace(CLIP, frames=tuple(Frame(frame.files * 2) for frame in CLIP.frames)),
        replace(CLIP, boxes=((1, 2, 3, 4), (5, 6, 7, 8))),
    ]
    assert len({key(SMALL, clip) for clip in clips}) == len(clips)


def test_what_does_not_matter_leaves_the_key():
    clips = [
        replace(CLIP, clip_id="other", subject="S2", emotions=("others",), frame_rate=9.0),
        replace(CLIP, frames=(*CLIP.frames, Frame((Path("9.png"),)))),
        replace(CLIP, apex=None),
        replace(CLIP, apex=5),
    ]
    assert {key(SMALL, clip) for clip in clips} == {key(SMALL)}


def test_the_annotated_apex_is_part_of_the_key_where_it_is_used(ready):
    assert key(ANNOTATED, replace(CLIP, apex=5)) != key(ANNOTATED)
    assert key(SMALL, replace(ready, apex=5)) != key(SMALL, ready)


def test_settings_leave_the_key_of_ready_made_flow(ready):
    assert len({key(preprocess, ready) for preprocess in (SMALL, ANNOTATED, MESH, Preprocess())}) == 1


def test_only_the_source_that_reads_a_clip_is_part_of_its_key():
    auto = Preprocess()
    assert auto.views == AutoViews()
    assert key(auto) == key(Preprocess(views=PictureViews())) != key(auto, MESHES)
    assert key(auto, MESHES) == key(Preprocess(views=MeshViews()), MESHES)
    assert key(Preprocess(views=AutoViews(meshes=MeshViews(distance=9.0)))) == key(auto)
    assert key(Preprocess(views=AutoViews(pictures=PictureViews("stacked")))) != key(auto)


def test_the_content_of_a_model_file_is_part_of_the_key(tmp_path):
    def with_model(path):
        return key(Preprocess(views=PictureViews(face=YuNet(path))))

    for name, content in (("a.onnx", b"one"), ("b.onnx", b"one"), ("c.onnx", b"two")):
        (tmp_path / name).write_bytes(content)
    assert with_model(tmp_path / "a.onnx") == with_model(tmp_path / "b.onnx") != with_model(tmp_path / "c.onnx")
    with pytest.raises(SettingError, match=r"d\.onnx: expected a file that can be read"):
        with_model(tmp_path / "d.onnx")


def test_equal_settings_have_equal_keys():
    assert key(Preprocess(), MESHES) == key(Preprocess(views=MeshViews(yaw=(-35.0, 35.0)), size=56), MESHES)
