"""Flow from a function of the user's."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from mer4d.errors import FrameError, SettingError
from mer4d.preprocess.flow.method import FlowMethod, require_grey_levels

SETTING = "data.preprocess.flow.function"


@dataclass(frozen=True)
class FlowFunction(FlowMethod):
    """Flow from any function, such as an algorithm or a network of your own.

    Its name and the content of its file are part of the cache key, so that flow is measured anew when it changes; what
    it imports is not. It never runs in two threads at once.

    Args:
        function: Import path, such as my_package.my_flow (installed, or in a folder of PYTHONPATH). It takes two
            pictures (H, W) uint8 and returns (H, W, 2): u (+x right) and v (+y down) in pixels, such that a point at x
            in the first picture is found at x + flow(x) in the second.

    Raises:
        SettingError: It is not a function that a module defines under its name.
    """

    # The result is no `np.ndarray` here, because jsonargparse refuses functions that are not annotated with it.
    function: Callable[[np.ndarray, np.ndarray], Any]

    def __post_init__(self) -> None:
        module, name = self._path
        try:
            importable = resolve_name(f"{module}:{name}") is self.function
        except (AttributeError, ImportError, ValueError):
            importable = False
        if not importable or getattr(sys.modules[module], "__file__", None) is None:
            raise SettingError(
                SETTING,
                "a function that other processes can import from the file of a module",
                self.function,
                "define it with `def` in a module and give its import path",
            )

    @property
    def key(self) -> dict[str, str]:
        """What stands for the function in the cache key: its name, and a digest of the file that it is written in."""
        module, name = self._path
        content = Path(sys.modules[module].__file__).read_bytes()
        return {"function": f"{module}.{name}", "file": hashlib.blake2b(content).hexdigest()}

    @property
    def _path(self) -> tuple[str, str]:
        """Module and name of the function."""
        return getattr(self.function, "__module__", None) or "", getattr(self.function, "__qualname__", "")

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See `FlowMethod.__call__`.

        Raises:
            FrameError: The pictures are not uint8, or the function finds no finite flow for them.
            SettingError: It returns no field of their size.
        """
        require_grey_levels(first, second)
        flow, wanted = self.function(first, second), (*first.shape, 2)
        if not isinstance(flow, np.ndarray) or flow.shape != wanted or flow.dtype.kind != "f":
            found = f"{flow.dtype} {flow.shape}" if isinstance(flow, np.ndarray) else type(flow).__name__
            raise SettingError(SETTING, f"a floating-point array {wanted}", found, f"correct {'.'.join(self._path)}")
        with np.errstate(over="ignore"):  # what overflows is counted below
            flow = flow.astype(np.float32)
        if lost := flow.size - np.isfinite(flow).sum():
            path = ".".join(self._path)
            raise FrameError("flow", f"finite numbers from {path}", f"{lost} others", f"correct {path}")
        return flow

    def pairs(self, firsts: np.ndarray, seconds: np.ndarray, threads: int = 1) -> np.ndarray:
        """See `FlowMethod.pairs`; one pair after the other, because the function need not bear threads."""
        return super().pairs(firsts, seconds)
