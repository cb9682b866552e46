"""Every shipped configuration parses, says how to run it, and runs one step."""

from pathlib import Path

import pytest
import yaml

from mer4d.cli import main
from mer4d.task import MicroExpressionTask

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
BASE = CONFIGS / "synthetic.yaml"


def test_there_are_configurations():
    assert {"synthetic.yaml", "4dme.yaml", "4dme_meshes.yaml"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_runs_one_step(file, quick, monkeypatch):
    steps, training_step = [], MicroExpressionTask.training_step

    def counted(self, batch, batch_idx):
        steps.append(training_step(self, batch, batch_idx))
        return steps[-1]

    monkeypatch.setattr(MicroExpressionTask, "training_step", counted)
    main(["fit", f"--config={BASE}", f"--config={file}", *quick, "--trainer.fast_dev_run=true"])
    assert len(steps) == 1 and steps[0].isfinite()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_setting_of_the_file_arrives(file, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["loso", f"--config={file}", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)

    def arrives(wanted, found) -> bool:
        if isinstance(wanted, dict):
            return all(arrives(value, found[key]) for key, value in wanted.items())
        return wanted == found

    assert arrives(yaml.safe_load(file.read_text()), printed)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_its_command_names_files_that_exist(file):
    (command,) = [line for line in file.read_text().splitlines() if line.startswith("#   mer4d loso")]
    named = [word for word in command.split() if word.startswith("configs/")]
    assert f"configs/{file.relative_to(CONFIGS)}" in named
    assert all((CONFIGS.parent / name).is_file() for name in named)
