import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mer4d.errors import RunError, SettingError
from mer4d.parallel import hold, process_pool, processes, take_ctrl_c


def test_one_process_per_core_and_never_more_than_tasks():
    assert processes(None, tasks=1) == 1 and processes(3, tasks=5) == 3 and processes(3, tasks=0) == 1
    with pytest.raises(SettingError, match="at least 1"):
        processes(0, tasks=5)


def test_workers_outlive_ctrl_c_and_the_parent_does_not_ignore_it():
    before = signal.getsignal(signal.SIGINT)
    with process_pool(1) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGINT)
        assert pool.submit(max, 3, 4).result() == 4
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def ctrl_c_taken():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    take_ctrl_c()
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_not_lost_while_an_object_is_deleted(ctrl_c_taken):
    class Deleted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            self.seen = signal.getsignal(signal.SIGINT)  # Python calls a handler between two of its own steps

    with pytest.raises(KeyboardInterrupt):
        Deleted()
        time.sleep(10)


def test_ctrl_c_ends_what_runs(ctrl_c_taken):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_what_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_ctrl_c()
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = """
import os, time
from mer4d.parallel import process_pool
if __name__ == "__main__":
    pool = process_pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it is there
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_pool_in_a_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(process_pool(1).submit(max, 1, 2).result()))
    thread.start()
    thread.join()
    assert results == [2]


def test_a_held_directory_is_refused_and_free_again_afterwards(tmp_path):
    with hold(tmp_path / "run"), pytest.raises(RunError, match="another process holds"), hold(tmp_path / "run"):
        pass
    with hold(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
