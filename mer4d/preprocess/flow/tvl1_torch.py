"""TV-L1 optical flow of many pairs at once, on a CPU or a GPU; the algorithm is that of OpenCV's DualTVL1OpticalFlow.

Sources: Zach, Pock, Bischof 2007 (doi 10.1007/978-3-540-74936-3_22) and Sanchez, Meinhardt-Llopis, Facciolo 2013 (doi
10.5201/ipol.2013.26), with what OpenCV adds: a median filter before every outer iteration, a cubic warp with 0 outside
the picture, and a pyramid that is sampled linearly, without a filter before.

The mean difference from OpenCV 5 is far below 0.001 px with the presets balanced and fast. With exact it is up to 0.01
px on faces, because rounding decides whether one more iteration follows, and every warp takes the difference along: a
change of the pictures by 0.001 grey levels moves OpenCV's own flow as far. OpenCV 4 rounds the positions that it warps
from to 1/32 px, which moves its flow by up to 0.04 px from that of OpenCV 5.

A pair's flow depends neither on the pairs beside it nor, on a CPU, on the number of threads. Every pair stops by
itself, and no arithmetic multiplies and adds in one operation, which a processor may round once or twice.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from mer4d.errors import SettingError

TIME_STEP = 0.25
"""Of the dual variable's descent, OpenCV's tau; larger ones need not converge."""

SMALLEST_LEVEL = 16
"""Pixels; the pyramid ends before a level whose height or width is less."""

BYTES_PER_PIXEL = 500
"""Most memory that a pixel of a pair takes, measured with the preset exact; the median filter has the largest share."""

CACHED_PIXELS = 2**16
"""Pixels that a CPU works on at once; with more, memory slows it down, with fewer, calling the operations does."""

ITERATIONS_PER_LOOK = 10
"""Of a GPU, to see whether all pairs have stopped: to look is to wait for it."""


class Settings(Protocol):
    """The numbers of the algorithm, which `mer4d.preprocess.TVL1` describes."""

    scales: int
    scale_step: float
    warps: int
    outer_iterations: int
    inner_iterations: int
    epsilon: float
    smoothness: float
    tightness: float
    median: int


def solve(firsts: np.ndarray, seconds: np.ndarray, settings: Settings, device: str = "auto") -> np.ndarray:
    """Flow of pairs of equal size.

    Args:
        firsts: (N, H, W) uint8, or float32 within 0..1.
        seconds: (N, H, W), likewise.
        settings: Numbers of the algorithm.
        device: Where to compute, see `find_device`.

    Returns:
        (N, H, W, 2) float32, pixels, +x right, +y down.

    Raises:
        SettingError: There is no such device.
    """
    place = find_device(device)
    flows = np.empty((*firsts.shape, 2), np.float32)
    at_once = pairs_at_once(place, *firsts.shape[1:])
    for start in range(0, len(firsts), at_once):
        batch = slice(start, start + at_once)
        pictures = (torch.from_numpy(np.ascontiguousarray(frames[batch])).to(place) for frames in (firsts, seconds))
        flows[batch] = solve_batch(*pictures, settings).cpu().numpy()
    return flows


def find_device(name: str) -> torch.device:
    """The device that a setting names; `auto` is a GPU with CUDA where torch sees one, else the CPU.

    Raises:
        SettingError: It is neither the CPU nor a GPU of this machine.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    named = ["cpu", "cuda", *gpus] if gpus else ["cpu"]
    if name not in ("auto", *named):
        expected = f"one of auto, {', '.join(named)}"
        raise SettingError("data.preprocess.flow.device", expected, name, "name a device that torch sees here")
    return torch.device((gpus or ["cpu"])[0] if name == "auto" else name)


def pairs_at_once(device: torch.device, height: int, width: int) -> int:
    """How many pairs are solved together: what a CPU's caches hold, or half of a GPU's free memory."""
    if device.type == "cpu":
        return max(1, CACHED_PIXELS // (height * width))
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, free // (2 * BYTES_PER_PIXEL * height * width))


@torch.inference_mode()
def solve_batch(firsts: Tensor, seconds: Tensor, settings: Settings) -> Tensor:
    """Flow of pairs together, on the device that they are on.

    Args:
        firsts: (N, H, W) uint8, or float32 within 0..1.
        seconds: (N, H, W), likewise.
        settings: Numbers of the algorithm.

    Returns:
        (N, H, W, 2) float32, pixels.
    """
    pictures = torch.stack([firsts, seconds])
    levels = [pictures * 255 if pictures.is_floating_point() else pictures.float()]
    for _ in range(1, settings.scales):
        smaller = [round(side * settings.scale_step) for side in levels[-1].shape[-2:]]
        if min(smaller) < SMALLEST_LEVEL:
            break
        levels.append(resize(levels[-1], *smaller, ratio=1 / settings.scale_step))
    flow = refine(torch.zeros_like(levels[-1]), *levels[-1], settings)
    for level in reversed(levels[:-1]):
        flow = refine(resize(flow, *level.shape[-2:]) / settings.scale_step, *level, settings)
    return flow.movedim(0, -1)


def refine(flow: Tensor, first: Tensor, second: Tensor, settings: Settings) -> Tensor:
    """One level of the pyramid.

    Args:
        flow: (2, N, H, W), where to start, pixels.
        first: (N, H, W).
        second: (N, H, W).
        settings: Numbers of the algorithm.

    Returns:
        (2, N, H, W), pixels.
    """
    # In units of theta / tau, the gradient of the flow is the dual variable's step, and nothing multiplies by it.
    unit = settings.tightness / TIME_STEP
    textures = torch.stack([second, *central_gradient(second)], dim=1)
    u = flow / unit
    dual = u.new_zeros(2, *u.shape)
    for _ in range(settings.warps):
        moved, *gradient = warp(textures, u * unit).unbind(1)
        gradient = torch.stack(gradient)
        square = gradient.square().sum(0).clamp_min_(torch.finfo(gradient.dtype).eps)
        slope = gradient / square * unit
        offset = (moved - first) / square - (slope * u).sum(0)
        descend(u, dual, slope, offset, gradient / settings.tightness, settings)
    return u * unit


def descend(u: Tensor, dual: Tensor, slope: Tensor, offset: Tensor, push: Tensor, settings: Settings) -> None:
    """Iterates between two warps; changes `u` and `dual` in place.

    A pair has arrived once an iteration changes its flow by epsilon pixels or less, in the root of the mean square.
    From then on its change and its gradient are multiplied by 0, which leaves it as it is to the last bit.

    Args:
        u: (2, N, H, W), the flow over its unit.
        dual: (2, 2, N, H, W), the dual variable of u and of v: along x, along y.
        slope: (2, N, H, W), of the residual in u. The residual is the difference of grey levels over the square of
            their gradient.
        offset: (N, H, W), the residual where u is 0.
        push: (2, N, H, W), by how much a residual of 1 moves u, over the time step.
        settings: Numbers of the algorithm.
    """
    bound = settings.smoothness * settings.tightness
    limit = (settings.epsilon * TIME_STEP / settings.tightness) ** 2 * offset[0].numel()
    iterations_per_look = 1 if u.device.type == "cpu" else ITERATIONS_PER_LOOK
    moving = u.new_ones(u.shape[1], 1, 1)
    change, vectors, residual = torch.empty_like(u), torch.empty_like(u), torch.empty_like(offset)
    gradient, squares = torch.empty_like(dual), torch.empty_like(dual)
    for _ in range(settings.outer_iterations):
        if settings.median > 1:
            u.copy_(torch.where(moving > 0, median_filter(u, settings.median), u))
        for iteration in range(1, settings.inner_iterations + 1):
            torch.mul(slope, u, out=vectors)
            torch.add(*vectors, out=residual).add_(offset).clamp_(-bound, bound)
            torch.mul(push, residual, out=vectors)
            divergence(dual, out=change)
            change.sub_(vectors).mul_(moving * TIME_STEP)
            u.add_(change)
            forward_gradient(u, out=gradient)
            gradient.mul_(moving)
            torch.mul(gradient, gradient, out=squares)
            norm = torch.add(*squares, out=squares[0]).sqrt_().add_(1)
            dual.add_(gradient).div_(norm)
            torch.mul(change, change, out=vectors)
            # Row by row: threads share the sum over a whole picture, which changes its rounding.
            error = torch.add(*vectors, out=residual).sum(-1).sum(-1)
            moving = (error > limit).to(u.dtype)[:, None, None]
            if iteration % iterations_per_look == 0 and not moving.any():
                return


def divergence(vectors: Tensor, out: Tensor) -> None:
    """Backward differences, the negative adjoint of `forward_gradient`.

    What lies before a picture's edge in memory is the last column or row of another one, where `vectors`, being a sum
    of forward gradients, is 0: so memory is walked through in one piece, which takes half the time.

    Args:
        vectors: (2, ..., H, W), contiguous.
        out: (..., H, W), contiguous.
    """
    torch.add(*vectors, out=out)
    (along_x, along_y), flat, width = vectors.view(2, -1), out.view(-1), out.shape[-1]
    flat[1:].sub_(along_x[:-1])
    flat[width:].sub_(along_y[:-width])


def forward_gradient(planes: Tensor, out: Tensor) -> None:
    """Differences to the right and to the lower neighbour, 0 where there is none.

    Args:
        planes: (..., H, W), contiguous.
        out: (2, ..., H, W), contiguous.
    """
    (along_x, along_y), flat, width = out.view(2, -1), planes.view(-1), planes.shape[-1]
    torch.sub(flat[1:], flat[:-1], out=along_x[:-1])
    torch.sub(flat[width:], flat[:-width], out=along_y[:-width])
    out[0, ..., -1] = 0
    out[1, ..., -1, :] = 0


def central_gradient(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference of the neighbours to the right and left, below and above; at an edge, to the pixel itself.

    Args:
        pictures: (N, H, W).

    Returns:
        Two of (N, H, W).
    """
    framed = pad(pictures, (1, 1, 1, 1), mode="replicate")
    along_x = framed[:, 1:-1, 2:] - framed[:, 1:-1, :-2]
    along_y = framed[:, 2:, 1:-1] - framed[:, :-2, 1:-1]
    return along_x / 2, along_y / 2


def warp(pictures: Tensor, flow: Tensor) -> Tensor:
    """Grey levels at x + flow(x), interpolated with cubic splines (a = -0.75); 0 outside the picture.

    Args:
        pictures: (N, C, H, W).
        flow: (2, N, H, W), pixels.

    Returns:
        (N, C, H, W).
    """
    height, width = flow.shape[-2:]
    # torch takes positions as shares of the size; with sizes that are powers of 2, whole pixels stay whole.
    rows, columns = (1 << (size - 1).bit_length() for size in (height, width))
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    shares = [position * (2 / size) + (1 / size - 1) for position, size in ((x, columns), (y, rows))]
    framed = pad(pictures, (0, columns - width, 0, rows - height))
    return grid_sample(framed, torch.stack(shares, dim=-1), mode="bicubic", padding_mode="zeros", align_corners=False)


def resize(planes: Tensor, height: int, width: int, ratio: float | None = None) -> Tensor:
    """Linear interpolation, like `cv2.resize` with INTER_LINEAR; edges are continued.

    Args:
        planes: (..., H, W).
        height: Of the result.
        width: Of the result.
        ratio: Pixels of `planes` per pixel of the result; that of the sizes if None. OpenCV's pyramid goes on in steps
            of 1 / scale_step, also where rounding the size makes the ratio another one.

    Returns:
        (..., height, width).
    """
    for dim, size in ((-1, width), (-2, height)):
        last = planes.shape[dim] - 1
        pixel = torch.arange(size, device=planes.device, dtype=torch.float64)
        at = ((pixel + 0.5) * (ratio or (last + 1) / size) - 0.5).clamp_(0, last)
        low = at.long()
        weight = (at - low).to(planes.dtype).reshape([-1] + [1] * (-1 - dim))
        near, far = (planes.index_select(dim, index) for index in (low, (low + 1).clamp_(max=last)))
        planes = (far - near) * weight + near
    return planes


def median_filter(planes: Tensor, window: int) -> Tensor:
    """Median over a square; edges are continued.

    Columns, pairs of columns and fours of columns are put in order once for all squares that share them.

    Args:
        planes: (2, N, H, W).
        window: Side of the square, 3 or 5 pixels.

    Returns:
        (2, N, H, W).
    """
    framed = pad(planes, [window // 2] * 4, mode="replicate")
    column = in_order([framed[..., row : row + planes.shape[-2], :] for row in range(window)])
    two = beside(column, column, 1, range(2 * window))
    if window == 3:
        return beside(two, column, 2, [4])[0]
    # Of 25 values the 13th is wanted; with five still to come, it is none of the first 7 or last 7 of these 20.
    four = beside(two, two, 2, range(7, 13))
    return beside(four, column, 4, [12 - 7])[0]


def in_order(planes: list[Tensor]) -> list[Tensor]:
    """The planes' values in ascending order at every pixel."""
    if len(planes) == 1:
        return planes
    half = len(planes) // 2
    return list(merge(in_order(planes[:half]), in_order(planes[half:]), range(len(planes))).values())


def beside(left: list[Tensor], right: list[Tensor], shift: int, ranks: Iterable[int]) -> list[Tensor]:
    """Values of some ranks, from 0, among two ordered lists, the other one taken some pixels further to the right."""
    right = [plane[..., shift:] for plane in right]
    left = [plane[..., : right[0].shape[-1]] for plane in left]
    return list(merge(left, right, ranks).values())


def merge(ones: list[Tensor], others: list[Tensor], ranks: Iterable[int]) -> dict[int, Tensor]:
    """Values of some ranks, from 0, among two ordered lists, at every pixel.

    Odd-even merging (Batcher 1968, doi 10.1145/1468075.1468121), of which nothing is computed that is not wanted:
    places 0, 2, 4, ... of both lists are merged, and places 1, 3, 5, ...; in the result, ranks 2i - 1 and 2i are the
    smaller and the larger of value i of the former and value i - 1 of the latter, where both exist.
    """
    ranks = [rank for rank in ranks if rank < len(ones) + len(others)]
    if not ones or not others:
        return {rank: (ones or others)[rank] for rank in ranks}
    if len(ones) == len(others) == 1:
        return {rank: (torch.minimum, torch.maximum)[rank](*ones, *others) for rank in ranks}
    places = sorted({(rank + 1) // 2 for rank in ranks})
    even = merge(ones[::2], others[::2], places)
    odd = merge(ones[1::2], others[1::2], [place - 1 for place in places if place])
    merged = {}
    for rank in ranks:
        place = (rank + 1) // 2
        there = [half[at] for half, at in ((even, place), (odd, place - 1)) if at in half]
        merged[rank] = reduce(torch.minimum if rank % 2 else torch.maximum, there)
    return merged
