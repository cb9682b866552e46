"""Trained networks in forms that other software runs, checked against the original on real clips, with a model card."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mer4d.cache import write_atomically
from mer4d.data import MER4DDataModule
from mer4d.errors import InstallationError, RunError, SettingError
from mer4d.model_card import model_card
from mer4d.trained import Ensemble, trained_networks

TOLERANCE = 1e-5
"""Largest difference of a probability between an exported network and the original."""

SIZES = (1, 2, 7, 32)
"""Clips in the batches on which they are compared."""

Run = Callable[[Tensor], Tensor]
"""Flow (B, V, P, C, H, W) to probabilities (B, K)."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        files: Exported networks, then the model card.
        differences: File name to the largest difference of a probability to the original.
        clips: How many clips it was measured on.
    """

    files: tuple[Path, ...]
    differences: dict[str, float]
    clips: int

    def render(self) -> str:
        """The outcome for a person at a terminal."""
        lines = [
            f"{name}: probabilities at most {difference:.2g} from the original's, on {self.clips} clips of the corpus "
            f"(tolerance {TOLERANCE:g})"
            for name, difference in self.differences.items()
        ]
        return "\n".join([*lines, f"Files: {', '.join(map(str, self.files))}"])


def export(
    model: Path,
    out: Path = Path("exported"),
    format: Literal["onnx", "torch", "both"] = "both",
    root: Path | None = None,
    cache: Path | None = None,
) -> Exported:
    """Exports a trained network, or all networks of a run as one whose output is the mean of their probabilities.

    Input `flow`, (B, V, P, 3, H, W) float32 in pixels of the crop for any B; output `probabilities`, (B, K). The files
    are written only where they answer clips of the corpus as the original does.

    Args:
        model: A checkpoint, the folder of a fold, or that of a finished run.
        out: Folder of model.onnx, model.pt2 and model_card.md.
        format: `onnx` for ONNX Runtime and others, `torch` for torch.export, or `both`.
        root: Folder of the corpus that the network was trained on, where it has moved.
        cache: Folder of the flow store; by default that of the training.

    Raises:
        InstallationError: ONNX is asked for, and its packages are missing.
        SettingError: The network cannot be exported.
        RunError: The model cannot be read, or an exported network answers otherwise than the original.
        MER4DError: The corpus cannot be read.
    """
    if format != "torch":
        _require_onnx()
    networks = trained_networks(model)
    ensemble = Ensemble([network.module() for network in networks]).eval()
    places = {name: place for name, place in {"root": root, "cache": cache}.items() if place is not None}
    data = networks[0].data_module(**places, test_subject=None)
    data.prepare_data()
    flow = _flow(data)
    facts = {
        "problem": asdict(ensemble.problem),
        "thresholds": ensemble.thresholds.tolist() if ensemble.problem.multi_label else None,
        "at_least_one": ensemble.at_least_one,
        "flow": "(B, V, P, C, H, W) float32, pixels of the crop, channels u (+x right), v (+y down), magnitude",
        "height and width": list(flow.shape[-2:]),
    }
    program = export_program(ensemble, flow.shape[1:])
    written = {name: write(program, facts) for kind, (name, write) in WRITERS.items() if format in ("both", kind)}
    differences = {name: difference(ensemble, run, flow) for name, (_, run) in written.items()}
    for name, apart in differences.items():
        if not apart <= TOLERANCE:  # nor NaN
            expected, remedy = f"probabilities within {TOLERANCE:g} of the original's", "use the other format"
            raise RunError(f"{name} of {model}", expected, f"{apart:.2g}", remedy)
    contents = {name: content for name, (content, _) in written.items()}
    contents["model_card.md"] = model_card(networks, ensemble, data, differences).encode()
    for name, content in contents.items():
        write_atomically(out / name, content)
    return Exported(tuple(out / name for name in contents), differences, len(flow))


def difference(original: Run, exported: Run, flow: Tensor) -> float:
    """Largest difference of a probability, over batches of several sizes; NaN where one of them is.

    Args:
        original: The network.
        exported: What should be the same.
        flow: Clips (N, V, P, C, H, W), N >= 1.

    Example:
        >>> difference(lambda flow: flow + 0.5, lambda flow: flow + 0.25, torch.zeros(3, 1))
        0.25
    """
    sizes = sorted({min(size, len(flow)) for size in SIZES})
    with torch.inference_mode():
        return float(np.max([(original(part) - exported(part)).abs().max() for part in (flow[:n] for n in sizes)]))


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        expected, remedy = "the packages that write ONNX", "run `pip install 'mer4d[export]'`, or give --format torch"
        raise InstallationError("mer4d export", expected, error, remedy) from error


def _flow(data: MER4DDataModule) -> Tensor:
    """Flow (N, V, P, C, H, W) of some clips of a corpus, of every subject before a second one of any."""
    turns: dict[str, int] = {}
    order = []
    for clip in data.clips:
        turns[clip.subject] = turns.get(clip.subject, 0) + 1
        order.append((turns[clip.subject], clip.clip_id, clip))
    return torch.from_numpy(np.stack([data.prepared.flow(clip) for _, _, clip in sorted(order)[: max(SIZES)]]))


def export_program(ensemble: Ensemble, shape: Sequence[int]) -> torch.export.ExportedProgram:
    """The graph of networks, for any number of clips.

    Args:
        ensemble: The networks.
        shape: Of the flow of a clip, (V, P, C, H, W).

    Raises:
        SettingError: torch cannot follow what they do.
    """
    try:
        with _quiet():
            example = torch.zeros(2, *shape)  # no clip of the corpus: the example stays in the file
            program = torch.export.export(ensemble, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises whatever it likes
        name = type(ensemble.members[0].network).__name__
        found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SettingError(f"network {name}", "one that torch.export can follow", found, "export another") from error
    for node in program.graph.nodes:  # source lines of this machine
        node.meta.pop("stack_trace", None)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch tells its own developers from the user."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)  # torchvision is not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registry.setLevel(level)


def torch_file(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> tuple[bytes, Run]:
    """Content of a file for `torch.export.load`, and what is loaded from it.

    Args:
        program: What to write.
        facts: Plain values to be found in it as `mer4d.json`.
    """
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files={"mer4d.json": json.dumps(facts)})
        file.seek(0)
        return file.getvalue(), torch.export.load(file).module()


def onnx_file(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> tuple[bytes, Run]:
    """Content of an ONNX file, and what ONNX Runtime makes of it.

    Args:
        program: What to write.
        facts: Plain values to be found in its metadata, in JSON.
    """
    import onnx
    import onnxruntime

    with _quiet():
        names = {"input_names": ["flow"], "output_names": ["probabilities"]}
        model = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False, **names).model_proto
    del model.graph.value_info[:]  # shapes in between, with symbols that only torch knows
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    content = model.SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda flow: torch.from_numpy(session.run(["probabilities"], {"flow": flow.numpy()})[0])


WRITERS = {"onnx": ("model.onnx", onnx_file), "torch": ("model.pt2", torch_file)}
"""Format to the name of its file, and what writes it."""
