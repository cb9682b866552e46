"""What goes wrong outside of mer4d: a full disk, and processes that are killed at any moment."""

import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from mer4d.cli import main

RUN = Path("runs/quick")


@contextmanager
def room_for(size: int):
    """No file can grow beyond a size in bytes; the system refuses it as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def refused(command: str, settings: list[str], size: int) -> str:
    with room_for(size), pytest.raises(SystemExit) as info:
        main([command, *settings])
    said = str(info.value)
    assert said.startswith("mer4d: ") and said.count("\n") == 0 and "File too large" in said, said
    return said


def test_a_summary_that_was_interrupted_is_made_again(finished, monkeypatch, capsys):
    def interrupted(runs, clips):
        raise KeyboardInterrupt

    (RUN / "metrics.json").unlink()
    (RUN / "report.html").unlink()
    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="interrupted"):
        patched.setattr("mer4d.experiment.write_page", interrupted)
        main(["loso", *finished])
    assert (RUN / "metrics.json").exists() and not (RUN / "report.html").exists()
    main(["loso", *finished])
    assert (RUN / "report.html").exists() and not (RUN / ".summary").exists()


@pytest.mark.parametrize("strategy", ["sequential", "batched"])
@pytest.mark.parametrize("size", [100, 8_000, 20_000])  # config.yaml of the run, of a fold; a checkpoint
def test_a_full_disk_leaves_no_half_fold(quick, trained_run, strategy, size):
    settings = [*quick, f"--loso.strategy={strategy}"]
    said = refused("loso", settings, size)
    assert "runs/quick" in said
    files = [path for path in RUN.rglob("*") if path.is_file() and path.name != ".lock"]
    assert not any(part.startswith(".") for path in files for part in path.parts), files
    assert not (RUN / "predictions.csv").exists() and not [*RUN.glob("folds/*/*")]
    main(["loso", *settings])
    if strategy == "sequential":
        assert (RUN / "predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()


def test_a_full_disk_leaves_no_half_entry_in_the_cache(quick, trained_run, cache, tmp_path):
    own = tmp_path / "cache"
    settings = [*quick, f"--data.cache={own}"]
    # Of a process of its own, since processes that prepare flow may have been started before there was a limit.
    done = subprocess.run(
        [sys.executable, "-m", "mer4d", "prepare", *settings], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and said.startswith(f"mer4d: CacheError: {own}") and "File too large" in said
    assert "Traceback" not in done.stderr and not [*own.glob("*.npz"), *own.glob(".*")]
    main(["prepare", *settings])
    assert len([*own.glob("*.npz")]) == 12
    for entry in own.glob("*.npz"):
        assert entry.read_bytes() == (cache / entry.name).read_bytes()


def test_a_full_disk_leaves_no_half_corpus(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["--subjects=1", "--clips=1", "--layout=side_by_side", "--jobs=1"]
    assert "CacheError: corpus/gray_micro" in refused("synth", ["corpus", *settings], 300)
    assert not [*Path("corpus").rglob("*.png"), *Path("corpus").rglob("*.partial")]
    for folder in ("corpus", "other"):
        main(["synth", folder, *settings])
    files = [path.relative_to("other") for path in Path("other").rglob("*") if path.is_file()]
    assert files and all((Path("corpus") / file).read_bytes() == (Path("other") / file).read_bytes() for file in files)


def test_a_study_of_kills_finds_what_they_damage(benchmark_of, finished, tmp_path):
    study = benchmark_of("fault_study")
    shutil.copytree(RUN, tmp_path / "other")
    assert study.damage(RUN, tmp_path / "other") == []
    (tmp_path / "other" / "folds" / ".S1").mkdir()
    (tmp_path / "other" / "folds" / "S2" / "predictions.csv").write_text("half")
    (tmp_path / "other" / "folds" / "S3" / "curves.csv").unlink()
    assert study.damage(RUN, tmp_path / "other") == ["folds/.S1", "folds/S2/predictions.csv", "folds/S3/curves.csv"]
