"""Pictures of any layout, order and depth come out as views, unchanged, or an error names the file."""

from dataclasses import replace
from itertools import permutations

import cv2
import numpy as np
import pytest
from PIL import Image

from mer4d.clip import Clip, Frame
from mer4d.errors import AnnotationError, FaceError, FrameError, SettingError
from mer4d.preprocess import Annotated, Cascade, FaceFinder, Foreground, Whole
from mer4d.preprocess.faces import Face
from mer4d.preprocess.views import PictureViews, read_image


def write(path, picture, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **settings)
    return path


def clip_of(*files, onset=0, offset=None, **fields):
    """A clip with one frame for each file, or for each tuple of files."""
    frames = tuple(Frame(each if isinstance(each, tuple) else (each,)) for each in files)
    return Clip("S1_01", "S1", frames, onset, len(frames) - 1 if offset is None else offset, (), **fields)


@pytest.fixture(scope="module")
def shots(speckle):
    """Three moments of three views, (T, V, h, w), all different; a view is 40 x 38."""
    return np.array([[speckle(38, 40, seed=10 * frame + view) for view in range(3)] for frame in range(3)])


JOINED = {"side_by_side": np.hstack, "stacked": np.vstack}


def write_layout(folder, shots, layout):
    """A clip of shots (T, V, h, w) that are shown in this order."""
    if layout == "separate":
        return clip_of(
            *(
                tuple(write(folder / str(view) / f"{frame}.png", image) for view, image in enumerate(views))
                for frame, views in enumerate(shots)
            )
        )
    join = JOINED.get(layout, lambda views: views[0])
    return clip_of(*(write(folder / f"{frame}.png", join(list(views))) for frame, views in enumerate(shots)))


# Layouts


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize(("layout", "count"), [("single", 1), ("side_by_side", 2), ("stacked", 2), ("separate", 2)])
def test_layouts(tmp_path, shots, layout, count, auto):
    clip = write_layout(tmp_path, shots[:, :count], layout)
    source = PictureViews("auto" if auto else layout, face=Whole())
    found = source.read(clip)
    assert np.array_equal(found.images, shots[:, :count]) and found.images.dtype == np.uint8
    assert found.face.shape == found.images.shape and found.face.dtype == bool and found.face.all()
    assert found.eyes is None
    assert source.names(clip) == (("front",) if count == 1 else ("left", "right"))


@pytest.mark.parametrize("layout", ["side_by_side", "stacked", "separate"])
def test_left_comes_before_right_whatever_the_order(tmp_path, shots, layout):
    clip = write_layout(tmp_path, shots[:, :2], layout)
    source = PictureViews(layout, order=("right", "left"), face=Whole())
    assert np.array_equal(source.read(clip).images, shots[:, 1::-1]) and source.names(clip) == ("left", "right")


@pytest.mark.parametrize("order", list(permutations(["left", "front", "right"])))
@pytest.mark.parametrize("layout", ["side_by_side", "stacked", "separate"])
def test_three_views(tmp_path, shots, layout, order):
    clip = write_layout(tmp_path, shots, layout)
    source = PictureViews(layout, order=order, face=Whole())
    expected = shots[:, [order.index(name) for name in ("left", "front", "right")]]
    assert np.array_equal(source.read(clip).images, expected) and source.names(clip) == ("left", "front", "right")
    assert source.inspect(clip).views == ("left", "front", "right")


def test_views_of_other_names_keep_their_order(tmp_path, shots):
    clip = write_layout(tmp_path, shots, "separate")
    source = PictureViews(order=("right", "below", "above"), face=Whole())
    assert source.names(clip) == ("below", "above", "right")
    assert np.array_equal(source.read(clip).images, shots[:, [1, 2, 0]])


def test_only_onset_to_offset_is_read(tmp_path, shots):
    clip = write_layout(tmp_path, np.tile(shots, (2, 1, 1, 1))[:, :1], "single")
    clip.frames[0].files[0].unlink()
    clip.frames[-1].files[0].unlink()
    found = PictureViews(face=Whole()).read(replace(clip, onset=1, offset=3))
    assert np.array_equal(found.images[:, 0], shots[[1, 2, 0], 0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 145), ("front",)),
        ((145, 100), ("front",)),
        ((100, 190), ("left", "right")),
        ((190, 100), ("left", "right")),
        ((100, 146), None),
        ((188, 100), None),
    ],
)
def test_where_the_guess_ends(tmp_path, shape, expected):
    clip = clip_of(*(write(tmp_path / f"{frame}.png", np.full(shape, 9, np.uint8)) for frame in range(2)))
    if expected:
        assert PictureViews(face=Whole()).names(clip) == expected
        assert PictureViews(face=Whole()).read(clip).images.shape[1] == len(expected)
    else:
        for ask in (PictureViews().names, PictureViews().read):
            with pytest.raises(FrameError, match=r"0\.png: expected a picture whose longer side .* set `layout`"):
                ask(clip)
        (problem,) = PictureViews().inspect(clip).problems
        assert "set `layout`" in str(problem)
        assert PictureViews("single", face=Whole()).names(clip) == ("front",)


@pytest.mark.parametrize(("layout", "shape"), [("side_by_side", (30, 41)), ("stacked", (41, 30))])
def test_a_picture_that_cannot_be_halved(tmp_path, layout, shape):
    clip = clip_of(*[write(tmp_path / "7.png", np.zeros(shape, np.uint8))] * 2)
    for ask in (PictureViews(layout).read, PictureViews(layout).names):
        with pytest.raises(FrameError, match=rf"7\.png: expected 2 views .* {shape[1]} x {shape[0]} pixels"):
            ask(clip)


def test_files_of_a_frame_must_fit_the_layout(tmp_path, shots):
    separate, single = (write_layout(tmp_path / name, shots[:, :2], name) for name in ("separate", "single"))
    for layout in ("single", "side_by_side", "stacked"):
        with pytest.raises(FrameError, match=rf"0\.png: expected one file \(layout {layout}\), found 2 for this frame"):
            PictureViews(layout).read(separate)
    with pytest.raises(FrameError, match=r"0\.png: expected one file for each view \(layout separate\), found 1"):
        PictureViews("separate").read(single)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (PictureViews(), "none"),
        (PictureViews(order=("left", "right")), "left, right"),
        (PictureViews(order=("a", "b", "c", "d")), "a, b, c, d"),
    ],
)
def test_three_views_need_three_names(tmp_path, shots, source, found):
    clip = write_layout(tmp_path, shots, "separate")
    with pytest.raises(SettingError, match=rf"names of the 3 views of .*0\.png, found {found};"):
        source.read(clip)


def test_a_single_name_for_two_views(tmp_path, shots):
    with pytest.raises(SettingError, match="names of the 2 views"):
        PictureViews(order=("left",)).read(write_layout(tmp_path, shots[:, :2], "side_by_side"))


@pytest.mark.parametrize(
    "settings",
    [
        {"layout": "sidebyside"},
        {"bits": 13},
        {"order": ()},
        {"order": ("left", "left")},
        {"order": ("left", "")},
        {"layout": "single", "order": ("left", "right")},
        {"layout": "stacked", "order": ("left",)},
    ],
    ids=str,
)
def test_impossible_settings(settings):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.views: expected layout among"):
        PictureViews(**settings)


def test_sizes_that_differ_from_frame_to_frame(tmp_path, shots):
    clip = write_layout(tmp_path, np.repeat(shots[:, :2], 2, axis=0), "separate")
    odd = clip.frames[0].files[1], clip.frames[4].files[1]
    write(odd[0], np.zeros((38, 44), np.uint8))
    write(odd[1], np.zeros((39, 40), np.uint8))
    with pytest.raises(FrameError) as info:
        PictureViews(face=Whole()).read(replace(clip, onset=1))
    assert str(info.value).startswith(f"{odd[1]}: expected 40 x 38 pixels as in 1.png, found 40 x 39;")
    problems = PictureViews().inspect(clip).problems
    assert [(problem.where, problem.found) for problem in problems] == [
        (str(odd[0]), "44 x 38"),
        (str(odd[1]), "40 x 39"),
    ]


def test_cameras_of_different_resolution(tmp_path, shots):
    left, right = write(tmp_path / "left" / "1.png", shots[0, 0]), write(tmp_path / "right" / "1.png", shots[0, 1, :20])
    clip = clip_of((left, right), (left, right))
    with pytest.raises(FrameError, match=r"right/1\.png: expected 40 x 38 pixels as in 1\.png, found 40 x 20"):
        PictureViews().read(clip)
    assert len(PictureViews().inspect(clip).problems) == 1


def test_frames_of_another_kind(tmp_path):
    clip = clip_of(tmp_path / "7.obj", tmp_path / "8.obj")
    with pytest.raises(FrameError, match=r"7\.obj: expected a frame that PictureViews reads .* AutoViews"):
        PictureViews().read(clip)
    assert len(PictureViews().inspect(clip).problems) == 1


def test_suffixes_in_capitals(tmp_path, face_pictures):
    frames = [write(tmp_path / f"{7 + frame}.PNG", np.hstack(face_pictures([0.0])[0])) for frame in range(2)]
    assert PictureViews().read(clip_of(*frames)).images.shape == (2, 2, 96, 96)


# Faces


class Recorder(FaceFinder):
    """Finds what it is told to, and remembers what it was asked."""

    def __init__(self, eyes):
        self.asked, self.eyes = [], eyes

    def find(self, image, box=None):
        raise AssertionError("asked for a single picture")

    def sequence(self, images, box, where):
        self.asked.append((images.copy(), box, list(where)))
        eyes = np.full((len(images), 2, 2), float(images[0, 0, 0])) if self.eyes else None
        return images > images.mean(), eyes


@pytest.mark.parametrize("eyes", [False, True])
def test_the_finder_sees_one_view_after_the_other(tmp_path, shots, eyes):
    clip = replace(write_layout(tmp_path, shots[:, :2], "separate"), boxes=((1, 2, 3, 4), (5, 6, 7, 8)))
    finder = Recorder(eyes)
    found = PictureViews(order=("right", "left"), face=finder).read(clip)
    for view, (shown, (images, box, where)) in enumerate(zip((1, 0), finder.asked, strict=True)):
        assert np.array_equal(images, shots[:, shown]) and box == clip.boxes[view]
        assert where == [str(frame.files[shown]) for frame in clip.frames]
        assert np.array_equal(found.face[:, view], images > images.mean())
        if eyes:
            assert (found.eyes[:, view] == shots[0, shown, 0, 0]).all()
    assert (found.eyes.shape == (3, 2, 2, 2)) if eyes else found.eyes is None


def test_faces_of_each_view(tmp_path, face_pictures):
    pictures = face_pictures([0.0] * 3)
    clip = clip_of(*(write(tmp_path / f"{frame}.png", np.hstack(views)) for frame, views in enumerate(pictures)))
    found = PictureViews().read(clip)
    for view in range(2):
        masks, _ = Foreground().sequence(pictures[:, view], None, range(3))
        assert np.array_equal(found.face[:, view], masks) and 0.2 < masks.mean() < 0.7


def test_annotated_boxes(tmp_path, shots):
    clip = replace(write_layout(tmp_path, shots[:, :2], "stacked"), boxes=((4, 3, 20, 25), (10, 5, 30, 28)))
    face = PictureViews(face=Annotated()).read(clip).face
    for view, (x0, y0, x1, y1) in enumerate(clip.boxes):
        assert face[:, view, y0:y1, x0:x1].all() and face[:, view].sum() == 3 * (x1 - x0) * (y1 - y0)


def test_one_box_counts_for_all_views_and_another_number_is_named(tmp_path, shots):
    clip = replace(write_layout(tmp_path, shots[:, :2], "stacked"), boxes=((4, 3, 20, 25),))
    face = PictureViews(face=Annotated()).read(clip).face
    assert face[:, :, 3:25, 4:20].all() and face.sum() == face.shape[0] * 2 * 22 * 16
    with pytest.raises(AnnotationError, match="expected one box, or one for each of 2 views, found 3"):
        PictureViews(face=Annotated()).read(replace(clip, boxes=3 * clip.boxes))


def test_no_face_names_the_file_of_the_view(tmp_path, face_pictures):
    frames = []
    for frame in range(4):
        left, right = face_pictures([0.0])[0]
        shown = right if frame == 0 else right // 25
        frames.append((write(tmp_path / f"l{frame}.png", left), write(tmp_path / f"r{frame}.png", shown)))
    with pytest.raises(FaceError, match=r"r1\.png: expected a face that Foreground sees"):
        PictureViews().read(clip_of(*frames))


def test_every_finder_is_accepted_as_a_setting():
    for face in (Foreground(), Whole(), Annotated(), Cascade()):
        assert PictureViews(face=face).face == face
    assert isinstance(Foreground().find(np.zeros((9, 9), np.uint8)), Face | None)


# Inspection


def test_inspection_of_a_sound_clip(tmp_path, shots):
    for layout, count, size in (("single", 1, (38, 40)), ("side_by_side", 2, (38, 40)), ("stacked", 3, (38, 40))):
        clip = write_layout(tmp_path / layout, shots[:, :count], layout)
        order = ("left", "front", "right") if count == 3 else None
        found = PictureViews(layout, order).inspect(replace(clip, onset=1))
        assert found.problems == () and found.resolution == size and len(found.views) == count


def test_inspection_names_every_broken_file_also_outside_of_the_movement(tmp_path, shots):
    clip = replace(write_layout(tmp_path, np.repeat(shots[:, :2], 2, axis=0), "separate"), onset=2, offset=3)
    broken = [clip.frames[0].files[0], clip.frames[2].files[0], clip.frames[2].files[1], clip.frames[5].files[1]]
    for file in broken:
        file.write_bytes(file.read_bytes()[:200])
    found = PictureViews().inspect(clip)
    assert [problem.where for problem in found.problems] == [str(file) for file in broken]
    assert found.resolution == (38, 40) and found.views == ("left", "right")


def test_inspection_of_nothing_that_can_be_read(tmp_path):
    found = PictureViews().inspect(clip_of(tmp_path / "1.png", tmp_path / "2.png"))
    assert len(found.problems) == 2 and found.resolution is None and found.views == ()


# Images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_and_colour(tmp_path, speckle, suffix):
    grey = speckle(40, 60)
    colour = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(read_image(write(tmp_path / f"grey.{suffix}", grey)), grey)
    weighted = read_image(write(tmp_path / f"colour.{suffix}", colour))
    assert weighted.dtype == np.uint8 and np.abs(weighted - colour @ (0.299, 0.587, 0.114)).max() < 0.51


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_files(tmp_path, suffix, bits):
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 1 << bits, (40, 60, *more), np.uint16) for more in ((), (3,)))
    found = read_image(write(tmp_path / f"grey.{suffix}", grey), bits)
    assert found.dtype == np.uint8 and np.array_equal(found, grey >> (bits - 8))
    cv2.imwrite(str(tmp_path / f"colour.{suffix}"), colour[..., ::-1])
    found = read_image(tmp_path / f"colour.{suffix}", bits)
    assert np.abs(found - (colour @ (0.299, 0.587, 0.114)) / (1 << (bits - 8))).max() < 1.1


def test_bits_reach_the_files(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (40, 40), np.uint16)
    clip = clip_of(*[write(tmp_path / "1.png", deep)] * 2)
    assert np.array_equal(PictureViews(bits=12, face=Whole()).read(clip).images[0, 0], deep >> 4)


@pytest.mark.parametrize(("bits", "brightest"), [(10, 1024), (12, 4096), (14, 65535), (16, 4095), (12, 255), (10, 63)])
def test_values_that_do_not_fit_the_bits(tmp_path, bits, brightest):
    """Beyond the range, or so dark that 16 grey levels hold all of it, as 12 bits do where 16 are thought to be."""
    deep = np.zeros((40, 60), np.uint16)
    deep[3, 4] = brightest
    path = write(tmp_path / "deep.png", deep)
    with pytest.raises(FrameError, match=rf"deep\.png: .* {bits} of 16 bits .* found {brightest} .* set `bits`"):
        read_image(path, bits)


@pytest.mark.parametrize(("bits", "brightest"), [(10, 1023), (10, 64), (12, 4095), (16, 65535), (16, 4096)])
def test_values_that_just_fit(tmp_path, bits, brightest):
    deep = np.zeros((40, 60), np.uint16)
    deep[3, 4] = brightest
    assert read_image(write(tmp_path / "deep.png", deep), bits)[3, 4] == brightest >> (bits - 8)


def test_sixteen_bit_of_the_other_byte_order(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (40, 60), np.uint16)
    Image.frombytes("I;16B", (60, 40), deep.astype(">u2").tobytes()).save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as stored:
        assert stored.mode == "I;16B"
    assert np.array_equal(read_image(tmp_path / "deep.tif"), deep // 256)


def test_palette_transparency_one_bit_and_jpeg(tmp_path, speckle):
    grey = speckle(40, 60)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(tmp_path / "alpha.png")
    Image.fromarray(grey > 150).save(tmp_path / "bit.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "palette.png").astype(int) - grey).max() <= 1
    assert np.abs(read_image(tmp_path / "alpha.png").astype(int) - grey).max() <= 1
    assert np.array_equal(read_image(tmp_path / "bit.png"), 255 * (grey > 150))
    reference = cv2.imread(str(tmp_path / "grey.jpg"), cv2.IMREAD_GRAYSCALE)
    assert np.abs(read_image(tmp_path / "grey.jpg").astype(int) - reference).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_turned_camera(tmp_path, speckle, suffix):
    """Orientation 6: the first row is on the right, so the picture is to be turned clockwise."""
    grey = speckle(40, 64, sigma=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / f"7.{suffix}", grey, exif=exif)
    assert np.abs(read_image(path).astype(int) - np.rot90(grey, -1)).max() <= 12
    exif[0x0112] = 1
    assert np.abs(read_image(write(path, grey, exif=exif)).astype(int) - grey).max() <= 12


@pytest.mark.parametrize(("suffix", "kind"), [("tif", np.uint8), ("tif", np.uint16), ("png", np.uint16)])
def test_a_turned_camera_where_no_decoder_is_to_be_trusted(tmp_path, speckle, suffix, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / f"7.{suffix}", speckle(40, 64).astype(kind) * np.iinfo(kind).bits, exif=exif)
    with pytest.raises(FrameError, match=r"found a turned camera \(orientation 6\)"):
        read_image(path)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_thirty_two_bit_has_no_known_range(tmp_path, kind):
    with pytest.raises(FrameError, match=r"deep\.tif: expected a readable image of 8 or 16 bit, found 32 bit"):
        read_image(write(tmp_path / "deep.tif", np.eye(8, dtype=kind)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_several_pictures_in_one_file(tmp_path, suffix):
    pages = [Image.new("L", (20, 20), shade) for shade in (10, 200)]
    pages[0].save(tmp_path / f"7.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(FrameError, match=rf"7\.{suffix}: .* found 2 pictures in one file"):
        read_image(tmp_path / f"7.{suffix}")


def test_content_of_another_format(tmp_path):
    """Pillow would run Ghostscript for PostScript, whatever the file is called."""
    for kind in ("EPS", "GIF", "WEBP"):
        Image.new("L", (20, 20)).save(tmp_path / "7.png", kind)
        with pytest.raises(FrameError, match=r"7\.png: expected a readable image .* cannot identify"):
            read_image(tmp_path / "7.png")


@pytest.mark.parametrize(("suffix", "bits"), [("jpg", 8), ("png", 8), ("bmp", 8), ("tif", 8), ("png", 16), ("tif", 16)])
def test_truncated_images(tmp_path, speckle, suffix, bits):
    path = write(tmp_path / f"7.{suffix}", speckle(64, 96) if bits == 8 else speckle(64, 96).astype(np.uint16) * 257)
    content = path.read_bytes()
    for length in [*range(0, len(content) - 100, max(1, len(content) // 40)), len(content) - 100]:
        path.write_bytes(content[:length])
        with pytest.raises(FrameError, match=rf"7\.{suffix}: expected a readable image"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_damaged_images_are_named_or_readable(tmp_path, speckle, suffix):
    path = write(tmp_path / f"7.{suffix}", speckle(64, 96))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in [*range(60), *rng.integers(0, len(content), 60)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            assert read_image(path).dtype == np.uint8
        except FrameError as error:
            assert error.where == str(path) and error.found


@pytest.mark.parametrize("content", [b"", b"\x00" * 500, b"not a picture"])
def test_no_image(tmp_path, content):
    (tmp_path / "7.png").write_bytes(content)
    with pytest.raises(FrameError, match=r"7\.png: expected a readable image"):
        read_image(tmp_path / "7.png")


def test_missing_and_directory(tmp_path):
    (tmp_path / "8.png").mkdir()
    for name in ("7.png", "8.png"):
        with pytest.raises(FrameError, match=rf"{name}: expected a readable image"):
            PictureViews().read(clip_of(*[tmp_path / name] * 2))
