"""An array of flow is taken as it is, or an error says what is wrong with it."""

import io

import numpy as np
import pytest

from mer4d.errors import FrameError
from mer4d.preprocess.ready_flow import read_flow


def make_flow(shape=(2, 2, 10, 12), scale=1.0):
    """(V, P, 3, H, W) float64."""
    u, v = np.random.default_rng(0).normal(scale=scale, size=(2, *shape))
    return np.stack([u, v, np.hypot(u, v)], axis=2)


def saved(path, array, **settings):
    np.save(path, array, **settings)
    return path


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 10, 12), (5, 3, 7, 4)])
def test_any_precision_and_shape(tmp_path, kind, shape):
    flow = make_flow(shape).astype(kind)
    found = read_flow(saved(tmp_path / "a.npy", flow))
    assert found.dtype == np.float32 and found.dtype.isnative and found.shape == flow.shape
    assert np.array_equal(found, flow.astype(np.float32)) and type(found) is np.ndarray and found.flags.writeable


def test_any_order_in_memory(tmp_path):
    flow = make_flow()
    found = read_flow(saved(tmp_path / "a.npy", np.asfortranarray(flow)))
    assert np.array_equal(found, flow.astype(np.float32)) and found.flags.c_contiguous


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 300.0])
def test_magnitude_may_be_rounded(tmp_path, scale):
    flow = make_flow(scale=scale).astype(np.float16)
    assert np.array_equal(read_flow(saved(tmp_path / "a.npy", flow)), flow)


@pytest.mark.parametrize("wrong", ["squared", "zero", "negative", "swapped", "one pixel"])
def test_a_wrong_magnitude(tmp_path, wrong):
    flow = make_flow()
    if wrong == "swapped":
        flow = flow[:, :, [2, 0, 1]]
    elif wrong == "one pixel":
        flow[1, 0, 2, 3, 4] += 0.05
    else:
        flow[:, :, 2] = {"squared": flow[:, :, 2] ** 2, "zero": 0, "negative": -flow[:, :, 2]}[wrong]
    with pytest.raises(
        FrameError, match=r"a\.npy: expected channels u, v and magnitude = hypot\(u, v\), found "
    ) as info:
        read_flow(saved(tmp_path / "a.npy", flow))
    if wrong == "one pixel":
        u, v, magnitude = flow[1, 0, :, 3, 4].astype(np.float32)
        assert info.value.found == f"{magnitude:g} where u, v are {u:g}, {v:g}"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, value):
    flow = make_flow()
    flow[0, 1, 2, 3, 4] = value
    with pytest.raises(FrameError, match=r"a\.npy: expected finite numbers"):
        read_flow(saved(tmp_path / "a.npy", flow))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2, 8, 8), np.float32),
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((2, 2, 8, 8, 3), np.float32),
        np.zeros((1, 2, 2, 3, 8, 8), np.float32),
        np.zeros((2, 2, 3, 8, 8), np.uint8),
        np.zeros((2, 2, 3, 8, 8), np.complex64),
        np.zeros((2, 2, 3, 8, 8), np.longdouble),
        np.float32(3),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_another_shape_or_kind(tmp_path, array):
    with pytest.raises(FrameError, match=r"a\.npy: expected \(V, P, C=3, H, W\) in float16") as info:
        read_flow(saved(tmp_path / "a.npy", array))
    assert info.value.found == f"{array.shape} in {array.dtype}"


def test_empty_axes(tmp_path):
    for shape in ((0, 2, 3, 8, 8), (2, 2, 3, 0, 8)):
        with pytest.raises(FrameError, match=r"a\.npy: expected "):
            read_flow(saved(tmp_path / "a.npy", np.zeros(shape, np.float32)))


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(tmp_path):
    with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
        read_flow(saved(tmp_path / "a.npy", np.array([Trap()]), allow_pickle=True))


def test_archives_and_other_files(tmp_path):
    path = tmp_path / "a.npy"
    archive = io.BytesIO()
    np.savez(archive, flow=make_flow())
    path.write_bytes(archive.getvalue())
    with pytest.raises(FrameError, match=r"a\.npy: expected one array .*, found an archive of arrays"):
        read_flow(path)
    for content in (b"", b"\x00" * 999, b"u,v,magnitude\n1,2,3\n"):
        path.write_bytes(content)
        with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
            read_flow(path)
    path.unlink()
    with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
        read_flow(path)


def test_every_truncation_is_noticed(tmp_path):
    path = saved(tmp_path / "a.npy", make_flow())
    content = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(content), 331), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
            read_flow(path)


def test_a_header_that_asks_for_all_memory(tmp_path):
    path = saved(tmp_path / "a.npy", make_flow())
    for shape in (b"(2, 9, 3, 99, 99)", b"(9, 9, 3, 9999999", b"(-1, 2, 3, 10, 1)"):
        path.write_bytes(path.read_bytes().replace(b"(2, 2, 3, 10, 12)", shape))
        with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
            read_flow(path)
        saved(path, make_flow())
    path = saved(path, np.zeros((2, 2, 3, 100, 120)))
    path.write_bytes(path.read_bytes().replace(b"(2, 2, 3, 100, 120)", b"(99999999999, 3, 9)"))
    with pytest.raises(FrameError, match=r"a\.npy: expected an array saved by numpy\.save"):
        read_flow(path)
