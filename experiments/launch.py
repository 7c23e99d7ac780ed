"""Workers for a study, here or on a cluster, by the flags that sweeps and protocols share."""

from absl import flags

from . import study
from .runs import AT_ONCE, JOBS, WORK_DIR, workers
from .study import Place, Search

STUDY = flags.DEFINE_string("study", None, "The study's name; by default the first config's, or the protocol's.")
STORAGE = flags.DEFINE_string("storage", "", "Optuna's storage; by default SQLite in <work_dir>/sweeps/<study>.")
LAUNCHER = flags.DEFINE_enum("launcher", "local", ["local", "slurm"], "Where the workers run.")
SLURM = flags.DEFINE_multi_string("slurm", [], "Of submitit's parameters: timeout_min=60, slurm_partition=gpu, …")


def place(name: str) -> Place:
    """Where the flags put a study, by default under `name`."""
    return Place(STUDY.value or name, WORK_DIR.value, STORAGE.value)


def launch(place: Place, search: Search | None = None) -> int:
    """Work on the study until no trial is left, and return how many crashed."""
    if LAUNCHER.value == "slurm":
        from . import slurm

        return slurm.run(place, search, JOBS.value, AT_ONCE.value, SLURM.value)
    with workers(JOBS.value) as pool:
        ends = [pool.submit(study.work, place, search, True, JOBS.value, AT_ONCE.value) for _ in range(JOBS.value)]
        return sum(end.result() for end in ends)
