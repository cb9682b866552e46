import builtins
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import mer4d.export
from mer4d.cli import main
from mer4d.clip import EMOTIONS, Problem
from mer4d.errors import SettingError
from mer4d.export import difference, export
from mer4d.models import TripleStreamMicroAttNet, baselines
from mer4d.task import MicroExpressionTask
from mer4d.trained import Ensemble, trained_networks

onnxruntime = pytest.importorskip("onnxruntime")
FILES = {"model.onnx", "model.pt2", "model_card.md"}


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The files of a run of four folds."""
    out = tmp_path_factory.mktemp("exported")
    main(["export", str(trained_run), f"--out={out}"])
    return out


def run_onnx(file, flow):
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["probabilities"], {"flow": flow.numpy()})[0])


def test_a_run_answers_as_the_mean_of_its_folds_elsewhere(exported, trained_run):
    assert {file.name for file in exported.iterdir()} == FILES
    members = [network.module() for network in trained_networks(trained_run)]
    program = torch.export.load(exported / "model.pt2").module()
    for clips in (1, 2, 3, 40):  # 40 is more than it was checked with
        flow = torch.randn(clips, 2, 2, 3, 28, 28, generator=torch.Generator().manual_seed(clips))
        expected = torch.stack([member(flow).double() for member in members]).mean(0)
        for found in (program(flow), run_onnx(exported / "model.onnx", flow)):
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_the_file_says_what_goes_in_and_comes_out(exported):
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    (flow,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert flow.name == "flow" and flow.shape[1:] == [2, 2, 3, 28, 28] and isinstance(flow.shape[0], str)
    assert probabilities.name == "probabilities" and probabilities.shape[1:] == [5] and flow.type == "tensor(float)"
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["problem"]["classes"] == list(EMOTIONS) and facts["thresholds"] == [0.5] * 5
    extra = {"mer4d.json": ""}
    torch.export.load(exported / "model.pt2", extra_files=extra)
    assert json.loads(extra["mer4d.json"]) == facts


def test_no_place_of_this_machine_and_the_same_bytes_again(exported, trained_run, tmp_path):
    export(trained_run, tmp_path)
    for name in FILES:
        content = (exported / name).read_bytes()
        assert (tmp_path / name).read_bytes() == content, name
        assert str(Path(mer4d.export.__file__).parent).encode() not in content, name


def test_the_card_of_a_run(exported, trained_run):
    card, metrics = (exported / "model_card.md").read_text(), json.loads((trained_run / "metrics.json").read_text())
    flat = " ".join(card.split())
    low, high = metrics["uf1_interval"]
    for said in (
        "# Model card: quick", "4 networks, whose probabilities are averaged", f"UF1 **{metrics['uf1']:.3f}**",
        f"{low:.3f} to {high:.3f}", metrics["protocol"], metrics["data_digest"], metrics["versions"]["torch"],
        "12 clips of 4 subjects", "Trained on 4 subjects: S1, S2, S3, S4", "together, as here, they have none",
        "lie detection", "hiring", "policing", "medical", "did not consent", "2024/1689, Article 5(1)(f)",
    ):  # fmt: skip
        assert said in flat, said
    for name, row in metrics["classes"].items():
        assert f"| {name} | {row['f1']:.3f} |" in card
    assert "synthetic" not in card
    settings = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert settings["preprocess"] == yaml.safe_load((trained_run / "config.yaml").read_text())["data"]["preprocess"]


def test_the_card_of_a_fold_of_a_control_on_synthetic_people(trained_run, packed_corpus, tmp_path, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    root = shutil.copytree(packed_corpus, tmp_path / "corpus")
    (root / "corpus.json").write_text('{"intensity": [0.2, 0.4], "head_motion": 0.1, "face_model": null}')
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"leaky": True, "permuted_labels": True, "absent": ["repression"]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    main(["export", str(run / "folds" / "S2"), f"--out={tmp_path / 'out'}", "--format=torch", f"--root={root}"])
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES - {"model.onnx"}
    assert "model.pt2: probabilities at most" in capsys.readouterr().out
    card = " ".join((tmp_path / "out" / "model_card.md").read_text().split())
    for said in (
        "run, fold of S2", "Trained on synthetic people", "Its epoch was chosen on the test subject", "permuted labels",
        "Trained on 3 subjects: S1, S3, S4", "of which this is one", "Class repression was never seen",
    ):  # fmt: skip
        assert said in card, said


def test_a_checkpoint_alone_has_no_result(trained_run, tmp_path):
    fold = shutil.copytree(trained_run / "folds" / "S2", tmp_path / "fold")
    export(fold / "best.ckpt", tmp_path / "out", "torch")
    assert "No result is on record." in (tmp_path / "out" / "model_card.md").read_text()


NETWORKS = [TripleStreamMicroAttNet, *(getattr(baselines, name) for name in (
    "ConstantPredictor", "LinearOnGrid", "OffApexNet", "RCNA", "SmallResNet", "STSTNet",
))]  # fmt: skip
PROBLEMS = {
    "multi_label": Problem(),
    "multi_class": Problem(("front",), ("onset_apex",), ("negative", "positive", "surprise"), multi_label=False),
}


@pytest.mark.parametrize(
    ("network", "problem"),
    [(network, "multi_label") for network in NETWORKS] + [(TripleStreamMicroAttNet, "multi_class")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_network_of_the_package_answers_alike(network, problem):
    torch.manual_seed(0)
    problem = PROBLEMS[problem]
    ensemble = Ensemble([MicroExpressionTask(problem, network).eval().requires_grad_(False)]).eval()
    axes = (len(problem.views), len(problem.phases), 3, 56, 56)
    flow = torch.randn(9, *axes, generator=torch.Generator().manual_seed(0))
    program = mer4d.export.export_program(ensemble, axes)
    for write in (mer4d.export.torch_file, mer4d.export.onnx_file):
        _, run = write(program, {"problem": asdict(problem)})
        for clips in (1, 9):
            torch.testing.assert_close(run(flow[:clips]), ensemble(flow[:clips]), rtol=0, atol=mer4d.export.TOLERANCE)


def test_a_network_that_cannot_be_followed_is_refused_by_name():
    network = baselines.PriorRandom
    ensemble = Ensemble([MicroExpressionTask(Problem(), network).eval()]).eval()
    with pytest.raises(
        SettingError, match=rf"network {network.__name__}: expected one that torch\.export can follow"
    ) as raised:
        mer4d.export.export_program(ensemble, (2, 2, 3, 28, 28))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", [2e-5, float("nan")])
def test_an_answer_that_differs_leaves_no_file(wrong, trained_run, tmp_path, monkeypatch):
    def off(program, facts):
        content, run = mer4d.export.torch_file(program, facts)
        return content, lambda flow: run(flow) + (wrong if len(flow) == 7 else 0)

    monkeypatch.setattr(mer4d.export, "WRITERS", {"torch": ("model.pt2", off)})
    with pytest.raises(SystemExit, match=r"RunError: model\.pt2 of .*: expected probabilities within 1e-05 of"):
        main(["export", str(trained_run / "folds" / "S1"), f"--out={tmp_path / 'out'}", "--format=torch"])
    assert not (tmp_path / "out").exists()


def test_differences_are_looked_for_in_every_batch():
    flow = torch.arange(5.0)[:, None]
    assert difference(lambda x: x, lambda x: x.where(x < 4, x + 0.5), flow) == 0.5
    assert np.isnan(difference(lambda x: x, lambda x: 0 * x / (x - 1), flow * 0 + 1))


def test_missing_packages_are_told_before_the_work(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "onnxscript":
            raise ImportError(f"No module named '{name}'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        SystemExit, match=r"InstallationError: .*pip install 'mer4d\[export\]'`, or give --format torch"
    ):
        main(["export", "nowhere", f"--out={tmp_path}"])


def test_a_corpus_that_is_not_there_is_told(trained_run, tmp_path):
    with pytest.raises(SystemExit, match=r"FrameError: .*gone: expected the folder of a corpus"):
        main(["export", str(trained_run / "folds" / "S1"), f"--out={tmp_path / 'out'}", f"--root={tmp_path / 'gone'}"])
    assert not (tmp_path / "out").exists()
