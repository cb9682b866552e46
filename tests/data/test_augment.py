"""Augmentation against the flow of pictures that were themselves mirrored, shifted or stretched."""

import cv2
import numpy as np
import pytest
import torch

from mer4d.data.augment import FlowAugmentation, _moved, _moved_at_once, mirror
from mer4d.errors import SettingError

STILL = {"mirror": 0.0, "shift": 0, "scale": (1.0, 1.0), "noise": 0.0}


def batch(clips=6, views=2, size=12):
    uv = torch.randn(clips, views, 2, 2, size, size, generator=torch.Generator().manual_seed(7))
    return torch.cat([uv, torch.hypot(uv[..., :1, :, :], uv[..., 1:, :, :])], dim=-3)


def augmented(flow, seed=0, **settings):
    return FlowAugmentation(**STILL | settings)(flow, torch.Generator().manual_seed(seed))


def picture(rng, size=96):
    noise = cv2.GaussianBlur(rng.random((size, size), np.float32), (0, 0), 3)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def measured_flow(first, second):
    uv = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    return np.stack([uv[..., 0], uv[..., 1], np.hypot(uv[..., 0], uv[..., 1])])


def test_mirror_equals_the_flow_of_mirrored_pictures():
    rng = np.random.default_rng(0)
    pairs = []
    for dx, dy in ((1.5, -0.5), (-0.75, 1.0)):  # the two views move differently
        first = picture(rng)
        moved = cv2.warpAffine(first, np.float32([[1, 0, dx], [0, 1, dy]]), first.shape, borderMode=cv2.BORDER_REFLECT)
        pairs.append((first, moved))
    flow = np.stack([measured_flow(*pair) for pair in pairs])
    # Mirrored, the left camera shows what the right one showed, reversed.
    flipped = np.stack([measured_flow(*(np.ascontiguousarray(view[:, ::-1]) for view in pair)) for pair in pairs[::-1]])
    mirrored = mirror(torch.from_numpy(flow[:, None])).numpy()[:, 0]
    inner = np.s_[..., 8:-8, 8:-8]
    assert np.median(flow[0, 0]) > 1.3 and np.median(mirrored[1, 0]) < -1.3
    assert np.abs(mirrored - flipped)[inner].mean() < 0.05
    assert np.abs(flow - flipped)[inner].mean() > 0.5


@pytest.mark.parametrize("views", [1, 2, 3, 4])
def test_mirror_by_its_definition_and_twice_is_nothing(views):
    flow = batch(views=views)
    mirrored = mirror(flow)
    for view in range(views):
        source = flow[:, views - 1 - view].numpy()[..., ::-1]
        assert np.array_equal(mirrored[:, view, :, 0], -source[:, :, 0])
        assert np.array_equal(mirrored[:, view, :, 1:], source[:, :, 1:])
    assert torch.equal(mirror(mirrored), flow)
    assert torch.equal(flow, batch(views=views))  # the argument is left alone
    assert torch.equal(mirror(flow[0]), mirrored[0])


@pytest.mark.parametrize("views", [1, 2, 3])
def test_views_that_do_not_face_each_other_stay_where_they_are(views):
    flow = batch(views=views)
    each = torch.cat([mirror(view) for view in flow.split(1, dim=1)], dim=1)
    assert torch.equal(mirror(flow, swap_views=False), each)
    assert torch.equal(augmented(flow, mirror=1.0, swap_views=False), each)
    assert torch.equal(augmented(flow, mirror=1.0), each) == (views == 1)


def test_clips_are_mirrored_one_by_one():
    flow = batch(clips=200)
    result = augmented(flow, mirror=0.3)
    flipped = [torch.equal(new, mirror(old)) for new, old in zip(result, flow, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(result, flow, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True)) and 35 <= sum(flipped) <= 85
    assert torch.equal(augmented(flow, mirror=1.0), mirror(flow))


def test_shift_moves_whole_clips_by_whole_pixels_and_fills_with_zero():
    flow, seen = batch(clips=300, size=6), set()
    for new, old in zip(augmented(flow, shift=2), flow, strict=True):
        matches = []
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                expected = torch.zeros_like(old)
                rows, columns = slice(max(dy, 0), 6 + min(dy, 0)), slice(max(dx, 0), 6 + min(dx, 0))
                expected[..., rows, columns] = old.roll((dy, dx), (-2, -1))[..., rows, columns]
                matches += [(dy, dx)] if torch.equal(new, expected) else []
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) == 25


def test_scale_stretches_a_clip_by_one_factor():
    flow = batch(clips=100)
    factors = augmented(flow, scale=(0.5, 2.0)) / flow
    each = factors.flatten(1)
    torch.testing.assert_close(each.amin(1), each.amax(1))
    assert each.min() >= 0.49 and each.max() <= 2.01 and each[:, 0].std() > 0.3


def test_noise_has_its_strength_and_magnitude_stays_true():
    flow = batch(clips=40)
    result = augmented(flow, mirror=0.5, shift=2, scale=(0.8, 1.2), noise=0.3)
    torch.testing.assert_close(result[..., 2, :, :], torch.hypot(result[..., 0, :, :], result[..., 1, :, :]))
    added = (augmented(flow, noise=0.3) - flow)[..., :2, :, :]
    assert abs(added.std() - 0.3) < 0.01 and abs(added.mean()) < 0.01
    calm = augmented(flow, mirror=0.5, shift=2, scale=(0.8, 1.2))
    torch.testing.assert_close(calm[..., 2, :, :], torch.hypot(calm[..., 0, :, :], calm[..., 1, :, :]))


def test_the_generator_decides_and_the_batch_is_left_alone():
    flow = batch()
    settings = {"mirror": 0.5, "shift": 2, "scale": (0.8, 1.2), "noise": 0.1}
    torch.manual_seed(1)
    first = augmented(flow, seed=3, **settings)
    torch.manual_seed(2)
    assert torch.equal(augmented(flow, seed=3, **settings), first)
    assert not torch.equal(augmented(flow, seed=4, **settings), first)
    assert torch.equal(flow, batch()) and first.shape == flow.shape and first.dtype == flow.dtype
    still = augmented(flow)
    assert torch.equal(still, flow) and still.data_ptr() != flow.data_ptr()


@pytest.mark.parametrize(
    "settings", [{"mirror": 1.5}, {"shift": -1}, {"scale": (1.2, 0.8)}, {"scale": (0.0, 1.0)}, {"noise": -0.1}]
)
def test_impossible_settings_are_named(settings):
    (name,) = settings
    with pytest.raises(SettingError, match=f"augmentation `{name}`"):
        FlowAugmentation(**settings)


@pytest.mark.parametrize("swap_views", [True, False])
@pytest.mark.parametrize(("views", "size", "shift"), [(2, 12, 2), (1, 9, 3), (3, 5, 7)])
def test_a_gpu_moves_flow_as_a_cpu_does(views, size, shift, swap_views):
    flow = batch(clips=40, views=views, size=size)
    variation = FlowAugmentation(shift=shift).draw(flow, torch.Generator().manual_seed(1))
    assert torch.equal(_moved_at_once(flow, variation, swap_views), _moved(flow, variation, swap_views))
