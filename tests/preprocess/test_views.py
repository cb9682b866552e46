"""Views come out of files in the right order and unchanged, or an error names the file."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mer4d.errors import FaceError, FrameError, SettingError
from mer4d.preprocess.views import MeshViews, PackedViews, foreground, read_image, split


def write(path, picture, **settings):
    Image.fromarray(picture).save(path, **settings)
    return path


# Packed pictures


@pytest.mark.parametrize(("axis", "join"), [("side_by_side", np.hstack), ("stacked", np.vstack)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_split_and_swap(tmp_path, speckle, axis, join, count):
    views = [speckle(30, 20, seed=seed) for seed in range(count)]
    frames = [write(tmp_path / f"{number}.png", join(views)) for number in range(2)]
    found = PackedViews(axis=axis, count=count, face="whole").read(frames)
    assert found.images.shape == (2, count, 30, 20) and found.images.dtype == np.uint8
    assert np.array_equal(found.images, [views] * 2) and found.face.all() and found.face.shape == found.images.shape
    swapped = PackedViews(axis=axis, count=count, face="whole", swap=True).read(frames)
    assert np.array_equal(swapped.images, [views[::-1]] * 2)


@pytest.mark.parametrize(("axis", "shape"), [("side_by_side", (30, 41)), ("stacked", (41, 30))])
def test_a_picture_that_cannot_be_halved(tmp_path, axis, shape):
    frame = write(tmp_path / "7.png", np.zeros(shape, np.uint8))
    with pytest.raises(FrameError, match=rf"7\.png: expected 2 views .* {shape[1]} x {shape[0]} pixels"):
        PackedViews(axis=axis).read([frame])


def test_split_keeps_every_pixel():
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(np.hstack(split(picture, 3, "side_by_side", where="")), picture)
    assert np.array_equal(np.vstack(split(picture, 2, "stacked", where="")), picture)


def test_frames_of_two_sizes(tmp_path):
    frames = [write(tmp_path / f"{width}.png", np.zeros((30, width), np.uint8)) for width in (40, 44)]
    with pytest.raises(
        FrameError, match=r"44\.png: expected views of \(30, 20\) pixels as in 40\.png, found \(30, 22\)"
    ):
        PackedViews(face="whole").read(frames)


@pytest.mark.parametrize("source", [PackedViews(), MeshViews()])
def test_frames_of_another_kind(tmp_path, source):
    name = "7.obj" if isinstance(source, PackedViews) else "7.jpg"
    with pytest.raises(FrameError, match=rf"{name}: expected a frame that {type(source).__name__} reads") as info:
        source.read([tmp_path / name])
    assert "data.preprocess.views" in info.value.remedy


def test_suffixes_in_capitals(tmp_path, face_pictures):
    Image.fromarray(np.hstack(face_pictures([0.0])[0])).save(tmp_path / "7.PNG")
    assert PackedViews().read([tmp_path / "7.PNG"]).images.shape == (1, 2, 96, 96)


@pytest.mark.parametrize(
    "settings", [{"axis": "sidebyside"}, {"count": 0}, {"count": -1}, {"face": "haar"}], ids=lambda s: next(iter(s))
)
def test_impossible_packing(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.views"):
        PackedViews(**settings)


# Images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_colour_and_sixteen_bit(tmp_path, speckle, suffix):
    grey = speckle(40, 60)
    colour = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(read_image(write(tmp_path / f"grey.{suffix}", grey)), grey)
    weighted = read_image(write(tmp_path / f"colour.{suffix}", colour))
    assert weighted.dtype == np.uint8 and np.abs(weighted - colour @ (0.299, 0.587, 0.114)).max() < 0.51
    if suffix != "bmp":
        deep = np.random.default_rng(0).integers(0, 65536, (40, 60), np.uint16)
        assert np.array_equal(read_image(write(tmp_path / f"deep.{suffix}", deep)), deep // 256)


def test_sixteen_bit_of_the_other_byte_order(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (40, 60), np.uint16)
    picture = Image.frombytes("I;16B", (60, 40), deep.astype(">u2").tobytes())
    picture.save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as stored:
        assert stored.mode == "I;16B"
    found = read_image(tmp_path / "deep.tif")
    assert found.dtype == np.uint8 and np.array_equal(found, deep // 256)


def test_palette_transparency_and_jpeg(tmp_path, speckle):
    grey = speckle(40, 60)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(tmp_path / "alpha.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "palette.png").astype(int) - grey).max() <= 1
    assert np.abs(read_image(tmp_path / "alpha.png").astype(int) - grey).max() <= 1
    reference = cv2.imread(str(tmp_path / "grey.jpg"), cv2.IMREAD_GRAYSCALE)
    assert np.abs(read_image(tmp_path / "grey.jpg").astype(int) - reference).max() <= 2


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_thirty_two_bit_has_no_known_range(tmp_path, kind):
    with pytest.raises(FrameError, match=r"deep\.tif: expected a readable image of 8 or 16 bit, found 32 bit"):
        read_image(write(tmp_path / "deep.tif", np.eye(8, dtype=kind)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_truncated_images(tmp_path, speckle, suffix):
    path = write(tmp_path / f"7.{suffix}", speckle(64, 96))
    content = path.read_bytes()
    for length in [*range(0, len(content) - 100, max(1, len(content) // 40)), len(content) - 100]:
        path.write_bytes(content[:length])
        with pytest.raises(FrameError, match=rf"7\.{suffix}: expected a readable image"):
            read_image(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 500, b"not a picture"])
def test_no_image(tmp_path, content):
    (tmp_path / "7.png").write_bytes(content)
    with pytest.raises(FrameError, match=r"7\.png: expected a readable image"):
        read_image(tmp_path / "7.png")


def test_missing_and_directory(tmp_path):
    (tmp_path / "8.png").mkdir()
    for name in ("7.png", "8.png"):
        with pytest.raises(FrameError, match=rf"{name}: expected a readable image"):
            PackedViews().read([tmp_path / name])


# The subject before its background


def ellipse(size=96):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(x / 0.36, y / 0.44) < size


def test_foreground_finds_the_face(face_pictures):
    for view in face_pictures([0.0], noise=3.0)[0]:
        face = foreground(view, where="7.png")
        assert face.dtype == bool and (face & ellipse()).sum() / (face | ellipse()).sum() > 0.93


def test_foreground_fills_holes_and_forgets_specks(face_pictures):
    view = face_pictures([0.0])[0, 0]
    view[40:60, 40:60] = 0  # a dark mouth
    view[:6, :6] = view[-6:, -6:] = 255  # two lamps
    face = foreground(view, where="7.png")
    assert face[40:60, 40:60].all() and not face[:10, :10].any() and not face[-10:, -10:].any()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_uniform_picture_has_no_face(tmp_path, level):
    frame = write(tmp_path / "7.png", np.full((96, 192), level, np.uint8))
    with pytest.raises(FaceError, match=r"7\.png: expected a face that stands out") as info:
        PackedViews().read([frame])
    assert "data.preprocess.views.face" in info.value.remedy


def test_noise_or_a_speck_is_no_face():
    noise = np.random.default_rng(0).integers(100, 108, (96, 96)).astype(np.uint8)
    speck = np.zeros((96, 96), np.uint8)
    speck[40:50, 40:50] = 255
    for picture in (noise, speck):
        with pytest.raises(FaceError, match=r"7\.png"):
            foreground(picture, where="7.png")


# Meshes


def test_mesh_views(tmp_path, mesh_clip):
    frames = mesh_clip(tmp_path).frames[:3]
    views = MeshViews(resolution=96, supersampling=1).read(frames)
    assert views.images.shape == views.face.shape == (3, 2, 96, 96)
    assert views.images.dtype == np.uint8 and views.face.dtype == bool
    assert not views.images[~views.face].any() and views.images[views.face].min() > 30
    assert np.allclose(views.face.mean(axis=(2, 3)), 0.55, atol=0.15)
    assert MeshViews(yaw=(0.0,), resolution=96, supersampling=1).read(frames).images.shape == (3, 1, 96, 96)


def test_cameras_stay_where_they_are_when_the_head_moves(tmp_path, write_obj, head, speckle):
    Image.fromarray(speckle(64, 64)).save(tmp_path / "skin.png")
    for number, shift in enumerate([(0, 0, 0), (0.5, 0, 0), (0, 1, 0)]):
        write_obj(tmp_path / f"{number}.obj", *head(shift=shift))
    views = MeshViews(yaw=(0.0,), resolution=128, supersampling=1).read([tmp_path / f"{n}.obj" for n in range(3)])
    y, x = np.indices((128, 128))
    middle = [np.array([x[face].mean(), y[face].mean()]) for face in views.face[:, 0]]
    pixel_per_cm = (np.ptp(np.flatnonzero(views.face[0, 0].any(axis=1))) + 1) / 20
    assert (middle[1] - middle[0]) / pixel_per_cm == pytest.approx([0.5, 0], abs=0.05)
    assert (middle[2] - middle[0]) / pixel_per_cm == pytest.approx([0, -1], abs=0.08)


def test_a_mesh_that_left_the_picture(tmp_path, mesh_clip, write_obj, head):
    frames = mesh_clip(tmp_path).frames[:3]
    write_obj(frames[1], *head(shift=(500, 0, 0)))
    with pytest.raises(FaceError, match=rf"{frames[1].name}: expected a mesh in view"):
        MeshViews(resolution=64, supersampling=1).read(frames)


def test_an_error_names_the_mesh(tmp_path, mesh_clip):
    frames = mesh_clip(tmp_path).frames[:3]
    frames[2].write_text("")
    with pytest.raises(FrameError) as info:
        MeshViews(resolution=64, supersampling=1).read(frames)
    assert info.value.where == str(frames[2])


@pytest.mark.parametrize("settings", [{"yaw": ()}, {"distance": 1.0}, {"resolution": 31}, {"supersampling": 0}])
def test_impossible_cameras(settings):
    with pytest.raises(SettingError, match=r"data\.preprocess\.views"):
        MeshViews(**settings)
