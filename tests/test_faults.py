"""What goes wrong outside of mer4d: a full disk, and processes that are killed at any moment."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from mer4d.cache import write_atomically
from mer4d.cli import main
from mer4d.parallel import start_process

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


def rename_and_die(place: str, args: list[str]) -> None:
    """Runs a command that is killed when it is about to give a file or folder its final name."""

    def look(event: str, values: tuple) -> None:
        if event == "os.rename" and str(values[1]).endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    main(args)


def test_killed_between_the_files_of_a_fold_and_before_its_name(benchmark_of, quick, trained_run, tmp_path):
    study, kept = benchmark_of("fault_study"), {}
    for place, folds in ((".S1/metrics.json", []), (".S2/curves.csv", ["S1"]), ("folds/S3", ["S1", "S2"])):
        process = start_process(tmp_path / "log.txt", rename_and_die, place, ["loso", *quick])
        process.join()
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
        now = study.complete(RUN)
        assert sorted(Path(name).parent.name for name in now) == folds and kept.items() <= now.items()
        kept = now
    main(["loso", *quick])
    assert study.damage(trained_run, RUN) == [] and kept.items() <= study.complete(RUN).items()


def write_and_die(path: Path, size: int) -> None:
    """Writes more than a file may hold, for which the system kills whoever has not asked it not to."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    write_atomically(path, bytes(2 * size))


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name")
def test_killed_in_the_middle_of_a_file(tmp_path):
    folder = tmp_path / "folder"
    write_atomically(folder / "a", b"whole")
    process = start_process(tmp_path / "log.txt", write_and_die, folder / "a", 5000)
    process.join()
    assert process.exitcode == -signal.SIGXFSZ, (tmp_path / "log.txt").read_text()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"whole")]
