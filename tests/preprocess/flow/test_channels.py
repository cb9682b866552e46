"""Channels at the size of the network's input."""

import numpy as np
import pytest

from mer4d.preprocess.flow import flow_channels


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
