import os
import signal
import threading

import pytest

from mer4d.errors import RunError, SettingError
from mer4d.parallel import hold, process_pool, processes


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
