"""Work on the workers of a Dask cluster, in the place of processes of this machine."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer4d.errors import ClusterError, InstallationError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = "20s"
"""How long a scheduler may take to answer."""


class Cluster:
    """What `concurrent.futures` needs of an executor, on a Dask cluster; see `connect`."""

    def __init__(self, client: "Client") -> None:
        self._client, self._pool = client, client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return len(self._client.nthreads())

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Calls a function on a worker, in the working directory of this process."""
        return self._pool.submit(_call, Path.cwd(), function, *args)

    def shutdown(self, cancel_futures: bool = False) -> None:
        """Withdraws all work that is not done; what is under way ends unheard."""
        if cancel_futures:
            self._pool.shutdown(wait=False)


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """A Dask cluster, as an executor.

    A worker that is lost costs what it was doing: another one does that again, up to three times.

    Args:
        address: Of the scheduler, such as tcp://host:8786.

    Raises:
        InstallationError: Dask is not installed.
        ClusterError: The scheduler does not answer, or is lost; several workers died of the same task; a worker has no
            mer4d, has several threads, or does not see the working directory.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        expected, remedy = "the package distributed", "run `pip install 'mer4d[cluster]'`"
        raise InstallationError("a scheduler", expected, error, remedy) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # which tells of a lost scheduler by tracebacks
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        expected, remedy = "the address of a Dask scheduler, such as tcp://host:8786", "start `dask scheduler` there"
        raise ClusterError(address, expected, " ".join(str(error).split()), remedy) from error
    with client:
        try:
            yield Cluster(client)
        except KilledWorker as error:
            expected, found = "workers that live on", "a task of which several died, perhaps for want of memory"
            raise ClusterError(address, expected, found, "give them more, and the same command again") from error
        except CancelledError as error:
            expected, remedy = "a scheduler that lives on", "start it again, and give the same command again"
            raise ClusterError(address, expected, "one that is gone", remedy) from error
        except ImportError as error:
            expected, remedy = "workers with the same mer4d as here", "start them from the same environment"
            raise ClusterError(address, expected, error, remedy) from error


def _call(folder: Path, function: Callable[..., Any], *args: Any) -> Any:
    """What a worker does."""
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:  # a fold sets seeds, and threads of torch, for all of its process
        expected, found = "one thread", f"{worker.state.nthreads}"
        remedy = "start it with `dask worker --nthreads 1`, and `--nworkers` for several on a machine"
        raise ClusterError(f"worker {worker.address}", expected, found, remedy)
    try:
        os.chdir(folder)
    except OSError as error:
        expected, remedy = f"the folder {folder}", "work in a folder that all machines share"
        raise ClusterError(f"worker {worker.address}", expected, error, remedy) from error
    return function(*args)
