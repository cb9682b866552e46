import numpy as np
import pytest


@pytest.fixture(scope="session")
def waves():
    def make(dx=0.0, dy=0.0, size=80):
        """A picture that is known between its pixels, moved by (dx, dy): (H, W) uint8."""
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:size, :size].astype(float)
        picture = np.zeros((size, size))
        for angle, length, phase in rng.uniform((0, 6, 0), (np.pi, 25, 2 * np.pi), (12, 3)):
            picture += np.sin(2 * np.pi * (np.cos(angle) * (x - dx) + np.sin(angle) * (y - dy)) / length + phase)
        return np.rint(128 + 25 * picture).clip(0, 255).astype(np.uint8)

    return make
