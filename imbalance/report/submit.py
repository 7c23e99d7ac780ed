"""Check submitted runs, and add their results to results/leaderboard.csv.

    imbalance submit --by="Ada Lovelace" --tuning="not tuned" --tuning_reads=none runs/colored_digits_dro/default/seed=*

Runs that differ only in their seed give one row. `imbalance submit` first checks every run:

- The run is finished, and no debug run.
- All logits are finite, and the accuracies are those of the saved predictions.
- The run recorded its code and its package versions.
- The data are a known data set, which this machine can load, and which is still the same.
- The epoch was not selected on test.
- At most 1 % of the test examples are in train or val.

The configs and summaries of the runs are kept as evidence in results/submitted/, and the row has their digest. Submitting
the same runs again changes nothing.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbalance.config.run_directory import read_predictions, read_run_config
from imbalance.config.schema import flatten
from imbalance.errors import BadInput
from imbalance.report.leaderboard import (
    EVIDENCE,
    KEY,
    NAME,
    Entry,
    about_config,
    add,
    digest_of,
    ordered,
    percent,
    read,
    result_cells,
)
from imbalance.report.saved_runs import summary_of
from imbalance.utils.files import write_atomic
from imbalance.utils.output import counted

OWN = ("arrays", "features", "folder", "in_memory", "table", "text")  # data sets that read a user's own files
SHARED_EXAMPLES = 0.01  # largest share of test examples that may also be in train or val; published splits share a few


def check_run(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check a run that is to be on the leaderboard; return its config and its summary.

    Raises:
        BadInput: the run fails a check that the docstring of this module lists, other than those of `check_data`.
    """
    from imbalance.training.state.provenance import check_commit, check_format  # here, because it imports torch

    def refuse(reason: str) -> BadInput:
        return BadInput(f"{directory}: {reason}")

    try:
        summary, config = summary_of(directory), read_run_config(directory)
    except FileNotFoundError:
        raise refuse("no finished run: it has no summary.json; train it to its end") from None
    check_format(summary, directory / "summary.json")
    if summary["status"] == "diverged":
        raise refuse("the run is diverged, so its method has no result; train all seeds with a smaller learning rate")
    if summary["status"] != "done":
        raise refuse(f"the run is {summary['status']}, and only finished runs are taken; train it to its end")
    if config["debug"]:
        raise refuse("a debug run; train without --config.debug")
    if config["data"]["name"] in OWN:
        raise refuse(
            f"config.data.name={config['data']['name']!r} reads files of your own, which nobody else can compare with; add a data set"
        )
    monitor = config["callbacks"]["monitor"]
    if config["callbacks"]["select"] == "best" and not monitor.startswith("val/"):
        raise refuse(f"config.callbacks.monitor={monitor!r} does not select on val; train with a metric of val")
    missing = [name for name in ("imbalance", "torch", "numpy") if not summary.get("versions", {}).get(name)]
    if missing:
        raise refuse(f"summary.json records no version of {', '.join(missing)}; train with this version of imbalance")
    check_commit(summary.get("commit"), str(directory))
    check_metrics(directory, summary)
    return config, summary


def check_metrics(directory: Path, summary: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless all logits of val and test are finite, and both accuracies are those of the saved predictions."""
    for split in ("val", "test"):
        saved = read_predictions(directory, split, summary)
        if not np.isfinite(saved["logits"]).all():
            raise BadInput(
                f"{directory}: predictions/{split}.npz has logits that are not finite; train with a smaller learning rate"
            )
        accuracy = summary["metrics"].get(f"{split}/accuracy")
        measured = float((saved["logits"].argmax(1) == saved["targets"]).mean())
        if accuracy is None or abs(accuracy - measured) > 1e-6:
            raise BadInput(
                f"{directory}: {split}/accuracy is {accuracy} in summary.json and {measured:.6f} in predictions/{split}.npz; train "
                "the run again"
            )


def check_data(directory: Path, summary: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless the run's data can be loaded, are still the same, and have few test examples in train or val."""
    from imbalance.config.resolve import resolve  # these import torch
    from imbalance.data.identity import differences, digest
    from imbalance.training.learner import load_dataset

    experiment, _ = resolve(directory / "config.json", {})
    try:
        dataset = load_dataset(experiment)
    except (BadInput, OSError) as error:
        raise BadInput(
            f"{directory}: the data cannot be loaded to compare them with those of the run: {error}"
        ) from None
    other = differences(summary["data"], digest(dataset))
    if other:
        raise BadInput(
            f"{directory}: the run's data are not the known data of config.data.name={experiment.data.name!r} "
            f"({'; '.join(other)}); train on the known data"
        )
    evaluated = dataset.eval_dataset
    earlier = np.concatenate([dataset.train.checksums, evaluated.val.checksums])
    share = float(np.isin(evaluated.test.checksums, earlier).mean())
    if share > SHARED_EXAMPLES:
        raise BadInput(
            f"{directory}: {share:.1%} of the test examples are also in train or val; split the data so that no example is in two splits"
        )


def identity(config: Mapping[str, Any]) -> str:
    """Return a text that two configs share if they differ only in the seed, the folders and the logger."""
    ignored = ("seed", "work_dir", "data_dir", "logger")
    return json.dumps({key: value for key, value in config.items() if key not in ignored}, sort_keys=True, default=str)


def metric_of(summary: Mapping[str, Any]) -> str:
    """Return the metric that ranks a data set: worst-group accuracy, or balanced accuracy if the groups are the classes."""
    same = list(summary["groups"]["test"]) == list(summary["classes"]["test"])
    return "balanced accuracy" if same else "worst-group accuracy"


METRIC_KEYS = {"balanced accuracy": "test/balanced_accuracy", "worst-group accuracy": "test/worst_group_accuracy"}


def submit(*, runs: Sequence[str], by: str, tuning: str, tuning_reads: str, results: str) -> str:
    """Check runs, and add a row for each setting to leaderboard.csv. Return the message to print.

    Args:
        runs: run directories; those that differ only in their seed give one row.
        by: name of the person or group that trained the runs.
        tuning: how the hyperparameters were chosen.
        tuning_reads: the labels of val that this choice read, one of LABELS.
        results: folder that holds leaderboard.csv.

    Raises:
        BadInput: a run fails a check. Then nothing is written.
    """
    if not by.strip():
        raise BadInput("--by is empty; type the name of who ran the runs, as --by='Ada Lovelace'")
    folder, settings = Path(results), {}
    for run in dict.fromkeys(map(Path, runs)):
        config, summary = check_run(run)
        settings.setdefault(identity(config), []).append((run, config, summary))
    digests = {row["digest"]: row for row in read(folder)}  # of the rows before this command
    messages, entries, evidence = [], [], {}
    for of_setting in settings.values():
        seeds = [config["seed"] for _, config, _ in of_setting]
        for (run, *_), seed in zip(of_setting, seeds):
            if seeds.count(seed) > 1:
                raise BadInput(f"{run}: another of these runs has the same config and seed {seed}; name each run once")
        lines = [
            json.dumps({"run": "/".join(run.absolute().parts[-3:]), "config": c, "summary": s}, sort_keys=True)
            for run, c, s in of_setting
        ]
        code = digest_of(lines)
        if code in digests:
            messages.append(f"done before: {code}, {digests[code]['data']}, {digests[code]['method']}")
            continue
        for run, _, summary in of_setting:
            check_data(run, summary)
        entry = submitted_entry(of_setting, code, by, {"tuning": tuning, "labels in tuning": tuning_reads})
        if any(all(entry[column] == other[column] for column in KEY) for other in entries):
            raise BadInput(
                f"{of_setting[0][0]}: other runs of this submission have the same name, {entry['config']}, and another config, so "
                "their rows could not be told apart; give the changed config file another name, and train with that"
            )
        entries.append(entry)
        evidence[folder / EVIDENCE / f"{code}.jsonl.gz"] = lines
        messages.append(
            f"{entry['data']}, {entry['method']}: {entry['metric']} {percent(entry)}, n = {entry['n']}; digest {code}"
        )
    if entries:
        add(folder, entries)
    for path, lines in evidence.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress("\n".join(sorted(lines)).encode() + b"\n", 9, mtime=0))
    for code in digests.keys() - {row["digest"] for row in read(folder)}:  # rows that were replaced
        (folder / EVIDENCE / f"{code}.jsonl.gz").unlink(missing_ok=True)
    return "\n".join([*messages, f"{folder / NAME}: {counted(len(entries), 'row')} added or replaced"])


def submitted_entry(
    of_setting: Sequence[tuple[Path, Mapping[str, Any], Mapping[str, Any]]], code: str, by: str, tuning: Entry
) -> Entry:
    """Return the row of runs that differ only in their seed.

    Args:
        of_setting: the directory, the config and the summary of each run.
        code: the digest of all these runs.
        tuning: the cells "tuning" and "labels in tuning".
    """
    run, config, summary = of_setting[0]
    metric = metric_of(summary)
    values = {c["seed"]: s["metrics"][METRIC_KEYS[metric]] for _, c, s in of_setting}
    lacking = [seed for seed, value in values.items() if value is None]
    if lacking:
        raise BadInput(
            f"{run}: the {metric} of seed {lacking[0]} is 0/0, because a class or group has no test example; submit "
            "runs whose test split has examples of every class and group"
        )
    commits = sorted({str(s["commit"] or f"v{s['versions']['imbalance']}")[:10] for _, _, s in of_setting})
    name, overrides = run.absolute().parts[-3:-1]
    draws = {json.dumps(s["data"], sort_keys=True) for _, _, s in of_setting}
    return ordered(
        about_config(flatten(config)),
        result_cells(values),
        tuning,
        {"test examples": str(summary["data"]["test"]["examples"]), "draws": str(len(draws))},
        {"metric": metric, "config": name, "settings": "" if overrides == "default" else overrides},
        {"digest": code, "evidence": f"results/{EVIDENCE}/{code}.jsonl.gz", "commit": " ".join(commits), "by": by},
    )
