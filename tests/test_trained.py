import io
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from mer4d.errors import RunError, SettingError
from mer4d.trained import Ensemble, Trained, trained_networks


@pytest.fixture
def fold(trained_run, tmp_path):
    """A copy of a fold, as it comes to another machine."""
    return shutil.copytree(trained_run / "folds" / "S2", tmp_path / "fold")


def test_a_run_has_the_networks_of_all_its_folds_and_seeds(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    shutil.copytree(run / "folds", run / "seeds" / "1")
    shutil.copytree(run / "folds" / "S1", run / "folds" / ".S1")  # as a run that was killed leaves it
    names = [str(each.checkpoint.parent.relative_to(run)) for each in trained_networks(run)]
    assert names == [f"{place}/S{n}" for place in ("folds", "seeds/1") for n in (1, 2, 3, 4)]


def test_a_fold_is_built_from_its_files(trained_run):
    (trained,) = trained_networks(trained_run / "folds" / "S2")
    assert trained_networks(trained.checkpoint) == (trained,)
    module, data = trained.module(), trained.data_module()
    assert data.test_subject == "S2" and data.fold.tested == ("S2",) and data.seed == 0
    assert data.problem == module.problem == trained.problem
    data.prepare_data()
    data.setup("test")
    (batch,) = data.test_dataloader()
    expected = (trained_run / "folds" / "S2" / "predictions.csv").read_text().splitlines()[1].split(",")
    assert repr(module(batch["flow"])[0, 0].item()) in expected
    assert not module.training and not any(each.requires_grad for each in module.parameters())


def test_settings_of_the_training_can_be_replaced(trained_run, tmp_path):
    data = trained_networks(trained_run / "folds" / "S2")[0].data_module(root=tmp_path, test_subject=None)
    assert (data.root, data.test_subject, data.preprocess.crop.size) == (tmp_path, None, 64)


def test_a_fit_keeps_its_configuration_above_the_checkpoints(fold, tmp_path):
    (tmp_path / "fit" / "checkpoints").mkdir(parents=True)
    (fold / "best.ckpt").rename(tmp_path / "fit" / "checkpoints" / "last.ckpt")
    (fold / "config.yaml").rename(tmp_path / "fit" / "config.yaml")
    assert Trained(tmp_path / "fit" / "checkpoints" / "last.ckpt").module().problem.multi_label


class Code:
    """What would write a file if it were unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("holiday.txt", "sun")
    return buffer.getvalue()


ANOTHER = {
    "an empty file": lambda file: b"",
    "a zip": lambda file: zipped(),
    "text": lambda file: b"weights",
    "a truncated checkpoint": lambda file: file.read_bytes()[:-2000],
    "weights alone": lambda file: saved({"conv.weight": torch.zeros(3)}),
    "a checkpoint of other software": lambda file: saved({"state_dict": {}, "epoch": 3}),
    "a problem that is none": lambda file: saved({"state_dict": {}, "problem": {"views": ()}}),
    "a tensor": lambda file: saved(torch.zeros(3)),
    "code": lambda file: saved({"state_dict": Code(file.with_name("ran")), "problem": {}}),
    "code without an archive": lambda file: pickle.dumps(Code(file.with_name("ran"))),
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_what_is_no_checkpoint_is_one_sentence(kind, fold):
    file = fold / "best.ckpt"
    file.write_bytes(ANOTHER[kind](file))
    with pytest.raises(RunError, match=r"best\.ckpt: expected a checkpoint that mer4d wrote, found") as raised:
        trained_networks(fold)[0].module()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    assert not (fold / "ran").exists()


def change(fold, **model):
    config = yaml.safe_load((fold / "config.yaml").read_text())
    config["model"] |= model
    (fold / "config.yaml").write_text(yaml.safe_dump(config))


BROKEN = {
    "no configuration": (lambda fold: (fold / "config.yaml").unlink(), r"config\.yaml of its training beside it"),
    "one of something else": (
        lambda fold: (fold / "config.yaml").write_text("a: 1"), r"the configuration of a training, found KeyError",
    ),
    "no YAML": (lambda fold: (fold / "config.yaml").write_text("a: ["), r"the configuration of a training"),
    "no text": (lambda fold: (fold / "config.yaml").write_bytes(b"\xff"), r"the configuration of a training"),
    "an unknown setting": (lambda fold: change(fold, magic=1), r"expected settings of MicroExpressionTask.*magic"),
    "a class that is not there": (
        lambda fold: change(fold, network={"class_path": "elsewhere.Network"}), r"settings of MicroExpressionTask",
    ),
    "another network": (
        lambda fold: change(fold, network={"class_path": "mer4d.models.baselines.LinearOnGrid"}),
        r"best\.ckpt: expected weights of the network of .*config\.yaml",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_configuration_that_does_not_fit_is_one_sentence(kind, fold):
    spoil, message = BROKEN[kind]
    spoil(fold)
    with pytest.raises((RunError, SettingError), match=message) as raised:
        trained_networks(fold)[0].module()
    assert "\n" not in str(raised.value)


def test_a_training_that_is_older_than_a_setting_of_its_input_is_one_sentence(fold):
    file = fold / "config.yaml"
    config = yaml.safe_load(file.read_text())
    preprocess = config["data"]["preprocess"]
    del preprocess["texture"], preprocess["apex"]["shift"], config["data"]["batch_size"]
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(SettingError, match=r"found no preprocess\.apex\.shift and preprocess\.texture;") as raised:
        trained_networks(fold)[0].data_module()
    assert "\n" not in str(raised.value)
    file.write_text(yaml.safe_dump(config | {"data": {"root": config["data"]["root"]}}))
    with pytest.raises(SettingError, match=r"found no preprocess;"):
        trained_networks(fold)[0].data_module()
    preprocess["texture"], preprocess["apex"]["shift"] = 3.0, 0
    file.write_text(yaml.safe_dump(config))
    assert trained_networks(fold)[0].data_module().preprocess.texture == 3.0  # what is younger there has its default


def test_a_place_without_networks(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match="found an unfinished run; finish the run first"):
        trained_networks(run)
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="found nothing of the kind"):
            trained_networks(place)


def test_a_fold_knows_who_trained_it(trained_run, fold):
    (trained,) = trained_networks(trained_run / "folds" / "S2")
    assert trained.run == trained_run and trained.subjects == {"S1", "S3", "S4"}
    (alone,) = trained_networks(fold)
    assert alone.run is None and alone.subjects == frozenset()


def test_an_ensemble_is_the_mean_of_its_networks(trained_run):
    members = [trained.module() for trained in trained_networks(trained_run)]
    members[0].thresholds += 0.2
    flow = torch.randn(3, 2, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble(members).eval()
    expected = sum(member(flow).double() for member in members) / len(members)
    torch.testing.assert_close(ensemble(flow).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ensemble.thresholds, torch.full((5,), 0.55).double(), atol=1e-6, rtol=0)
    sure, unsure = [0.56, 0.54, 0.1, 0.1, 0.6], [0.1, 0.54, 0.1, 0.1, 0.1]
    decided = ensemble.decide(torch.tensor([sure, unsure]).double())
    assert decided.tolist() == [[True, False, False, False, True], [False, True, False, False, False]]
