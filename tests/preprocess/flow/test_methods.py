"""Every method: flow has the sign, the unit and the size of the motion that was made."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mer4d.errors import FrameError
from mer4d.preprocess import DIS, TVL1, Farneback

METHODS = {
    "exact": TVL1("exact"),
    "balanced": TVL1("balanced"),
    "fast": TVL1("fast"),
    "DIS medium": DIS("medium"),
    "DIS fast": DIS("fast"),
    "DIS ultrafast": DIS("ultrafast"),
    "DIS at full resolution": DIS("medium", finest_scale=0),
    "Farneback": Farneback(),
}


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def method(request):
    return request.param


@pytest.mark.parametrize(
    "shift", [(0, 0), (1, 0), (-2, 0), (0, 1), (0, -3), (2, -3), (0.5, 0), (0, -0.25), (1.5, -0.75), (-0.4, 0.3)]
)
def test_known_translation(method, waves, shift):
    flow = method(waves(), waves(*shift))
    assert flow.shape == (80, 80, 2) and flow.dtype == np.float32
    inner = flow[10:-10, 10:-10]
    assert np.median(inner, axis=(0, 1)) == pytest.approx(shift, abs=0.06)
    assert np.linalg.norm(inner - shift, axis=-1).mean() < 0.06


def test_a_point_at_x_is_found_at_x_plus_flow(method, speckle):
    """Both halves move apart: the sign belongs to the place in the first picture."""
    first = speckle(80, 160)
    second = np.hstack([np.roll(first[:, :80], -2, axis=1), np.roll(first[:, 80:], 2, axis=1)])
    u = method(first, second)[16:-16, :, 0]
    assert np.median(u[:, 16:64]) == pytest.approx(-2, abs=0.25)
    assert np.median(u[:, 96:144]) == pytest.approx(2, abs=0.25)


def test_mirrored_pictures_give_mirrored_flow(method, waves):
    flow = method(waves(), waves(1.5, -0.75))
    mirrored = method(waves()[:, ::-1], waves(1.5, -0.75)[:, ::-1])[:, ::-1] * (-1, 1)
    assert np.abs(mirrored - flow)[10:-10, 10:-10].mean() < 0.03


@pytest.mark.parametrize("level", [0, 128, 255])
def test_pictures_without_any_structure(method, level):
    flat = np.full((64, 64), level, np.uint8)
    assert not method(flat, flat).any()


def test_smallest_crop(method, waves):
    flow = method(waves(size=32), waves(1, 0, size=32))
    assert np.median(flow[8:-8, 8:-8], axis=(0, 1)) == pytest.approx((1, 0), abs=0.1)


def test_pairs_and_threads_give_the_bytes_of_a_serial_run(method, speckle):
    firsts = np.stack([speckle(48, 48, seed=seed) for seed in range(8)])
    seconds = np.stack([np.roll(picture, seed % 3 - 1, axis=1) for seed, picture in enumerate(firsts)])
    serial = [method(*pair).tobytes() for pair in zip(firsts, seconds, strict=True)]
    for threads in (1, 4):
        assert [flow.tobytes() for flow in method.pairs(firsts, seconds, threads)] == serial
    with ThreadPoolExecutor(4) as pool:  # whoever else calls one object from several threads
        assert [flow.tobytes() for flow in pool.map(method, firsts, seconds)] == serial


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16, bool])
def test_only_grey_levels_of_eight_bit(method, waves, kind):
    for pair in ((waves().astype(kind), waves()), (waves(), waves().astype(kind))):
        with pytest.raises(FrameError, match=f"expected uint8 grey levels, found .*{np.dtype(kind)}"):
            method(*pair)


def test_methods_travel_between_processes(method):
    assert pickle.loads(pickle.dumps(method)) == method
