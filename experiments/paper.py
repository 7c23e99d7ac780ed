"""What figures 3 to 5 share: runs of the paper's rows, and the paper's own values beside ours.

The paper's are the means and standard deviations of its published runs, in published.csv. Ours is group-balanced test
accuracy too, the mean of the groups' accuracies.
"""

from collections.abc import Mapping

import numpy as np
from absl import flags

from experiments.figures import FOLDER, PALETTE, published, save, subplots
from experiments.runs import AT_ONCE, DATA, JOBS, SEEDS, WORK_DIR, Summary, configured, run_all, summary_of
from experiments.statistics import Mean, mean
from imbalance.errors import BadInput

TRAIN = flags.DEFINE_bool("train", True, "Train what is missing; --notrain shows what there is.")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the data are.")

# What the paper calls a row → the config and what differs from it.
Rows = Mapping[str, tuple[str, dict]]


def compare(name: str, title: str, rows: Mapping[str, Rows]) -> int:
    """Train, print the table and draw the bars of one figure; `rows` are those of each data set."""
    found = {}
    for data in DATA.value or rows:
        if data not in rows:
            raise BadInput(f"--data={data}; valid: {', '.join(rows)}")
        runs = {
            row: [configured(c, o | {"data_dir": DATA_DIR.value}, s, WORK_DIR.value) for s in range(SEEDS.value)]
            for row, (c, o) in rows[data].items()
        }
        if TRAIN.value:
            run_all([run for of_row in runs.values() for run in of_row], JOBS.value, AT_ONCE.value)
        for row, of_row in runs.items():
            there = [run.directory for run in of_row if (run.directory / "summary.json").exists()]
            found[data, row] = [summary_of(directory) for directory in there]
    print_ledger(name, rows, found)
    draw(name, title, {key: mean([group_balanced(s) for s in summaries]) for key, summaries in found.items()})
    return 0


def print_ledger(name: str, rows: Mapping[str, Rows], found: Mapping[tuple[str, str], list[Summary]]) -> None:
    """What was claimed, what came out, on what, in what time, by which code."""
    print("| data | row | config | paper: mean ± standard deviation | n | ours: mean ± 95 % t-interval | n | not done "
          "| device | minutes a run | commit |")  # fmt: skip
    print("|---" * 11 + "|")
    for (data, row), summaries in found.items():
        theirs, done = published(f"{name} {data}", row), [s for s in summaries if s["status"] == "done"]
        ours, minutes = mean([group_balanced(s) for s in done]), mean([s["seconds"] / 60 for s in done])
        devices, commits = (", ".join(sorted({of(s) for s in done})) or "–" for of in (device, commit))
        print(
            f"| {data} | {row} | {rows[data][row][0]} | {theirs.value:.1f} ± {theirs.standard_deviation:.1f} "
            f"| {theirs.n} | {ours.percent()} | {ours.n} | {len(summaries) - len(done)} | {devices} "
            f"| {minutes.text(1, 1)} | {commits} |"
        )


def device(summary: Summary) -> str:
    return summary["device"]


def commit(summary: Summary) -> str:
    """Short, and "+" where the code had changes."""
    whole = summary["commit"] or "unknown"
    return whole[:7] + ("+" if whole.endswith("+") else "")


def group_balanced(summary: Summary) -> float:
    """The mean of the test accuracies of all groups; nan where the run has none."""
    if summary["status"] != "done":
        return np.nan
    values = [value for key, value in summary["metrics"].items() if key.startswith("test/group_accuracy/")]
    return float(np.mean(values))


def draw(name: str, title: str, found: dict[tuple[str, str], Mean]) -> None:
    """Bars of the paper's values, with its standard deviations, beside ours, with our intervals."""
    data_sets = list(dict.fromkeys(data for data, _ in found))
    figure, axes = subplots(1, len(data_sets), 3.8 * len(data_sets), 3.4, squeeze=False)
    for axis, data in zip(axes[0], data_sets):
        rows = [row for of, row in found if of == data]
        at, theirs, ours = np.arange(len(rows)), [published(f"{name} {data}", r) for r in rows], [found[data, r] for r in rows]  # fmt: skip
        axis.bar(at - 0.2, [t.value for t in theirs], 0.38, yerr=[t.standard_deviation for t in theirs],
                 color=PALETTE[5], capsize=2, label="paper, ± standard deviation")  # fmt: skip
        axis.bar(at + 0.2, [100 * o.value for o in ours], 0.38, yerr=[np.nan_to_num(100 * o.half) for o in ours],
                 color=PALETTE[0], capsize=2, label="ours, ± 95 % interval")  # fmt: skip
        axis.set_xticks(at, rows, rotation=35, ha="right")
        axis.set(title=f"{title}, {data}", ylabel="group-balanced test accuracy, %", ylim=(50, None))
        axis.legend(loc="upper left")
    save(figure, FOLDER.value, name)
