"""Workers for a study, here or on a cluster."""

from collections.abc import Sequence

from imbalance.errors import BadInput

from . import study
from .runs import workers
from .study import Place, Search


def launch(place: Place, search: Search | None, jobs: int, at_once: int, launcher: str, slurm: Sequence[str]) -> int:
    """Work on the study until no trial is left, and return how many crashed.

    Args:
        launcher: "local", or "slurm" for an array of jobs.
        slurm: parameters of submitit's, such as "timeout_min=60".
    """
    if launcher == "slurm":
        from . import slurm as cluster

        return cluster.run(place, search, jobs, at_once, slurm)
    if slurm:
        raise BadInput(f"--slurm={slurm[0]}: is for --launcher=slurm")
    with workers(jobs) as pool:
        ends = [pool.submit(study.work, place, search, True, jobs, at_once) for _ in range(jobs)]
        return sum(end.result() for end in ends)
