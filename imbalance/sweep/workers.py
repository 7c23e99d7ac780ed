"""Workers for a study, here or on a cluster."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from imbalance.errors import BadInput
from imbalance.sweep import study
from imbalance.sweep.progress import INTERVAL, Line, standing
from imbalance.sweep.runs import workers
from imbalance.sweep.study import Place, Search


def launch(place: Place, search: Search | None, jobs: int, at_once: int, launcher: str, slurm: Sequence[str]) -> int:
    """Work on the study until no trial is left, and return how many crashed.

    Args:
        launcher: "local", or "slurm" for an array of jobs.
        slurm: parameters of submitit's, such as "timeout_min=60".
    """
    if launcher == "slurm":
        from imbalance.sweep import slurm as cluster

        return cluster.run(place, search, jobs, at_once, slurm)
    if slurm:
        raise BadInput(f"--slurm={slurm[0]}: is for --launcher=slurm")
    with workers(jobs) as pool:
        ends = [pool.submit(study.work, place, search, True, jobs, at_once) for _ in range(jobs)]
        follow(place, ends, jobs)
        return sum(end.result() for end in ends)


def follow(place: Place, ends: Sequence[Future], jobs: int) -> None:
    """Show how the study stands, every few seconds until the workers have ended."""
    before = None
    with Line() as line:
        while True:
            waiting = wait(ends, timeout=INTERVAL, return_when=FIRST_EXCEPTION).not_done
            if any(end.done() and end.exception() for end in ends):
                return  # which `launch` raises
            found = study.points_of(study.open_study(place))
            scores: dict[str, list[float]] = {}
            for point, trial in found:
                setting = ", ".join(f"{key}={value}" for key, value in point.items() if key != "seed")
                if trial.value is not None:
                    scores.setdefault(setting, []).append(trial.value)
            done = sum(study.status(trial) != "unfinished" for _, trial in found)
            before = done if before is None else before
            running = min(jobs, len(found) - done) if waiting else 0
            line.show(standing(len(found), done, before, running, scores, line.seconds), last=not waiting)
            if not waiting:
                return
