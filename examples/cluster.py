"""Starts a Dask scheduler and two workers on this machine, and a command of `mer4d` that uses them.

    .venv/bin/python examples/cluster.py .venv/bin/mer4d loso --config configs/synthetic.yaml --loso.name cluster

On a cluster these are three commands, each where it belongs: `dask scheduler` once, `dask worker ADDRESS --nthreads 1
--nworkers auto` on every machine, and `mer4d loso ... --loso.scheduler ADDRESS` anywhere; docs/cluster.md has SLURM.
"""

import subprocess
import sys

from distributed import LocalCluster


def main() -> int:
    """Runs the command that the arguments are, and returns its exit code."""
    # In processes of their own with one thread each, as a fold needs it.
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        print(f"Dask: {cluster.scheduler_address}, {len(cluster.workers)} workers")
        return subprocess.run([*sys.argv[1:], "--loso.scheduler", cluster.scheduler_address], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
