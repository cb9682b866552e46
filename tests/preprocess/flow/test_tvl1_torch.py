"""The torch backend of TV-L1, against OpenCV and against itself in other company."""

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from mer4d.errors import FrameError, SettingError
from mer4d.preprocess import TVL1
from mer4d.preprocess.flow import tvl1_torch
from mer4d.preprocess.flow.tvl1 import PRESETS

ROUNDS_POSITIONS = int(cv2.__version__.split(".")[0]) < 5
"""OpenCV 4 warps to 1/32 px; what follows from that is not this backend's."""

TOLERANCE = 0.06 if ROUNDS_POSITIONS else 0.001


def make_pair(height=64, width=64, shift=(1.0, -0.5), noise=1.0, seed=0):
    """Speckle whose right half moves by `shift` and whose left half moves by its opposite: two (H, W) uint8."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.5)
    texture = 128 + 35 * texture / texture.std()
    y, x = np.mgrid[:height, :width].astype(float)
    course = np.tanh((x - width / 2) / (width / 8))
    second = map_coordinates(texture, [y - shift[1] * course, x - shift[0] * course], order=3, mode="nearest")
    pictures = np.stack([texture, second]) + noise * rng.standard_normal((2, height, width))
    return np.rint(pictures).clip(0, 255).astype(np.uint8)


def make_pairs(count, height=64, width=64):
    """Pairs that stop at different iterations: two (N, H, W) uint8."""
    motions = [(0.3 * pair, 0.4 - 0.2 * pair) for pair in range(count)]
    pairs = [make_pair(height, width, motion, 0.5 * seed, seed) for seed, motion in enumerate(motions)]
    return np.stack(pairs, axis=1)


def solve(firsts, seconds, preset="balanced", **settings):
    return tvl1_torch.solve(firsts, seconds, TVL1(preset, **settings).parameters, "cpu")


def both(pair, preset="balanced", **settings):
    """Flow of both backends."""
    return [TVL1(preset, backend, "cpu", **settings)(*pair) for backend in ("opencv", "torch")]


def difference(*flows):
    """Length of the difference, px, over the pixels."""
    return np.linalg.norm(np.subtract(*flows), axis=-1)


@pytest.fixture(autouse=True)
def set_threads():
    """One thread, unless a test asks for more: pictures here are too small for two to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("preset", ["balanced", "fast"])
@pytest.mark.parametrize(
    ("size", "shift"),
    [
        ((64, 64), (0.4, 0.2)),
        ((61, 75), (2.5, -1.5)),
        ((32, 32), (-1.0, 0.5)),
        ((40, 90), (0.0, 0.0)),
        ((3, 19), (1, 0)),
    ],
)
def test_agrees_with_opencv(preset, size, shift):
    off = difference(*both(make_pair(*size, shift), preset))
    assert off.mean() < TOLERANCE
    assert np.quantile(off, 0.999) < 50 * TOLERANCE


def test_agrees_with_opencv_where_everything_has_left_the_picture():
    pair = make_pair(seed=1)[0], make_pair(seed=2)[0]
    opencv, backend = both(pair, "fast")
    assert np.linalg.norm(opencv, axis=-1).max() > 10
    assert difference(opencv, backend).mean() < 10 * TOLERANCE


def test_exact_agrees_but_for_an_iteration():
    """Where rounding decides whether an iteration follows, five warps on five levels carry the difference on."""
    pair = make_pair()
    assert difference(*both(pair, "exact", outer_iterations=2)).mean() < 0.05
    assert difference(*both(pair, "exact", warps=1)).mean() < TOLERANCE


@pytest.mark.parametrize(
    "setting",
    [
        {"scales": 1},
        {"scale_step": 0.7},
        {"warps": 1},
        {"outer_iterations": 4},
        {"inner_iterations": 5},
        {"epsilon": 0.1},
        {"smoothness": 0.05},
        {"tightness": 0.1},
        {"median": 1},
        {"median": 3},
        {"presmoothing": 1.0},
    ],
    ids=str,
)
def test_every_setting_does_what_it_does_in_opencv(setting):
    pair = make_pair(shift=(3.0, 1.0), noise=4.0)
    opencv, backend = both(pair, **setting)
    assert difference(opencv, backend).mean() < TOLERANCE
    assert difference(backend, TVL1(backend="torch", device="cpu")(*pair)).mean() > 5 * 0.001


def test_the_settings_are_all_tried():
    """A setting that comes later must come into the test above as well."""
    tried = {name for mark in test_every_setting_does_what_it_does_in_opencv.pytestmark for name in _names(mark)}
    assert tried == set(asdict(PRESETS["exact"]))


def _names(mark):
    return {name for setting in mark.args[1] for name in setting}


def test_flat_and_identical_pictures_do_not_move():
    flat = np.full((64, 64), 90, np.uint8)
    moving, _ = make_pair()
    still, brighter, same = solve(np.stack([flat, flat, moving]), np.stack([flat, flat + 40, moving]))
    assert not still.any()
    assert not brighter.any()
    assert not same.any()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_pairs(count):
    flows = solve(*(pictures[:count] for pictures in make_pairs(3, 24, 32)))
    assert (flows.shape, flows.dtype) == ((count, 24, 32, 2), np.float32)


def test_the_same_bytes_in_any_company(monkeypatch):
    """Pairs stop by themselves: one that has stopped waits for the others of its batch without a change."""
    height, width = 40, 36
    pairs = make_pairs(8, height, width)
    flows = []
    for at_once in (1, 3, 8):
        monkeypatch.setattr(tvl1_torch, "CACHED_PIXELS", at_once * height * width)
        assert tvl1_torch.pairs_at_once(torch.device("cpu"), height, width) == at_once
        flows.append(solve(*pairs, warps=3))
    assert flows[0].tobytes() == flows[1].tobytes() == flows[2].tobytes()
    assert solve(*pairs[:, ::-1], warps=3)[::-1].tobytes() == flows[0].tobytes()


@pytest.mark.parametrize(("count", "side"), [(3, 112), (1, 192)])
def test_the_same_bytes_with_any_number_of_threads(count, side, set_threads, monkeypatch):
    """Pictures so large that torch shares out their pixels: it does from 32768 on."""
    monkeypatch.setattr(tvl1_torch, "CACHED_PIXELS", count * side * side)
    pairs, flows = make_pairs(count, side, side), []
    for number in (1, 2, 4):
        set_threads(number)
        flows.append(solve(*pairs, "fast", scales=1, outer_iterations=1, inner_iterations=3))
    assert flows[0].tobytes() == flows[1].tobytes() == flows[2].tobytes()


def test_pictures_of_either_type_and_any_layout():
    firsts, seconds = make_pairs(2)
    expected = solve(firsts, seconds)
    strided = [np.repeat(pictures, 2, axis=2)[..., ::2] for pictures in (firsts, seconds)]
    assert np.array_equal(solve(*strided), expected)
    floats = [(pictures / 255).astype(np.float32) for pictures in (firsts, seconds)]
    assert difference(solve(*floats), expected).max() < 0.01


def test_the_backend_of_the_setting():
    """Presmoothing is not the solver's: the setting sees to it."""
    pairs = make_pairs(3)
    chosen = TVL1(backend="torch", device="cpu", presmoothing=0.7)
    flows = chosen.pairs(*pairs, threads=2)
    assert np.array_equal(flows, [chosen(*pair) for pair in zip(*pairs, strict=True)])
    assert difference(flows, TVL1(presmoothing=0.7).pairs(*pairs)).mean() < TOLERANCE
    with pytest.raises(FrameError, match="uint8"):
        chosen.pairs(*(pairs / 255))


@pytest.mark.parametrize("name", ["mps", "gpu", "cuda:2", "cuda:-1", "", "meta"])
@pytest.mark.parametrize("gpus", [0, 2])
def test_a_device_that_is_not_there(name, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(SettingError, match=r"data\.preprocess\.flow\.device: expected one of auto, cpu"):
        tvl1_torch.find_device(name)


def test_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [tvl1_torch.find_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")]
    assert found == [torch.device(name) for name in ("cuda:0", "cpu", "cuda", "cuda:1")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert tvl1_torch.find_device("auto") == torch.device("cpu")
    with pytest.raises(SettingError):
        solve_on = TVL1(backend="torch", device="cuda")
        solve_on(*make_pair())


def test_a_gpu_takes_what_fits_into_half_of_its_memory(monkeypatch):
    pair = tvl1_torch.BYTES_PER_PIXEL * 100 * 200
    for free, count in ((20 * pair, 10), (21 * pair, 10), (pair // 2, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100 * free))
        assert tvl1_torch.pairs_at_once(torch.device("cuda"), 100, 200) == count


def test_all_tensors_are_where_the_pictures_are():
    """Tensors without content, on the device `meta`: one made elsewhere would be refused beside them."""
    pictures = torch.zeros(3, 33, 40, dtype=torch.uint8, device="meta")
    never_looks = replace(PRESETS["balanced"], scales=2, inner_iterations=2)
    assert never_looks.inner_iterations < tvl1_torch.ITERATIONS_PER_LOOK
    flows = tvl1_torch.solve_batch(pictures, pictures, never_looks)
    assert (flows.shape, flows.dtype, flows.device.type) == ((3, 33, 40, 2), torch.float32, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("preset", ["balanced", "fast"])
def test_a_gpu_agrees_with_the_cpu(preset):
    pairs, settings = make_pairs(8, 61, 75), PRESETS[preset]
    cpu, gpu = (tvl1_torch.solve(*pairs, settings, device) for device in ("cpu", "cuda"))
    assert difference(cpu, gpu).mean() < 0.001


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("size", [(3, 3), (4, 9), (20, 17)])
def test_median_is_opencvs(window, size):
    planes = np.random.default_rng(0).standard_normal((2, 2, *size)).astype(np.float32).round(1)
    expected = [[cv2.medianBlur(plane, window) for plane in pair] for pair in planes]
    assert np.array_equal(tvl1_torch.median_filter(torch.from_numpy(planes), window), expected)


@pytest.mark.parametrize("step", [0.8, 0.5, 0.7])
def test_resizing_is_opencvs(step):
    """Where the size is rounded up and down, there and back."""
    plane = np.random.default_rng(0).standard_normal((1, 31, 33)).astype(np.float32)
    small = cv2.resize(plane[0], None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
    shrunk = tvl1_torch.resize(torch.from_numpy(plane), *small.shape, ratio=1 / step)
    assert np.allclose(shrunk[0], small, atol=1e-6)
    grown = tvl1_torch.resize(shrunk, 31, 33)
    assert np.allclose(grown[0], cv2.resize(small, (33, 31), interpolation=cv2.INTER_LINEAR), atol=1e-6)


def test_warp_is_cubic_and_0_outside():
    """Against Keys' kernel (1981, doi 10.1109/TASSP.1981.1163711) with a = -0.75, tap by tap in float64."""
    rng = np.random.default_rng(0)
    height, width = 9, 12
    picture, flow = rng.random((height, width)), rng.normal(0, 4, (2, height, width))

    def kernel(distance):
        t = abs(distance)
        near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        return np.where(t <= 1, near, np.where(t < 2, far, 0))

    y, x = np.mgrid[:height, :width] + flow[::-1]
    across, down = kernel(x[..., None] - np.arange(width)), kernel(y[..., None] - np.arange(height))
    expected = np.einsum("yxi,ij,yxj->yx", down, picture, across)
    tensors = (torch.from_numpy(array).float() for array in (picture[None, None], flow[:, None]))
    assert np.allclose(tvl1_torch.warp(*tensors)[0, 0], expected, atol=1e-5)


def test_the_gradient_of_grey_levels_is_halved_at_an_edge():
    pictures = torch.rand(2, 5, 7)
    framed = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down, across = np.gradient(framed, axis=(1, 2))
    along_x, along_y = tvl1_torch.central_gradient(pictures)
    assert np.allclose(along_x, across[:, 1:-1, 1:-1])
    assert np.allclose(along_y, down[:, 1:-1, 1:-1])


def test_divergence_is_the_negative_adjoint_of_the_gradient():
    """Also between pictures, which lie next to each other in memory."""
    u, other = torch.rand(2, 3, 5, 4, dtype=torch.float64), torch.rand(2, 3, 5, 4, dtype=torch.float64)
    gradient, dual = torch.full((2, 2, *u.shape), torch.nan, dtype=torch.float64)
    tvl1_torch.forward_gradient(u, out=gradient)
    assert torch.equal(gradient[0], u.diff(dim=-1, append=u[..., -1:]))
    assert torch.equal(gradient[1], u.diff(dim=-2, append=u[..., -1:, :]))
    tvl1_torch.forward_gradient(other, out=dual)
    divergence = torch.full_like(u, torch.nan)
    tvl1_torch.divergence(dual, out=divergence)
    products = [(gradient * dual).sum(dim=(0, -2, -1)), -(u * divergence).sum(dim=(-2, -1))]
    assert torch.allclose(*products)
