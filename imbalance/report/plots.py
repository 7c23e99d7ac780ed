"""The figures of a report: learning curves of every group, score against learning rate, box plots over seeds, and
decision boundaries where inputs have two dimensions."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imbalance.config.resolve import load
from imbalance.report.collect import Row
from imbalance.report.figures import NEUTRAL, PALETTE, label, save, subplots
from imbalance.report.saved_runs import readable_evaluations

if TYPE_CHECKING:
    from imbalance.data import Dataset

MOST_CURVES = 12
Groups = dict[tuple[str, str], list[Row]]


def draw(work_dir: Path, groups: Groups, metrics: list[str], folder: Path) -> list[tuple[str, Path]]:
    """Title and PNG file of each figure that the runs have something for."""
    figures = []
    for title, name, figure in (
        (
            f"Learning curves of {min(MOST_CURVES, len(groups))} of {len(groups)} configs",
            "curves",
            curves(work_dir, groups),
        ),
        ("Score against learning rate", "rates", rates(groups)),
        ("Over seeds", "boxes", boxes(groups, metrics)),
        ("Decisions, over a training set", "boundaries", boundaries(work_dir, groups)),
    ):
        if figure:
            figures.append((title, save(figure, folder, name)[0]))
    return figures


def title_of(key: tuple[str, str], width: int = 34) -> str:
    """Config and overrides, the overrides on lines of their own."""
    name, overrides = key
    lines = [name, *([] if overrides == "default" else overrides.split(","))]
    return "\n".join(label(line if len(line) <= width else line[: width - 1] + "…") for line in lines)


def curves(work_dir: Path, groups: Groups):
    """Val accuracy of every group by epoch, the mean over seeds, and their range where groups are few.

    Of the first MOST_CURVES configs.
    """
    shown = list(groups.items())[:MOST_CURVES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    tallest = max(title_of(key).count("\n") for key, _ in shown)
    figure, axes = subplots(rows, columns, 2.9 * columns, (2.1 + 0.16 * tallest) * rows, squeeze=False, sharey=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, (key, runs) in zip(axes.flat, shown):
        found: dict[str, dict[int, list[float]]] = {}
        for run in runs:
            path = work_dir / run["run"]
            for line in readable_evaluations(path)[0]:
                for name, value in line.items():
                    if name.startswith("val/group_accuracy/") and value is not None:
                        found.setdefault(name.rpartition("/")[2], {}).setdefault(line["epoch"], []).append(100 * value)
        for i, (group, by_epoch) in enumerate(found.items()):
            epochs = sorted(by_epoch)
            colour = PALETTE[i % len(PALETTE)]
            axis.plot(epochs, [np.mean(by_epoch[e]) for e in epochs], color=colour, linewidth=1.2, label=label(group),
                      linestyle=("-", "--")[i // len(PALETTE) % 2], marker="." if len(epochs) == 1 else "")  # fmt: skip
            low, high = ([end(by_epoch[e]) for e in epochs] for end in (min, max))
            if len(found) <= 4:  # more would hide one another
                axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_title(title_of(key), fontsize=8)
        axis.set(xlabel="epoch", ylim=(-2, 102))
        if not found:
            axis.text(0.5, 0.5, "no evaluation", transform=axis.transAxes, ha="center", color=NEUTRAL)
            axis.set_xticks([])
        else:
            axis.legend(fontsize=6, ncols=2, loc="lower right", handlelength=1.2, labelspacing=0.2)
    for axis in axes[:, 0]:
        axis.set_ylabel("val accuracy of a group, %")
    return figure


def rates(groups: Groups):
    """The score of every run by its learning rate; what diverged is a cross at the bottom. None for a single rate."""
    by_name: dict[str, list[Row]] = {}
    for (name, overrides), runs in groups.items():
        rest = ",".join(part for part in overrides.split(",") if not part.startswith("optim.lr=")) or "default"
        by_name.setdefault(title_of((name, rest)).replace("\n", ", "), []).extend(runs)
    by_name = {n: runs for n, runs in by_name.items() if len({run["config.optim.lr"] for run in runs}) > 1}
    if not by_name:
        return None
    figure, axis = subplots(1, 1, 7.2, 3.4 + 0.16 * len(by_name))
    for i, (name, runs) in enumerate(by_name.items()):
        colour, marker = PALETTE[i % len(PALETTE)], "osD^v<>"[i % 7]
        done = [(run["config.optim.lr"], 100 * run["score"]) for run in runs if run["score"] is not None]
        axis.plot(*zip(*done), marker, color=colour, markersize=4, alpha=0.7, label=name) if done else None
        means = [(rate, np.mean([s for r, s in done if r == rate])) for rate in sorted({r for r, _ in done})]
        axis.plot(*zip(*means), color=colour, linewidth=1.2) if means else None
        lost = [run["config.optim.lr"] for run in runs if run["status"] == "diverged"]
        axis.plot(lost, [0.03] * len(lost), "x", color=colour, transform=axis.get_xaxis_transform(), clip_on=False)
    axis.set(xscale="log", xlabel="learning rate (× diverged)", ylabel="score on val, %")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1)
    return figure


def boxes(groups: Groups, metrics: list[str]):
    """Test metrics of every config with at least two seeds; every seed is a point. None where there are none."""
    shown = {key: [run for run in runs if run["status"] == "done"] for key, runs in groups.items()}
    shown = {key: runs for key, runs in shown.items() if len(runs) > 1}
    if not shown:
        return None
    lines = sum(title_of(key).count("\n") + 2 for key in shown)
    figure, axes = subplots(1, len(metrics), 7.2, 1 + 0.17 * lines, squeeze=False, sharey=True)
    for axis, metric in zip(axes[0], metrics):
        values = [[100 * run[f"test/{metric}"] for run in runs if run.get(f"test/{metric}") is not None] for runs in shown.values()]  # fmt: skip
        at = np.arange(len(shown))
        axis.boxplot(values, positions=at, orientation="horizontal", widths=0.5, showfliers=False,
                     medianprops={"color": PALETTE[1]}, boxprops={"color": NEUTRAL}, whiskerprops={"color": NEUTRAL},
                     capprops={"color": NEUTRAL})  # fmt: skip
        for y, of_config in zip(at, values):
            axis.plot(of_config, np.full(len(of_config), y), "o", color=PALETTE[0], markersize=3, alpha=0.7)
        axis.set(xlabel=f"test {metric.replace('_', ' ')}, %", ylim=(len(shown) - 0.5, -0.5))
        axis.set_yticks(at, [title_of(key) for key in shown], fontsize=7)
    return figure


def boundaries(work_dir: Path, groups: Groups):
    """What the first finished run of a config decides where, over the examples that it learnt from.

    Of the first MOST_CURVES configs whose inputs have two dimensions; None where there are none.
    """
    planar = [
        (key, run)
        for key, runs in groups.items()
        for run in [run for run in runs if run["status"] == "done" and run.get("config.data.dim") == 2][:1]
    ][:MOST_CURVES]
    if not planar:
        return None
    columns = min(3, len(planar))
    rows, tallest = -(-len(planar) // columns), max(title_of(key).count("\n") for key, _ in planar)
    figure, axes = subplots(rows, columns, 2.9 * columns, (3.3 + 0.16 * tallest) * rows, squeeze=False)
    for axis in axes.flat[len(planar) :]:
        axis.set_visible(False)
    for axis, (key, run) in zip(axes.flat, planar):
        dataset, x, y, decided = decisions(work_dir / run["run"])
        inputs, targets = dataset.train.inputs.numpy(), dataset.train.targets.numpy()
        axis.contourf(x, y, decided, levels=np.arange(dataset.num_classes + 1) - 0.5, alpha=0.2,
                      colors=[PALETTE[k % len(PALETTE)] for k in range(dataset.num_classes)])  # fmt: skip
        for k, name in enumerate(dataset.class_names):
            axis.plot(*inputs[targets == k].T, "o^sDv<>"[k % 7], color=PALETTE[k % len(PALETTE)], markersize=3,
                      alpha=0.7, label=label(name))  # fmt: skip
        axis.set_title(f"{title_of(key)}\nseed {run['seed']}", fontsize=8)
        axis.set_aspect("equal")
        axis.legend(fontsize=6, title="class", title_fontsize=6)
    return figure


def decisions(directory: Path) -> tuple["Dataset", np.ndarray, np.ndarray, np.ndarray]:
    """A run's data set, and the class that its model decides on at every place (y, x) of a grid around its examples."""
    import torch

    from imbalance.config.schema import build
    from imbalance.data import DATASETS
    from imbalance.models import MODELS

    config = load(directory / "config.json")
    dataset = build(DATASETS, config.data, data_dir=config.data_dir, seed=config.seed)
    model = build(MODELS, config.model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    model.load_state_dict(torch.load(directory / "checkpoints" / "selected.pt", map_location="cpu", weights_only=True))
    inputs = dataset.train.inputs.numpy()
    x, y = (np.linspace(inputs[:, i].min() - 1, inputs[:, i].max() + 1, 200) for i in range(2))
    places = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).float()
    with torch.no_grad():
        decided = model.float().eval()(places).argmax(1)
    return dataset, x, y, decided.view(len(y), len(x)).numpy()
