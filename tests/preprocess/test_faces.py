"""Each finder finds the face where it is, and a sequence keeps its head when a frame has none."""

import pickle
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects

from mer4d.errors import FaceError, InstallationError, SettingError
from mer4d.preprocess import faces
from mer4d.preprocess.faces import (
    Annotated,
    Cascade,
    Face,
    FaceFinder,
    Foreground,
    Whole,
    YuNet,
    mask_boxes,
    steady_frames,
)
from mer4d.preprocess.mesh import Mesh, capture, cast_rays, frame_cameras, grey_levels
from mer4d.synth.builtin import built_in_face
from mer4d.synth.model_file import read_face_model
from mer4d.synth.skin import paint

SCANNED = Path(__file__).parents[3] / "shared" / "data" / "ict_face_light.npz"


def square(*corners, shape=(120, 160), grey=200):
    """Picture (H, W) of bright squares x0, y0, x1, y1 on black."""
    picture = np.zeros(shape, np.uint8)
    for x0, y0, x1, y1 in corners:
        picture[y0:y1, x0:x1] = grey
    return picture


def box(face):
    return mask_boxes(face.mask[None])[0].tolist()


# Boxes, and which of them count


def test_boxes_of_masks():
    masks = np.random.default_rng(0).random((50, 12, 17)) > 0.97
    masks = masks[masks.any(axis=(1, 2))]
    objects = [find_objects(mask.astype(int))[0] for mask in masks]
    expected = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in objects]
    assert mask_boxes(masks).tolist() == [list(corners) for corners in expected]
    assert mask_boxes(masks).dtype == np.int64


STILL = (40, 30, 140, 150)


def moved(right=0, down=0, larger=0):
    x0, y0, x1, y1 = STILL
    return x0 + right - larger, y0 + down - larger, x1 + right + larger, y1 + down + larger


@pytest.mark.parametrize(
    ("boxes", "outliers"),
    [
        ([STILL], []),
        ([STILL, moved(60)], []),  # nobody knows which of two is right
        ([STILL, moved(60), STILL], [1]),
        ([moved(60), STILL, STILL], [0]),
        ([STILL, moved(60), moved(120)], []),
        ([STILL] * 4 + [moved(larger=8)] + [STILL] * 4, [4]),
        ([STILL] * 4 + [moved(larger=5)] + [STILL] * 4, []),  # a cascade's step
        ([STILL] * 5 + [moved(down=-90)] * 4, [5, 6, 7, 8]),
        ([STILL] * 3 + [moved(50), moved(52), moved(49)] + [STILL] * 3, [3, 4, 5]),
        ([STILL] * 3 + [(0, 0, 320, 240)] + [STILL] * 3, [3]),
        ([STILL] * 3 + [(80, 80, 90, 90)] + [STILL] * 3, [3]),
        ([moved(3 * step) for step in range(30)], []),  # moves all the time
        ([STILL] * 20 + [moved(6 * step) for step in range(10)], []),  # most of the time still, then moves
        ([moved(larger=step % 3) for step in range(9)] + [moved(30)], [9]),
        ([moved(4 * (step % 2)) for step in range(9)] + [moved(12)], []),  # 10 from the median box at 2
        ([moved(4 * (step % 2)) for step in range(9)] + [moved(13)], [9]),  # 11; 3.5 deviations are 10.4
    ],
)
def test_outliers(boxes, outliers):
    assert np.flatnonzero(~steady_frames(np.array(boxes))).tolist() == outliers
    backwards = [len(boxes) - 1 - frame for frame in reversed(outliers)]
    assert np.flatnonzero(~steady_frames(np.array(boxes[::-1]))).tolist() == backwards


def walk(boxes):
    """Frames that a walk without jumps reaches from those near the median box: the rule, by other means."""
    median = np.median(boxes, axis=0)
    distances = np.array([np.abs(one - median).max() for one in boxes])
    sides = median[2:] - median[:2]
    jump = max(3.5 * 1.4826 * np.median(distances), 0.05 * max(sides))
    reached = set(np.flatnonzero(distances <= jump))
    queue = deque(reached)
    while queue:
        frame = queue.popleft()
        for other in {frame - 1, frame + 1} - reached:
            if 0 <= other < len(boxes) and np.abs(boxes[other] - boxes[frame]).max() <= jump:
                reached.add(other)
                queue.append(other)
    return [frame in reached for frame in range(len(boxes))]


def test_outliers_of_random_sequences():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        frames = rng.integers(1, 25)
        boxes = np.array(STILL) + rng.integers(0, rng.integers(1, 6), (frames, 4))
        boxes += np.cumsum(rng.integers(-3, 4, (frames, 1)) * rng.integers(0, 2), axis=0)
        boxes[rng.random(frames) < 0.2] += rng.integers(-40, 40, 4)
        steady = steady_frames(boxes)
        assert steady.tolist() == walk(boxes) and 2 * steady.sum() >= frames
        found += (~steady).sum()
    assert found > 100


# Sequences


@dataclass(frozen=True)
class Listed(FaceFinder):
    """Finds in the picture of grey level n what is listed as n: a box, with eyes at its upper corners, or None."""

    boxes: tuple
    eyes: bool = False

    def find(self, image, box=None):
        corners = self.boxes[image[0, 0]]
        if corners is None:
            return None
        x0, y0, x1, _ = corners
        return Face(square(corners) > 0, np.array([[x0, y0], [x1, y0]], float) if self.eyes else None)

    def __call__(self):
        images = np.zeros((len(self.boxes), 120, 160), np.uint8) + np.arange(len(self.boxes))[:, None, None].astype(
            "u1"
        )
        return self.sequence(images, None, [f"{100 + frame}.png" for frame in range(len(self.boxes))])


HERE, THERE, FAR = (10, 10, 60, 60), (11, 10, 61, 60), (80, 50, 150, 110)


def test_frames_without_a_face_and_outliers_borrow_the_nearest():
    masks, eyes = Listed((None, HERE, None, None, THERE, FAR, THERE, None, HERE))()
    expected = [HERE, HERE, HERE, THERE, THERE, THERE, THERE, THERE, HERE]
    assert masks.dtype == bool and masks.shape == (9, 120, 160) and eyes is None
    assert mask_boxes(masks).tolist() == [list(corners) for corners in expected]


def test_eyes_are_not_borrowed():
    masks, eyes = Listed((HERE, None, THERE, FAR, HERE), eyes=True)()
    assert masks.all(axis=0).any() and eyes.shape == (5, 2, 2) and eyes.dtype == np.float64
    assert np.isnan(eyes[[1, 3]]).all()
    assert eyes[[0, 2, 4]].tolist() == [[[10, 10], [60, 10]], [[11, 10], [61, 10]], [[10, 10], [60, 10]]]


@pytest.mark.parametrize("boxes", [(HERE,), (HERE, HERE), (None, HERE, HERE), (HERE, HERE, None, None, HERE)])
def test_fewer_than_half_of_the_frames_may_miss(boxes):
    masks, _ = Listed(boxes)()
    assert mask_boxes(masks).tolist() == [list(HERE)] * len(boxes)


@pytest.mark.parametrize(
    ("boxes", "where", "count"),
    [
        ((None,), "100", "0 of 1"),
        ((HERE, None), "101", "1 of 2"),
        ((HERE, HERE, None, None), "102", "2 of 4"),
        ((None, HERE, None), "100", "1 of 3"),
    ],
)
def test_half_of_the_frames_may_not(boxes, where, count):
    with pytest.raises(FaceError) as info:
        Listed(boxes)()
    assert info.value.where == f"{where}.png"
    assert "Listed" in info.value.expected and count in info.value.found and "nothing" in info.value.found
    assert "`face` in data.preprocess.views" in info.value.remedy


# The subject before a darker background


def test_foreground_finds_the_face(face_pictures):
    for noise in (0.0, 3.0):
        for clean, view in zip(face_pictures([0.0])[0], face_pictures([0.0], noise=noise)[0], strict=True):
            mask, subject = Foreground().find(view).mask, clean > 6
            assert mask.dtype == bool and (mask & subject).sum() / (mask | subject).sum() > 0.95


@pytest.mark.parametrize("background", [0, 40])
def test_dark_hair_belongs_to_the_subject(background):
    noise = 3 * np.random.default_rng(0).standard_normal((120, 160))
    picture = np.full((120, 160), background) + noise
    picture[20:114, 40:120] = background + 30 + noise[20:114, 40:120]  # hair
    picture[50:110, 50:110] = 200
    mask = Foreground().find(picture.clip(0, 255).round().astype(np.uint8)).mask
    assert np.abs(mask_boxes(mask[None])[0] - [40, 20, 120, 114]).max() <= 1


def test_a_background_that_is_not_seen_at_the_rim_leaves_the_threshold_to_otsu():
    picture = np.full((120, 160), 200, np.uint8)
    picture[:30, :40] = 20
    picture[:27, 5:37] = 60  # something dim in the corner, near the subject
    mask = Foreground().find(picture).mask
    assert mask[40:].all() and not mask[5:25, 10:30].any()


def test_foreground_fills_holes_and_forgets_specks(face_pictures):
    view = face_pictures([0.0])[0, 0]
    view[40:60, 40:60] = 0  # a dark mouth
    view[:6, :6] = view[-6:, -6:] = 255  # two lamps
    mask = Foreground().find(view).mask
    assert mask[40:60, 40:60].all() and not mask[:10, :10].any() and not mask[-10:, -10:].any()


@pytest.mark.parametrize(
    ("picture", "saw"),
    [
        (np.full((96, 96), 0, np.uint8), "0% of the picture, 0 grey"),
        (np.full((96, 96), 255, np.uint8), "0 grey"),
        (square((40, 40, 50, 50), shape=(96, 96)), "2% of the picture, 1"),
        (square((20, 20, 80, 80), shape=(96, 96), grey=9), "39% of the picture, 9 grey"),
    ],
    ids=["black", "white", "speck", "faint"],
)
def test_nothing_stands_out(picture, saw):
    assert Foreground().find(picture) is None
    with pytest.raises(FaceError, match=r"7\.png: expected a face that Foreground sees") as info:
        Foreground().sequence(picture[None], None, ["7.png"])
    assert "0 of 1" in info.value.found and saw in info.value.found


# The whole picture, or a box that somebody drew


@pytest.mark.parametrize("finder", [Foreground(), Whole(), Annotated()])
def test_a_frame_that_was_lost_is_no_face(finder):
    images = np.stack([square((20, 20, 80, 80), shape=(96, 96))] * 4)
    images[2] = 7
    with pytest.raises(FaceError, match=r"c\.png: .*nothing but grey level 7, as in 1 of 4 frames"):
        finder.sequence(images, (20, 20, 80, 80), ["a.png", "b.png", "c.png", "d.png"])


def test_whole():
    masks, eyes = Whole().sequence(np.zeros((3, 40, 50), np.uint8), None, ["a", "b", "c"])
    assert masks.all() and masks.shape == (3, 40, 50) and eyes is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((20, 30, 50, 70), [20, 30, 50, 70]),
        ((-5, -9, 50, 70), [0, 0, 50, 70]),
        ((20, 30, 500, 700), [20, 30, 160, 120]),
        ((0, 0, 160, 120), [0, 0, 160, 120]),
    ],
)
def test_annotated(given, expected):
    masks, eyes = Annotated().sequence(np.zeros((4, 120, 160), np.uint8), given, list("abcd"))
    assert mask_boxes(masks).tolist() == [expected] * 4 and eyes is None
    x0, y0, x1, y1 = expected
    assert masks.sum() == 4 * (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("given", [None, (170, 0, 200, 50), (20, 130, 50, 150), (-9, 0, -2, 50), (50, 0, 20, 50)])
def test_no_box_or_one_elsewhere(given):
    with pytest.raises(FaceError, match=r"7\.png: expected a face that Annotated sees") as info:
        Annotated().sequence(np.zeros((1, 120, 160), np.uint8), given, ["7.png"])
    found = "no box" if given is None else f"the box {given}, in a picture of 160 x 120 pixels"
    assert found in info.value.found


# Cascades

LAMP = """<?xml version="1.0"?>
<opencv_storage><cascade type_id="opencv-cascade-classifier">
<stageType>BOOST</stageType><featureType>LBP</featureType><height>24</height><width>24</width>
<stageParams><maxWeakCount>1</maxWeakCount></stageParams>
<featureParams><maxCatCount>256</maxCatCount></featureParams><stageNum>1</stageNum>
<stages><_><maxWeakCount>1</maxWeakCount><stageThreshold>0.5</stageThreshold><weakClassifiers>
<_><internalNodes>0 -1 0 1 0 0 0 0 0 0 0</internalNodes><leafValues>1 -1</leafValues></_>
</weakClassifiers></_></stages><features><_><rect>0 0 8 8</rect></_></features></cascade></opencv_storage>
"""
"""A cascade of one local binary pattern over 3 x 3 cells: a window whose middle cell is brighter than all others."""


@pytest.fixture
def lamp(tmp_path):
    (tmp_path / "lamp.xml").write_text(LAMP)
    return tmp_path / "lamp.xml"


@pytest.mark.parametrize("middle", [(60, 50), (100, 60), (80, 70)])
@pytest.mark.parametrize("side", [16, 30])
def test_cascade(lamp, middle, side):
    x, y = middle
    face = Cascade(lamp).find(square((x - side // 2, y - side // 2, x + side // 2, y + side // 2)))
    x0, y0, x1, y1 = box(face)
    assert face.eyes is None and face.mask[y0:y1, x0:x1].all()  # a filled box
    assert x1 - x0 == y1 - y0 and side < x1 - x0 < 5 * side
    assert abs((x0 + x1) / 2 - x) <= 1.5 and abs((y0 + y1) / 2 - y) <= 1.5


def test_the_largest_detection_counts(lamp):
    lamps = [(20, 20, 36, 36), (180, 60, 260, 140), (300, 150, 316, 166)]
    x0, y0, x1, y1 = box(Cascade(lamp).find(square(*lamps, shape=(240, 360))))
    assert abs((x0 + x1) / 2 - 220) < 10 and abs((y0 + y1) / 2 - 100) < 10


def test_the_smallest_face_looked_for(lamp):
    picture = square((60, 50, 76, 66))
    assert box(Cascade(lamp, smallest=0.3).find(picture)) != box(Cascade(lamp, smallest=0.01).find(picture))
    assert Cascade(lamp, smallest=0.9).find(square((5, 5, 21, 21))) is None


def test_neighbours(lamp):
    picture = square((52, 42, 68, 58))
    with pytest.raises(FaceError, match=r"expected a face that Cascade \(lamp\.xml\) sees") as info:
        Cascade(lamp, neighbours=10_000).sequence(picture[None], None, ["7.png"])
    count = int(info.value.found.split("at most ")[1].split()[0])
    assert count > 10 and Cascade(lamp, neighbours=count).find(picture)
    assert Cascade(lamp, neighbours=count + 1).find(picture) is None
    assert "at most 0 neighbours" in Cascade(lamp).saw(np.zeros_like(picture))
    assert Cascade(lamp, scale_factor=1.5, neighbours=count // 2).find(picture) is None  # looks for fewer sizes


def test_a_cascade_is_the_same_whatever_came_before(lamp, speckle):
    pictures = [speckle(120, 160, seed=seed) for seed in range(4)]
    alone = [Cascade(lamp).find(picture) for picture in pictures]
    again = [Cascade(lamp).find(picture) for picture in reversed(pictures)][::-1]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        single = [Cascade(lamp).find(picture) for picture in pictures]
    finally:
        cv2.setNumThreads(threads)
    for one, other, third in zip(alone, again, single, strict=True):
        assert np.array_equal(one.mask, other.mask) and np.array_equal(one.mask, third.mask)


def test_a_picture_smaller_than_the_cascade(lamp):
    assert Cascade(lamp).find(np.zeros((20, 20), np.uint8)) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no cascade", b"\xff\xfe\x00", b"<?xml version='1.0'?><opencv_storage></opencv_storage>", b"%YAML:1.0\na: 1"]
    + [LAMP[:length].encode() for length in range(40, len(LAMP) - 20, 80)]
    + [LAMP.replace("LBP", "XYZ").encode(), LAMP.replace("featureParams", "others").encode()],
)
def test_no_cascade(tmp_path, content):
    (tmp_path / "model.xml").write_bytes(content)
    with pytest.raises(SettingError, match=r"^`model` of `face` in data\.preprocess\.views.*model\.xml"):
        Cascade(tmp_path / "model.xml").find(square((50, 50, 70, 70)))


def test_scikit_image_spells_a_tag_wrong(lamp):
    picture = square((52, 42, 68, 58))
    expected = box(Cascade(lamp).find(picture))
    lamp.write_text(LAMP.replace("featureParams", "featuhreParams"))
    assert box(Cascade(lamp).find(picture)) == expected


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(
        InstallationError, match=r"Cascade: expected lbpcascade_frontalface.*pip install 'mer4d\[faces\]"
    ):
        Cascade().find(square((50, 50, 70, 70)))


@pytest.mark.parametrize("settings", [{"scale_factor": 1.0}, {"neighbours": 0}, {"smallest": 0.0}, {"smallest": 1.1}])
def test_impossible_cascades(settings):
    with pytest.raises(SettingError, match=r"^`face` in data\.preprocess\.views"):
        Cascade(**settings)


@pytest.fixture(scope="module", params=["embedded", "scanned"])
def portrait(request):
    """Synthetic face from the front with room around it, (H, W) uint8, and where its eyes and mouth are (3, 2)."""
    if request.param == "scanned" and not SCANNED.is_file():
        pytest.skip(f"no face model {SCANNED}")
    face = built_in_face() if request.param == "embedded" else read_face_model(SCANNED)
    average = np.zeros(len(face.identities))
    texture = grey_levels(Image.fromarray(paint(face, average, np.random.default_rng(0)))).astype(np.float32)
    vertices = face.neutral(average)[face.triangles.ravel()]
    triangles = np.arange(len(vertices)).reshape(-1, 3)
    mesh = Mesh(vertices, triangles, face.uv[face.uv_triangles].reshape(-1, 2), texture)
    (camera,) = frame_cameras(mesh, yaws=(0.0,), distance=5.0, resolution=200)
    picture = capture(mesh, [cast_rays(camera, per_pixel=1)])[0][0]
    places = camera.project(np.stack([*face.eyes, face.lips.mean(axis=(0, 1))]))
    return cv2.copyMakeBorder(picture, 60, 20, 90, 30, cv2.BORDER_CONSTANT, value=30), np.add(places, (90, 60))


@pytest.mark.skipif(
    faces.find_spec("skimage") is None, reason="scikit-image, which ships the cascade, is not installed"
)
def test_the_cascade_of_scikit_image_finds_faces(portrait):
    picture, places = portrait
    x0, y0, x1, y1 = box(Cascade().find(picture))
    assert ((places > (x0, y0)) & (places < (x1 - 1, y1 - 1))).all()
    left, right, mouth = places
    assert 1.5 < (x1 - x0) / abs(left[0] - right[0]) < 4  # about as wide as a face is
    assert abs((x0 + x1) / 2 - mouth[0]) < 0.15 * (x1 - x0)
    assert "skimage" not in sys.modules


# YuNet. No such network is at hand, so one with its inputs and outputs is written: to it a cell of 32 x 32 pixels and
# grey level m is a face with score 4 m / 255 - 2.5, limited to 0..1, and the brighter it is, the larger.

SIDE, EYES = 48, np.array([[-0.2, -0.1], [0.2, 0.1]])
"""Height of the face in a white cell, and where its eyes are from its middle, as shares of that."""


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number, value):
    """A field of a protocol buffer: integer, text, or the bytes of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name, array):
    sizes = b"".join(field(1, size) for size in array.shape)
    return sizes + field(2, 1) + field(8, name) + field(9, array.astype("<f4").tobytes())


def node(kind, inputs, output, **attributes):
    lists = [
        field(1, name) + b"".join(field(8, one) for one in values) + field(20, 7) for name, values in attributes.items()
    ]
    named = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
    return named + b"".join(field(5, one) for one in lists)


def value(name, shape):
    sizes = b"".join(field(1, field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def yunet(*shape, side=SIDE):
    """ONNX file (onnx.proto3 of ONNX 1.16) of a network for pictures of this height and width."""
    graph = b""
    for stride in (8, 16, 32):
        for part, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            weights, bias = np.zeros((channels, 3, stride, stride)), np.zeros(channels)
            if stride == 32:
                mean = np.full((3, stride, stride), 1 / (3 * stride**2))
                if part == "bbox":
                    weights[2:], bias[:] = 0.02 * mean, [0.5, 0.5, *2 * [np.log(side / stride) - 0.02 * 255]]
                elif part == "kps":
                    bias[:4] = (EYES * SIDE / stride + 0.5).ravel()
                else:
                    weights[:], bias[:] = 4 / 255 * mean, -2.5
            name = f"{part}_{stride}"
            sizes = dict(kernel_shape=[stride, stride], strides=[stride, stride])
            graph += field(1, node("Conv", ["input", f"{name}_weights", f"{name}_bias"], f"{name}_planes", **sizes))
            graph += field(1, node("Transpose", [f"{name}_planes"], name, perm=[0, 2, 3, 1]))
            graph += field(5, tensor(f"{name}_weights", weights)) + field(5, tensor(f"{name}_bias", bias))
            cells = [side if isinstance(side, str) else side // stride for side in shape]
            graph += field(12, value(name, [1, *cells, channels]))
    graph += field(2, "yunet") + field(11, value("input", [1, 3, *shape]))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


NETWORK = yunet(640, 640)


@pytest.fixture(params=["as of 2023", "of any size"])
def network(tmp_path, request):
    path = tmp_path / "yunet.onnx"
    path.write_bytes(NETWORK if request.param == "as of 2023" else yunet("height", "width"))
    return path


def cell(column, row, times=1):
    return tuple(32 * times * side for side in (column, row, column + 1, row + 1))


@pytest.mark.parametrize(
    ("shape", "settings", "times"),
    [
        ((200, 300), {}, 1),
        ((320, 320), {}, 1),
        ((400, 640), {}, 2),
        ((640, 400), {}, 2),
        ((960, 1280), {}, 4),
        ((400, 640), {"resolution": 640}, 1),
        ((400, 640), {"resolution": 160}, 4),
    ],
)
def test_yunet(network, shape, settings, times):
    face = YuNet(network, **settings).find(square(cell(2, 1, times), shape=shape, grey=255))
    middle, side = times * np.array([2.5, 1.5]) * 32, times * SIDE
    assert box(face) == [*(middle - side / 2).astype(int), *(middle + side / 2).astype(int)]
    assert face.mask.sum() == side**2
    assert face.eyes == pytest.approx(middle + EYES * side, abs=1e-3) and face.eyes.dtype == np.float64


def test_yunet_beyond_the_edge(network):
    assert box(YuNet(network).find(square(cell(0, 0), grey=255))) == [0, 0, 40, 40]


def test_yunet_takes_the_largest(network):
    dim, bright = (square(cell(*place), shape=(320, 320), grey=grey) for place, grey in (((4, 5), 235), ((6, 5), 255)))
    assert box(YuNet(network).find(dim)) == pytest.approx([144 - 16, 176 - 16, 144 + 16, 176 + 16], abs=1)
    for picture in (dim + bright, dim + bright[::-1, ::-1]):
        assert box(YuNet(network).find(picture)) == box(YuNet(network).find(picture * (picture == 255)))


def test_threshold(network):
    picture = square(cell(2, 1), shape=(200, 300), grey=200)  # score 0.64
    assert YuNet(network, threshold=0.62).find(picture)
    with pytest.raises(FaceError, match=r"expected a face that YuNet \(yunet\.onnx\) sees") as info:
        YuNet(network, threshold=0.66).sequence(np.stack([picture] * 3), None, ["7.png", "8.png", "9.png"])
    assert "0 of 3" in info.value.found and "best score of 0.64, below 0.66" in info.value.found
    assert "best score of 0.00, below 0.9" in YuNet(network).saw(np.zeros((64, 64), np.uint8))


def test_yunet_of_a_sequence(network):
    shown = [cell(2, 1), cell(2, 1), None, cell(2, 1), cell(7, 4)]
    images = np.stack([square(*[one] if one else [], shape=(200, 300), grey=255) for one in shown])
    images[2, -1, -1] = 9  # nobody is there, but the picture is one
    masks, eyes = YuNet(network).sequence(images, None, list("abcde"))
    assert mask_boxes(masks).tolist() == [[56, 24, 104, 72]] * 5
    assert np.isnan(eyes).all(axis=(1, 2)).tolist() == [False, False, True, False, True]
    again, _ = YuNet(network).sequence(images[::-1], None, list("edcba"))
    assert np.array_equal(again[::-1], masks)


def test_yunet_is_quiet(network, capfd):
    YuNet(network).find(square(cell(2, 1), grey=255))
    assert capfd.readouterr() == ("", "")
    if hasattr(cv2.utils, "logging"):  # OpenCV 5
        assert cv2.utils.logging.getLogLevel() != cv2.utils.logging.LOG_LEVEL_SILENT


@pytest.mark.filterwarnings("error")
def test_a_face_of_no_finite_size(tmp_path):
    (tmp_path / "odd.onnx").write_bytes(yunet(640, 640, side=np.inf))
    assert YuNet(tmp_path / "odd.onnx").find(square(cell(2, 1), grey=255)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no network",
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(500),
        NETWORK[:1000],
        NETWORK[:-1],
        NETWORK.replace(b"cls_8", b"loc_8"),
    ],
    ids=["empty", "text", "pointer of git-lfs", "zeros", "cut", "cut at the end", "other outputs"],
)
def test_no_network(tmp_path, content, capfd):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(
        SettingError, match=r"^`model` of `face` in data\.preprocess\.views: expected YuNet.*model\.onnx"
    ):
        YuNet(tmp_path / "model.onnx").find(square(cell(2, 1)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("finder", [Cascade, YuNet])
def test_a_missing_model(tmp_path, finder):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(SettingError, match=r"^`model` of `face` in data\.preprocess\.views: .* that can be read"):
            finder(path).find(square(cell(2, 1)))


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"threshold": 1}, {"resolution": 31}, {"resolution": 641}])
def test_impossible_networks(settings):
    with pytest.raises(SettingError, match=r"^`face` in data\.preprocess\.views"):
        YuNet(Path("yunet.onnx"), **settings)


def test_finders_travel_to_other_processes(lamp, network):
    picture = square(cell(2, 1), grey=255)
    for finder in (Foreground(), Whole(), Annotated(), Cascade(lamp), YuNet(network)):
        finder.find(picture, (0, 0, 9, 9))
        copy = pickle.loads(pickle.dumps(finder))
        assert copy == finder
        assert np.array_equal(copy.find(picture, (0, 0, 9, 9)).mask, finder.find(picture, (0, 0, 9, 9)).mask)
