"""Real schedulers and workers on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster

from mer4d.cli import main
from mer4d.cluster import connect
from mer4d.errors import ClusterError
from mer4d.loso.fold import staging

RUN = Path("runs/quick")


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


def process_of(worker) -> int:
    return worker.process.process.pid


def test_a_run_on_two_workers_of_which_one_is_killed(cluster, quick, trained_run, tmp_path):
    """Flow is prepared there, too; the result is that of one process, byte for byte."""
    killed = []

    def kill():
        while not list(RUN.glob("folds/[!.]*")):
            time.sleep(0.02)
        busy = next(iter(cluster.workers.values()))
        killed.append(process_of(busy))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    main(["loso", *quick, f"--data.cache={tmp_path / 'fresh'}", f"--loso.scheduler={cluster.scheduler_address}"])
    killer.join()
    assert killed and (RUN / "predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()
    assert sorted(folder.name for folder in (RUN / "folds").iterdir()) == ["S1", "S2", "S3", "S4"]
    assert len(list((tmp_path / "fresh").glob("*.npz"))) == 12
    assert not any(cluster.scheduler_address in file.read_text() for file in RUN.rglob("config.yaml"))
    before = (RUN / "metrics.json").stat().st_mtime_ns
    main(["loso", *quick])  # nothing is left to do, and whether here or there does not matter
    assert (RUN / "metrics.json").stat().st_mtime_ns == before and json.loads((RUN / "metrics.json").read_text())


def test_a_worker_takes_nothing_from_one_run_into_the_next(cluster, quick, packed_corpus, tmp_path, monkeypatch):
    """The same command in another folder, where the corpus has another annotation."""
    for name, emotion in (("first", "surprise"), ("second", "others")):
        root = shutil.copytree(packed_corpus, tmp_path / name / "corpus")
        sheet = (root / "sheet.csv").read_text().replace("surprise", emotion)
        (root / "sheet.csv").write_text(sheet)
        monkeypatch.chdir(tmp_path / name)
        main(["loso", *quick, "--data.root=corpus", f"--loso.scheduler={cluster.scheduler_address}"])
        table = pd.read_csv(RUN / "predictions.csv")
        assert len(table) == 12 and table.surprise_true.any() == (emotion == "surprise")


def test_workers_go_where_the_command_is_and_tell_what_is_wrong(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with connect(cluster.scheduler_address) as workers:
        assert workers.submit(os.getcwd).result() == str(tmp_path) and workers.workers == 2
        with pytest.raises(ZeroDivisionError):
            workers.submit(divmod, 1, 0).result()
        folder = tmp_path / "gone"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr("mer4d.cluster.Path.cwd", lambda: folder)
        folder.rmdir()
        with pytest.raises(ClusterError, match=r"worker .*: expected the folder .*gone"):
            workers.submit(os.getcwd).result()


def test_a_worker_with_several_threads_is_refused():
    here = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    refused = pytest.raises(ClusterError, match="expected one thread, found 2; start it with `dask worker --nthreads 1")
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **here) as cluster,
        connect(cluster.scheduler_address) as workers,
        refused,
    ):
        workers.submit(os.getcwd).result()


def test_no_scheduler_is_one_sentence(quick, monkeypatch):
    monkeypatch.setattr("mer4d.cluster.PATIENCE", "1s")
    with pytest.raises(SystemExit, match=r"mer4d: ClusterError: tcp://127\.0\.0\.1:9: expected the address of a Dask"):
        main(["loso", *quick, "--loso.scheduler=tcp://127.0.0.1:9"])


def test_a_scheduler_that_dies_is_one_sentence(tmp_path):
    program = """
from distributed import LocalCluster
with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
    print(cluster.scheduler_address, flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as scheduler:
        address = scheduler.stdout.readline().strip()
        with pytest.raises(ClusterError, match="expected a scheduler that lives on"), connect(address) as workers:
            waiting = workers.submit(os.getcwd)
            assert workers.workers == 0
            scheduler.kill()
            waiting.result(60)


def test_of_two_attempts_at_a_fold_the_first_counts(tmp_path):
    final = tmp_path / "S1"
    with staging(final, "a") as first, staging(final, "b") as second:
        assert first != second
        for name, folder in (("first", second), ("late", first)):
            (folder / name).write_text("")
    assert [file.name for file in tmp_path.iterdir()] == ["S1"] and [file.name for file in final.iterdir()] == ["first"]


def test_the_result_of_a_worker_is_withdrawn(cluster):
    with connect(cluster.scheduler_address) as workers:
        waiting = [workers.submit(time.sleep, 0.2 + number / 1000) for number in range(20)]
        workers.shutdown(cancel_futures=True)
    with Client(cluster.scheduler_address) as client:
        assert waiting and not [key for keys in client.processing().values() for key in keys if key.startswith("_call")]
