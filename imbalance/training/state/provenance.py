"""What a run is made of beside its config: the form of its files, its data and the packages; and what to do where these
are no longer what they were."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.data import Dataset
from imbalance.data.identity import differences, digest
from imbalance.errors import BadInput
from imbalance.training.learner import load_dataset
from imbalance.training.logging.run_log import versions

FORMAT = 2  # of the run directory and its checkpoints; a number more whenever an older program could misread them


def origin(data: Mapping[str, Any]) -> dict[str, Any]:
    """What checkpoints and summary.json say of it; `data` is the digest of the run's data set."""
    return {"format": FORMAT, "data": dict(data), "versions": versions()}


def check_format(found: Mapping[str, Any], path: Path, oldest: int = 0) -> None:
    """Raise `BadInput` if another version of this program wrote what `path` holds in a format that this one cannot read.

    Args:
        oldest: the oldest format that can be read; 0 is what does not say.
    """
    version = found.get("format", 0)
    if not isinstance(version, int) or not oldest <= version <= FORMAT:
        age = "another" if not isinstance(version, int) else "a newer" if version > FORMAT else "an older"
        raise BadInput(
            f"{path}: written by {age} version of imbalance (format {version}, this one reads {FORMAT}); "
            "go on with that version, or use another config.work_dir to start anew"
        )


def check_origin(found: Mapping[str, Any], data: Mapping[str, Any], path: Path, warn: Callable[[str], None]) -> None:
    """Compare what `path` says with the data and packages of now. Other packages are a warning.

    Raises:
        BadInput: the data are others.
    """
    if "data" not in found:
        warn(f"{path} does not say which data it is of: these may be others")
    else:
        other = differences(found["data"], data)
        if other:
            raise BadInput(
                f"config.data_dir: these are not the data that {path} is of ({'; '.join(other)}); use another "
                f"config.work_dir, or remove the run directory"
            )
    before, now = found.get("versions", {}), versions()
    changed = [f"{name} {before[name]}, now {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        warn(f"{path} was written with {'; '.join(changed)}")


def check_done(
    config: Experiment,
    summary: Mapping[str, Any],
    path: Path,
    warn: Callable[[str], None],
    dataset: Dataset | None = None,
) -> None:
    """`check_origin` of a run that is done. Where its data are not there any more, it stays done, and a line says so.

    Args:
        dataset: what a program gave; without one, what the config names.

    Raises:
        BadInput: there are other data in their place.
    """
    check_format(summary, path)
    try:
        data = digest(dataset or load_dataset(config))
    except (BadInput, OSError) as error:
        warn(f"WARNING: cannot compare the data with those of {path}: {error}")
        return
    check_origin(summary, data, path, warn)
