"""From a clip's files to its flow tensor, and the settings that a cache key must know."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mer4d.cache import content_key
from mer4d.data.augment import mirror
from mer4d.errors import AnnotationError, FaceError, FrameError, SettingError
from mer4d.preprocess import TVL1, ApexDetector, FaceCrop, MeshViews, PackedViews, Preprocess

SMALL = Preprocess(PackedViews(), FaceCrop(size=80), ApexDetector(size=48), size=20)
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
    for frame in clip.frames:
        Image.fromarray(np.array(Image.open(frame))[:, ::-1].copy()).save(frame)
    flipped = raw(clip).flow
    mirrored = mirror(torch.from_numpy(flow)).numpy()
    assert np.abs(mirrored - flipped).mean() < 0.03 < 0.3 < np.abs(flow - flipped).mean()


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


def test_stabilized_flow_lies_on_the_face_that_the_phase_begins_with(tmp_path, packed_clip):
    """At the apex the face stands 6 pixels to the right of where it was at the onset."""
    head = np.zeros((5, 3))
    head[2] = 6.0, 0.0, 0.0
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
    content = clip.frames[3].read_bytes()
    clip.frames[3].write_bytes(content[:500])
    with pytest.raises(FrameError) as info:
        SMALL(clip)
    assert info.value.where == f"clip 'S1_01', {clip.frames[3]}"
    Image.new("L", (192, 96)).save(clip.frames[3])
    with pytest.raises(FaceError) as info:
        SMALL(clip)
    assert info.value.where == f"clip 'S1_01', {clip.frames[3]}"


def test_a_missing_annotated_apex_names_the_clip(tmp_path, packed_clip):
    clip = replace(packed_clip(tmp_path), apex=None)
    with pytest.raises(AnnotationError, match=r"^clip 'S1_01', .*set data\.preprocess\.apex\.mode to auto"):
        ANNOTATED(clip)


@pytest.mark.parametrize("settings", [{"size": 7}, {"size": 225}, {"stabilize": "rigid"}])
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.(size|stabilize): expected"):
        Preprocess(**settings)


# What the key knows


def other(value: Any) -> list[Any]:
    """Values of the same kind; at least one of them is a possible setting."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 2, value - 2]
    if isinstance(value, float):
        return [value * 0.9 + 0.001]
    if isinstance(value, tuple):
        return [value[::-1]]
    return {
        "auto": ["annotated"],
        "parametric": ["none"],
        "side_by_side": ["stacked"],
        "foreground": ["whole"],
    }[value]


def variants(settings):
    """The same settings with one changed, for every single one: pairs of its name and the settings."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            for name, inner in variants(value):
                yield f"{field.name}.{name}", replace(settings, **{field.name: inner})
        else:
            yield field.name, next(filter(None, (changed(settings, field.name, choice) for choice in other(value))))


def changed(settings, name, value):
    try:
        return replace(settings, **{name: value})
    except SettingError:
        return None


@pytest.mark.parametrize("views", [MeshViews(), PackedViews()], ids=["mesh", "packed"])
def test_every_setting_changes_the_key(views):
    base = Preprocess(views=views)
    different = dict(variants(base))
    expected = {"views": type(views), "crop": FaceCrop, "apex": ApexDetector, "flow": TVL1}
    leaves = {f"{part}.{field.name}" for part, kind in expected.items() for field in fields(kind)}
    assert different.keys() == leaves | {"stabilize", "size"}
    keys = {name: content_key("sources", preprocess.parameters()) for name, preprocess in different.items()}
    keys["nothing"] = content_key("sources", base.parameters())
    assert len(set(keys.values())) == len(keys)


def test_the_kind_of_views_is_part_of_the_key():
    mesh, packed = (Preprocess(views=views).parameters() for views in (MeshViews(), PackedViews()))
    assert mesh["views"]["class"] == "MeshViews" and packed["views"]["class"] == "PackedViews"


def test_equal_settings_have_equal_keys():
    first = content_key("sources", Preprocess().parameters())
    assert first == content_key("sources", Preprocess(views=MeshViews(yaw=(-35.0, 35.0)), size=56).parameters())
