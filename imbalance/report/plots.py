"""Draw a report's figures: learning curves, score against learning rate, box plots over seeds, decision boundaries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imbalance.errors import BadInput
from imbalance.report.collect import Row
from imbalance.report.plot_style import NEUTRAL, PALETTE, save, subplots, wrapped
from imbalance.report.run_data import check_no_code, load_run_data
from imbalance.report.saved_runs import readable_evaluations
from imbalance.utils.output import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from imbalance.data import Dataset

MOST_CURVES = 12  # most settings whose curves are drawn, one panel each
MOST_BOXES = 40  # most settings with a box
CHARACTER, HANDLE = 0.065, 0.5  # inches of a character and of a handle in a legend, for the widest fonts of our figures
Settings = dict[tuple[str, str], list[Row]]  # by config and overrides, the rows of a setting's runs
NAMES = ("curves", "rates", "boxes", "boundaries")  # names of the files of the figures, without suffix


def draw(work_dir: Path, settings: Settings, metrics: Sequence[str], folder: Path) -> list[tuple[str, Path]]:
    """Draw the figures for which the runs have data; return the title and the PNG file of each.

    The files are written to `folder`.

    Args:
        work_dir: folder of the run directories.
        settings: by config and overrides, the rows of the runs, which differ only in the seed.
        metrics: test metrics of the box plots.
    """
    figures = []
    titles = (
        f"Learning curves of {min(MOST_CURVES, len(settings))} of {len(settings)} configs",
        "Score against learning rate",
        "Over seeds",
        "Decision boundaries",
    )
    drawn = curves(work_dir, settings), rates(settings), boxes(settings, metrics), boundaries(work_dir, settings)
    for title, name, figure in zip(titles, NAMES, drawn, strict=True):
        if figure:
            figures.append((title, save(figure, folder, name)[0]))
    return figures


def title_of(key: tuple[str, str]) -> str:
    """Return the title of a panel: the config's name and each override on a line of its own, or on several if it is long.

    Args:
        key: config name and overrides.
    """
    name, overrides = key
    return "\n".join(wrapped(text, 34) for text in [name, *([] if overrides == "default" else overrides.split(","))])


def legend_below(figure: "Figure", handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Write a legend below all axes of a figure, in as many columns as fit, and make the figure higher by the legend."""
    width, height = figure.get_size_inches()
    longest = max(map(len, names))
    columns = max(1, min(len(names), int(width / (CHARACTER * longest + HANDLE))))
    texts = [wrapped(name, int((width / columns - HANDLE) / CHARACTER)) for name in names]
    lines = [
        max(text.count("\n") + 1 for text in texts[i :: -(-len(texts) // columns)])
        for i in range(-(-len(texts) // columns))
    ]
    figure.set_size_inches(width, height + 0.16 * sum(lines))
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, **options)


def curves(work_dir: Path, settings: Settings) -> "Figure":
    """Draw the val accuracy of every group by epoch, in one panel for each of the first MOST_CURVES settings.

    Lines are means over seeds. If there are at most four groups, bands show the range over seeds. A setting is a config
    with overrides, and its runs differ only in the seed.
    """
    shown = list(settings.items())[:MOST_CURVES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    tallest = max(title_of(key).count("\n") for key, _ in shown)
    groups_per_panel = []
    figure, axes = subplots(rows, columns, 2.9 * columns, (2.1 + 0.16 * tallest) * rows, squeeze=False, sharey=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, (key, runs) in zip(axes.flat, shown):
        accuracies: dict[str, dict[int, list[float]]] = {}  # by group and epoch, the accuracies of all seeds
        for run in runs:
            path = work_dir / run["run"]
            for line in readable_evaluations(path)[0]:
                for name, value in line.items():
                    if name.startswith("val/group_accuracy/") and value is not None:
                        by_epoch = accuracies.setdefault(name.rpartition("/")[2], {})
                        by_epoch.setdefault(line["epoch"], []).append(100 * value)
        for i, by_epoch in enumerate(accuracies.values()):
            epochs = sorted(by_epoch)
            colour = PALETTE[i % len(PALETTE)]
            axis.plot(epochs, [np.mean(by_epoch[e]) for e in epochs], color=colour, linewidth=1.2,
                      linestyle=("-", "--")[i // len(PALETTE) % 2], marker="." if len(epochs) == 1 else "")  # fmt: skip
            low, high = ([end(by_epoch[e]) for e in epochs] for end in (min, max))
            if len(accuracies) <= 4:  # more bands would hide one another
                axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_title(title_of(key), fontsize=8)
        axis.set(xlabel="epoch", ylim=(-2, 102))
        if accuracies:
            groups_per_panel.append((axis, list(accuracies)))
        else:
            axis.text(0.5, 0.5, "no evaluation", transform=axis.transAxes, ha="center", color=NEUTRAL)
            axis.set_xticks([])
    style: dict[str, Any] = {"fontsize": 6, "handlelength": 1.2, "labelspacing": 0.2}
    if len({tuple(groups) for _, groups in groups_per_panel}) == 1:  # the panels share their groups, and a legend
        axis, groups = groups_per_panel[0]
        legend_below(figure, axis.get_lines(), groups, **style)
    else:
        for axis, groups in groups_per_panel:
            axis.legend(axis.get_lines(), [wrapped(group, 22) for group in groups], ncols=2, loc="lower right", **style)
    for axis in axes[:, 0]:
        axis.set_ylabel("val accuracy of a group, %")
    return figure


def rates(settings: Settings) -> "Figure | None":
    """Draw the score of every run against its learning rate, with a cross at the bottom for each diverged run.

    Return None if no config has runs at several learning rates.

    Args:
        settings: by config and overrides, the rows of the runs.
    """
    by_name: dict[str, list[Row]] = {}
    for (name, overrides), runs in settings.items():
        rest = [part for part in overrides.split(",") if not part.startswith("optim.lr=") and part != "default"]
        # An optimiser without a learning rate, such as lbfgs, has no place in this figure.
        by_name.setdefault(", ".join([name, *rest]), []).extend(run for run in runs if "config.optim.lr" in run)
    by_name = {n: runs for n, runs in by_name.items() if len({run["config.optim.lr"] for run in runs}) > 1}
    if not by_name:
        return None
    figure, axis = subplots(1, 1, 7.2, 3.6)
    from matplotlib.lines import Line2D  # after `subplots`, which says if matplotlib is missing

    handles = []
    for i, runs in enumerate(by_name.values()):
        colour, marker = PALETTE[i % len(PALETTE)], "osD^v<>"[i % 7]
        line: dict[str, Any] = {"color": colour, "linewidth": 1.2, "linestyle": ("-", "--", ":")[i // len(PALETTE) % 3]}
        handles.append(Line2D([], [], marker=marker, markersize=4, **line))
        done = [(run["config.optim.lr"], 100 * run["score"]) for run in runs if run["score"] is not None]
        axis.plot(*zip(*done), marker, color=colour, markersize=4, alpha=0.7) if done else None
        means = [(rate, np.mean([s for r, s in done if r == rate])) for rate in sorted({r for r, _ in done})]
        axis.plot(*zip(*means), **line) if means else None
        lost = [run["config.optim.lr"] for run in runs if run["status"] == "diverged"]
        if lost:  # markers of no points would have a place outside the axes, for which the layout would make room
            axis.plot(lost, [0.03] * len(lost), "x", color=colour, transform=axis.get_xaxis_transform(), clip_on=False)
    axis.set(xscale="log", xlabel="learning rate (× diverged)", ylabel="score on val, %")
    legend_below(figure, handles, list(by_name))
    return figure


def boxes(settings: Settings, metrics: Sequence[str]) -> "Figure | None":
    """Draw a box plot of each test metric for every setting with at least two done runs; each run is a point.

    The runs of a setting differ only in the seed. Of more than MOST_BOXES settings, those with the best mean score on val
    are drawn. Return None if no setting has two done runs.
    """
    shown = {key: [run for run in runs if run["status"] == "done"] for key, runs in settings.items()}
    shown = {key: runs for key, runs in shown.items() if len(runs) > 1}
    if not shown:
        return None
    if len(shown) > MOST_BOXES:
        scores = {key: np.mean([run["score"] or 0 for run in runs]) for key, runs in shown.items()}  # None: 0/0
        worst_first = sorted(scores, key=lambda key: scores[key])
        shown = {key: runs for key, runs in shown.items() if key in worst_first[-MOST_BOXES:]}
    lines = sum(title_of(key).count("\n") + 2 for key in shown)
    figure, axes = subplots(1, len(metrics), 7.2, 1 + 0.17 * lines, squeeze=False, sharey=True)
    for axis, metric in zip(axes[0], metrics):
        values = [[100 * run[f"test/{metric}"] for run in runs if run.get(f"test/{metric}") is not None] for runs in shown.values()]  # fmt: skip
        at = np.arange(len(shown))
        axis.boxplot(values, positions=at, orientation="horizontal", widths=0.5, showfliers=False,
                     medianprops={"color": PALETTE[1]}, boxprops={"color": NEUTRAL}, whiskerprops={"color": NEUTRAL},
                     capprops={"color": NEUTRAL})  # fmt: skip
        for y, points in zip(at, values):
            axis.plot(points, np.full(len(points), y), "o", color=PALETTE[0], markersize=3, alpha=0.7)
        axis.set(xlabel=wrapped(f"test {metric.replace('_', ' ')}, %", 34), ylim=(len(shown) - 0.5, -0.5))
        axis.set_yticks(at, [title_of(key) for key in shown], fontsize=7)
    return figure


def boundaries(work_dir: Path, settings: Settings) -> "Figure | None":
    """Draw the decision regions and training examples of the first done run of each setting with two-dimensional inputs.

    At most MOST_CURVES settings are drawn. Return None if no setting has a done run with two-dimensional inputs.
    """
    planar = [
        (key, run)
        for key, runs in settings.items()
        for run in [run for run in runs if run["status"] == "done" and run.get("config.data.dim") == 2][:1]
    ][:MOST_CURVES]
    drawn = []
    for key, run in planar:
        try:
            drawn.append((key, run, decisions(work_dir / run["run"])))
        except (BadInput, OSError) as error:
            text = f"{work_dir / run['run']} is left out of the figure of decision boundaries: {error}"
            print(one_line(text), file=sys.stderr)
    if not drawn:
        return None
    columns = min(3, len(drawn))
    rows, tallest = -(-len(drawn) // columns), max(title_of(key).count("\n") for key, *_ in drawn)
    figure, axes = subplots(rows, columns, 2.9 * columns, (3.3 + 0.16 * tallest) * rows, squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for axis, (key, run, (dataset, x, y, predicted)) in zip(axes.flat, drawn):
        inputs, targets = np.asarray(dataset.train.inputs), dataset.train.targets.numpy()
        axis.contourf(x, y, predicted, levels=np.arange(dataset.num_classes + 1) - 0.5, alpha=0.2,
                      colors=[PALETTE[k % len(PALETTE)] for k in range(dataset.num_classes)])  # fmt: skip
        for k, name in enumerate(dataset.class_names):
            axis.plot(*inputs[targets == k].T, "o^sDv<>"[k % 7], color=PALETTE[k % len(PALETTE)], markersize=3,
                      alpha=0.7, label=wrapped(name, 22))  # fmt: skip
        axis.set_title(f"{title_of(key)}\nseed {run['seed']}", fontsize=8)
        axis.set_aspect("equal")
        axis.legend(fontsize=6, title="class", title_fontsize=6)
    return figure


def decisions(directory: Path) -> tuple["Dataset", np.ndarray, np.ndarray, np.ndarray]:
    """Return a run's data set, the x and the y coordinates of a grid around its examples, and the classes on the grid.

    The predicted classes have the shape (y, x).

    Args:
        directory: run directory.
    """
    import torch

    from imbalance.config.schema import build
    from imbalance.models import MODELS
    from imbalance.models.artifact import read

    dataset = load_run_data(directory)
    about, state = read(directory)
    check_no_code(about)
    model = build(MODELS, about["model"], input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    try:
        # A method may train a second network, whose weights are in the file too.
        model.load_state_dict({key: value for key, value in state.items() if key in model.state_dict()})
    except RuntimeError as error:
        raise BadInput(f"the weights do not fit model.json ({' '.join(str(error).split())[:200]})") from None
    inputs = np.asarray(dataset.train.inputs)
    x, y = (np.linspace(inputs[:, i].min() - 1, inputs[:, i].max() + 1, 200) for i in range(2))
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).float()
    with torch.no_grad():
        predicted = model.float().eval()(grid).argmax(1)
    return dataset, x, y, predicted.view(len(y), len(x)).numpy()
