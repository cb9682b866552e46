"""Flow has the sign, the unit and the size of the motion that was made."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mer4d.errors import FrameError, SettingError
from mer4d.preprocess.flow import TVL1, flow_channels


def waves(dx=0.0, dy=0.0, size=80):
    """A picture that is known between its pixels, moved by (dx, dy): (H, W) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(float)
    picture = np.zeros((size, size))
    for angle, length, phase in rng.uniform((0, 6, 0), (np.pi, 25, 2 * np.pi), (12, 3)):
        picture += np.sin(2 * np.pi * (np.cos(angle) * (x - dx) + np.sin(angle) * (y - dy)) / length + phase)
    return np.rint(128 + 25 * picture).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "shift", [(0, 0), (1, 0), (-2, 0), (0, 1), (0, -3), (2, -3), (0.5, 0), (0, -0.25), (1.5, -0.75), (-0.4, 0.3)]
)
def test_known_translation(shift):
    """Within 0.06 px; OpenCV's own default settings are off by 0.05 px at these subpixel shifts, too."""
    flow = TVL1()(waves(), waves(*shift))
    assert flow.shape == (80, 80, 2) and flow.dtype == np.float32
    inner = flow[10:-10, 10:-10]
    assert np.median(inner, axis=(0, 1)) == pytest.approx(shift, abs=0.06)
    assert np.linalg.norm(inner - shift, axis=-1).mean() < 0.06


def test_a_point_at_x_is_found_at_x_plus_flow(speckle):
    """Both halves move apart: the sign belongs to the place in the first picture."""
    first = speckle(80, 160)
    second = np.hstack([np.roll(first[:, :80], -2, axis=1), np.roll(first[:, 80:], 2, axis=1)])
    u = TVL1()(first, second)[16:-16, :, 0]
    assert np.median(u[:, 16:64]) == pytest.approx(-2, abs=0.1)
    assert np.median(u[:, 96:144]) == pytest.approx(2, abs=0.1)


def test_mirrored_pictures_give_mirrored_flow():
    flow = TVL1()(waves(), waves(1.5, -0.75))
    mirrored = TVL1()(waves()[:, ::-1], waves(1.5, -0.75)[:, ::-1])[:, ::-1] * (-1, 1)
    assert np.abs(mirrored - flow)[10:-10, 10:-10].mean() < 0.03


@pytest.mark.parametrize("level", [0, 128, 255])
def test_pictures_without_any_structure(level):
    flat = np.full((64, 64), level, np.uint8)
    assert not TVL1()(flat, flat).any()


def test_smallest_crop():
    flow = TVL1()(waves(size=32), waves(1, 0, size=32))
    assert np.median(flow[8:-8, 8:-8], axis=(0, 1)) == pytest.approx((1, 0), abs=0.1)


def test_threads_give_the_bytes_of_a_serial_run(speckle):
    measure = TVL1()
    pairs = [(speckle(seed=seed), np.roll(speckle(seed=seed), seed % 3 - 1, axis=1)) for seed in range(12)]
    serial = [measure(*pair).tobytes() for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: measure(*pair).tobytes(), pairs)) == serial


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16, bool])
def test_only_grey_levels_of_eight_bit(kind):
    for pair in ((waves().astype(kind), waves()), (waves(), waves().astype(kind))):
        with pytest.raises(FrameError, match=f"expected uint8 grey levels, found .*{np.dtype(kind)}"):
            TVL1()(*pair)


@pytest.mark.parametrize(
    "setting",
    [
        {"scales": 0},
        {"warps": 0},
        {"outer_iterations": 0},
        {"inner_iterations": -1},
        {"epsilon": 0.0},
        {"smoothness": -0.1},
        {"tightness": 0.0},
        {"scale_step": 1.0},
        {"scale_step": 0.0},
        {"median": 4},
        {"median": 0},
    ],
)
def test_impossible_settings(setting):
    with pytest.raises(SettingError, match=r"^data\.preprocess\.flow: ") as info:
        TVL1(**setting)
    ((name, value),) = setting.items()
    assert f"{name}={value}" in info.value.found


@pytest.mark.parametrize(
    ("setting", "value"),
    {
        **{"scales": 1, "scale_step": 0.8, "warps": 1, "outer_iterations": 1, "inner_iterations": 1},
        **{"epsilon": 0.5, "smoothness": 0.02, "tightness": 0.9, "median": 1},
    }.items(),
)
def test_every_setting_reaches_opencv(setting, value):
    pair = waves(), waves(2.5, 1.5)
    assert not np.array_equal(TVL1(**{setting: value})(*pair), TVL1()(*pair))


def test_opencv_without_contrib_is_named_with_the_remedy():
    program = "import cv2; del cv2.optflow; import mer4d.preprocess.flow"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "InstallationError: OpenCV: expected the contrib wheel" in done.stderr
    assert "pip install --force-reinstall opencv-contrib-python" in done.stderr


# Channels at the size of the network's input


def test_channels_are_means_over_area_in_pixels_of_the_crop():
    flow = np.random.default_rng(0).normal(0, 3, (96, 96, 2)).astype(np.float32)
    u, v, magnitude = flow_channels(flow, 24)
    means = flow.reshape(24, 4, 24, 4, 2).mean(axis=(1, 3))
    assert np.allclose(u, means[..., 0], atol=1e-5) and np.allclose(v, means[..., 1], atol=1e-5)
    assert np.array_equal(magnitude, np.hypot(u, v)) and magnitude.dtype == np.float32


@pytest.mark.parametrize("size", [8, 56, 96, 224])
def test_uniform_flow_keeps_its_values_at_any_size(size):
    flow = np.full((96, 96, 2), (3.0, -4.0), np.float32)
    channels = flow_channels(flow, size)
    assert channels.shape == (3, size, size)
    assert np.allclose(channels, np.array([3, -4, 5])[:, None, None], atol=1e-5)


def test_magnitude_agrees_with_u_and_v_after_the_resize():
    """Motion that cancels out has no magnitude; the mean of the magnitudes would be 2."""
    flow = np.zeros((8, 8, 2), np.float32)
    flow[:, ::2, 0], flow[:, 1::2, 0] = 2, -2
    assert not flow_channels(flow, 4).any()


def test_a_place_stays_where_it_is():
    flow = np.zeros((96, 96, 2), np.float32)
    flow[24:28, 72:76, 1] = 1
    v = flow_channels(flow, 24)[1]
    assert v[6, 18] == pytest.approx(1) and v.sum() == pytest.approx(1)
