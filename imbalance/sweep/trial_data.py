"""Digests of the data of trials: a score is not shown if the data have changed since the trial."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput
from imbalance.report.saved_runs import summary_of
from imbalance.sweep.runs import make_run


def data_part(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a point on which its data depend; among them `model`, which can decide the image size."""
    decisive = ("config", "seed", "data", "data_dir", "model")
    return {key: value for key, value in point.items() if key.partition(".")[0] in decisive}


def summary_digest(summary: Mapping[str, Any]) -> str | None:
    """Return a short hash of the digest of the data in a summary.json; None if an old version wrote no digest."""
    from imbalance.data.identity import COLUMNS, short_hash

    if "data" not in summary:
        return None
    # A score does not depend on the names of input columns, and trials of older versions were hashed without them.
    data = {
        part: {key: value for key, value in hashes.items() if key != COLUMNS}
        for part, hashes in summary["data"].items()
    }
    return short_hash(json.dumps(data, sort_keys=True).encode())


def recorded_digest(result: Mapping[str, Any]) -> str | None:
    """Return the hash of the data on which a trial was trained, as the study records it; None if it is not known.

    A study of an older version has no such hash; then compute it from the digest in the run directory.
    """
    if "data" in result:
        return result["data"]
    try:
        return summary_digest(summary_of(Path(result["run_directory"])))
    except (BadInput, OSError, KeyError):
        return None


class PresentData:
    """Hashes of the data of points as they are now, to compare with those of finished trials.

    Each data set is loaded once.
    """

    def __init__(self) -> None:
        self._by_point: dict[str, str | None] = {}
        self._by_data: dict[str, str | None] = {}

    def digest(self, point: Mapping[str, Any], work_dir: str) -> str | None:
        """Return the hash of a point's data as they are now; if they cannot be read, warn on stderr, and return None."""
        part = json.dumps(data_part(point), sort_keys=True)
        if part not in self._by_point:
            overrides = {key: value for key, value in point.items() if key not in ("config", "seed")}
            try:
                self._by_point[part] = self._load(make_run(point["config"], overrides, point["seed"], work_dir).config)
            except (BadInput, OSError) as error:
                print(f"cannot compare the data with those of finished trials: {error}", file=sys.stderr, flush=True)
                self._by_point[part] = None
        return self._by_point[part]

    def _load(self, config: Experiment) -> str | None:
        from imbalance.data.identity import digest
        from imbalance.training.learner import load_dataset

        key = _data_key(config)
        if key not in self._by_data:
            self._by_data[key] = summary_digest({"data": digest(load_dataset(config))})
        return self._by_data[key]


def _data_key(config: Experiment) -> str:
    """Return, as text, all config values on which the data set depends."""
    from imbalance.models import preparation_of
    from imbalance.training.stacked.train import draws_data

    values = [config.data.to_dict(), config.data_dir, repr(preparation_of(config.model))]
    return json.dumps([*values, config.seed if draws_data(config) else None], sort_keys=True)
