"""Digests of the data of trials, so that a score is never shown for data that have changed since."""

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
    """Return the values of a point that can decide which data its run reads. Pretrained networks prepare images."""
    decisive = ("config", "seed", "data", "data_dir", "model")
    return {key: value for key, value in point.items() if key.partition(".")[0] in decisive}


def summary_digest(summary: Mapping[str, Any]) -> str | None:
    """Return a short hash of the digest of the data in a summary.json; None if an old version wrote none."""
    from imbalance.data.identity import short_hash

    return short_hash(json.dumps(summary["data"], sort_keys=True).encode()) if "data" in summary else None


def recorded_digest(result: Mapping[str, Any]) -> str | None:
    """Return the hash of the digest with which a trial ended; None if it is not known.

    Trials of older versions did not record it, so it comes from the run directory.
    """
    if "data" in result:
        return result["data"]
    try:
        return summary_digest(summary_of(Path(result["run_directory"])))
    except (BadInput, OSError, KeyError):
        return None


class PresentData:
    """Hashes of the digests of the data that configs name now. Each data set is loaded once."""

    def __init__(self) -> None:
        self._by_point: dict[str, str | None] = {}
        self._by_data: dict[str, str | None] = {}

    def digest(self, point: Mapping[str, Any], work_dir: str) -> str | None:
        """Return the hash of the digest of the data of a point; None, and a line on stderr, if they cannot be read."""
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
    """Return all values on which the data set of a config depends, as text."""
    from imbalance.models import preparation_of
    from imbalance.training.stacked.train import draws_data

    values = [config.data.to_dict(), config.data_dir, repr(preparation_of(config.model))]
    return json.dumps([*values, config.seed if draws_data(config) else None], sort_keys=True)
