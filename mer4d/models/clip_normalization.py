"""What every network does to a clip's flow first."""

from torch import Tensor


def clip_normalized(flow: Tensor) -> Tensor:
    """Divides the flow of each clip by its root-mean-square.

    MEs differ tenfold in strength; one number per clip takes that away and keeps the ratio between channels, views and
    phases.

    Args:
        flow: (B, ...) float, pixels; all but the first axis belong to one clip.

    Returns:
        The same shape, unit 1.

    Example:
        >>> import torch
        >>> clip_normalized(torch.tensor([[3.0, -3.0], [0.1, 0.1], [0.0, 0.0]]))
        tensor([[ 1., -1.],
                [ 1.,  1.],
                [ 0.,  0.]])
    """
    # The lower bound keeps the noise of a clip without motion small.
    return flow / flow.square().mean(tuple(range(1, flow.ndim)), keepdim=True).sqrt().clamp_min(1e-3)
