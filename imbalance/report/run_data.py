"""Load the data of a finished run, to show examples of them.

A run directory may come from a stranger, so a report runs no Python code that the files of the run name. Data can
change after a run, so a report shows examples only if the data are still those of the run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imbalance.config.run_directory import read_predictions, read_run_config
from imbalance.config.user_modules import user_module_files
from imbalance.errors import BadInput
from imbalance.report.saved_runs import summary_of

if TYPE_CHECKING:
    from imbalance.data import Dataset


def load_run_data(directory: Path) -> "Dataset":
    """Load the data set that the finished run in `directory` was trained and evaluated on.

    Raises:
        BadInput: the config names Python code of the user, or the data cannot be read or have changed since the run.
    """
    values = read_run_config(directory)
    check_no_code(values)

    from imbalance.config.experiment import validate
    from imbalance.config.resolve import load
    from imbalance.data.identity import differences, digest
    from imbalance.training.learner import load_dataset

    dataset = load_dataset(validate(load(directory / "config.json")))
    saved = summary_of(directory).get("data")
    changes = [] if saved is None else differences(saved, digest(dataset))
    if not changes:  # runs of the first versions have no digest of their data, but all have predictions
        predictions, split = read_predictions(directory, "test"), dataset.eval_dataset.test
        for name in ("targets", "indices"):
            now = getattr(split, name).numpy()[: len(predictions[name])]
            changes += [] if now.tolist() == predictions[name].tolist() else [f"test: other {name}"]
    if changes:
        raise BadInput(f"the data have changed since the run ({'; '.join(changes)})")
    return dataset


def check_no_code(values: Mapping[str, Any]) -> None:
    """Raise `BadInput` if a section of `values`, read from a file of a run directory, names a Python file of a user."""
    if files := user_module_files(values):
        raise BadInput(f"the run uses Python code of its user ({files[0]}), which a report does not run")
