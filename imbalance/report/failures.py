"""Show which subgroups a finished run fails on: compare their errors with chance, and show examples of them on a page.

    imbalance failures runs/waterbirds_erm/default/seed=0
    imbalance failures runs/waterbirds_erm/default/seed=0 --reference=runs/waterbirds_xrm/default/seed=0

The page shows these divisions of the examples of test (or val, with --split) into subgroups, if the run has them:

- classes, and the known groups of the data.
- clusters of inputs: for tables and features, k-means in each class on the inputs of the network.
- clusters of features: k-means in each class on the inputs of the last layer, as SPARE and GEORGE cluster classes.
- groups that the run itself inferred by `config.groups`, such as xrm or eiil.
- with --reference, a second finished run on the same data: the groups that the reference inferred, and the environments
  that EIIL finds for its predictions. The clusters of features then use the features of the reference.

Chance means that each class keeps its number of errors, but they fall on random examples of the class. The classes
themselves are compared with random examples of all classes. The p-value is the probability that chance gives the
subgroup as many errors as it has, or more. It is exact, and corrected by Holm's method for the number of all subgroups
on the page. Clusters are found on a random half of the examples, and judged on the other half. The command trains
nothing and runs no Python code that the run directories name.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.run_directory import read_predictions, read_run_config
from imbalance.data import Dataset
from imbalance.data.splits import stratified_split
from imbalance.deploy.load import load
from imbalance.errors import BadInput
from imbalance.methods.group_inference.eiil import largest_violation
from imbalance.methods.group_inference.spare import k_means
from imbalance.methods.losses import cross_entropy
from imbalance.methods.objectives.base import slopes
from imbalance.metrics.clusters import holm
from imbalance.metrics.intervals import LEVEL, SMALL, wilson
from imbalance.metrics.scores import log_odds, probabilities, saved_group_mask
from imbalance.metrics.subgroups import agreement, errors_by_chance, most_frequent
from imbalance.models.artifact import describe_run
from imbalance.report import tables
from imbalance.report.page import read_style, read_template
from imbalance.report.page.examples import read_eval_dataset, render_example
from imbalance.report.run_data import check_no_code
from imbalance.report.saved_runs import summary_of
from imbalance.utils.files import contains, output_path, write_atomic
from imbalance.utils.output import counted
from imbalance.utils.read import read_json
from imbalance.utils.seeds import derived_seed

MARK = '<meta name="generator" content="imbalance failures">'  # by which the command knows its own pages
MOST_FITTED = 2000  # examples of a class that k-means is fitted to; silhouettes take the square of their number
BATCH = 256  # examples whose features are computed at a time
MOST_LINES, MOST_SHOWN = 20, 4  # subgroups in a table, and subgroups with examples, for each division
WRONG_SHOWN, RIGHT_SHOWN = 8, 4  # wrong and right predictions that are shown of a subgroup
SEED = 0  # of the halves and of k-means, so that the same command gives the same page


class Division(NamedTuple):
    """A division of N examples into subgroups.

    title: name of the division.
    about: how the subgroups were found, in sentences for the page.
    names: names of the G subgroups.
    members: (N, G) bool, the subgroups of each example.
    judged: (N,) bool, the examples that were not used to find the subgroups.
    within_class: whether chance leaves each class its number of errors; False for classes themselves.
    """

    title: str
    about: str
    names: Sequence[str]
    members: np.ndarray
    judged: np.ndarray
    within_class: bool = True


class Subgroup(NamedTuple):
    """A subgroup with its judged examples.

    rows: positions of the judged examples in the split.
    wrong: number of wrong predictions among them.
    expected: number of wrong predictions that chance would give.
    p: p-value against chance, without correction.
    """

    name: str
    rows: np.ndarray
    wrong: int
    expected: float
    p: float


class Evaluated(NamedTuple):
    """The predictions of a run on a split of N examples.

    saved: the arrays of predictions/<split>.npz by name.
    wrong: (N,) bool.
    class_names, group_names: the names of the classes and of the evaluation groups.
    """

    saved: dict[str, np.ndarray]
    wrong: np.ndarray
    class_names: list[str]
    group_names: list[str]

    @property
    def targets(self) -> np.ndarray:
        """The (N,) classes."""
        return self.saved["targets"]


def failures(*, run: str, split: str, reference: str | None, clusters: int, output: str) -> str:
    """Run `imbalance failures`: print a table for each division, and write the page.

    Args:
        run: directory of the finished run to judge.
        split: "val" or "test".
        reference: directory of another finished run on the same data; its features and its inferred groups are used. None
            for the features of the run itself.
        clusters: number of clusters of each class. A class gets fewer if its clusters would have fewer than ten examples on
            average.
        output: HTML file to write.

    Returns:
        The message that the command prints at the end.
    """
    directory, path = Path(run), output_path(output, "--output", is_failures_page)
    template = read_template("failures.html.j2")
    evaluated = read_evaluated(directory, split)
    dataset, why_not = read_eval_dataset(directory)
    divisions, notes = list(known_divisions(evaluated)), [why_not] if why_not else []
    divisions += inferred_division(evaluated, directory, "the run itself")
    if reference:
        other = read_evaluated(Path(reference), split, "--reference")
        if any(not np.array_equal(other.saved[key], evaluated.saved[key]) for key in ("targets", "indices")):
            raise BadInput(
                f"--reference: {reference} was evaluated on other {split} examples than {run}; name a run on the same data with "
                "the same seed"
            )
        divisions += [eiil_division(other), *inferred_division(other, Path(reference), "the reference")]
    if dataset:
        inputs = getattr(dataset, split).inputs
        if inputs.dim() == 2 and inputs.is_floating_point():
            points = inputs[: len(evaluated.wrong)].float().numpy()
            about = "The inputs depend on no network."
            divisions.append(cluster_division("Clusters of inputs", about, points, evaluated, clusters))
        try:
            points = features_of(Path(reference or run), dataset, split)[: len(evaluated.wrong)]
        except BadInput as error:
            notes.append(f"The features cannot be computed, so they are not clustered: {error}")
        else:
            about = FROM_REFERENCE if reference else FROM_ITSELF
            divisions.append(cluster_division("Clusters of features", about, points, evaluated, clusters))
    judged = [judge(division, evaluated) for division in divisions]
    corrected = iter(holm([subgroup.p for subgroups in judged for subgroup in subgroups]).tolist())
    sections = [
        describe(division, [(each, next(corrected)) for each in subgroups], evaluated)
        for division, subgroups in zip(divisions, judged)
    ]
    print_tables(sections)
    for note in notes:
        print(f"{note}\n")
    shown = {row for section in sections for gallery in section["galleries"] for row in gallery["rows"]}
    surest = surest_errors(evaluated, np.arange(len(evaluated.wrong)), 2 * WRONG_SHOWN)
    pictures = {} if dataset is None else {
        row: render_example(getattr(dataset, split), row, dataset.preprocessing) for row in sorted(shown | set(surest))
    }  # fmt: skip
    content = template.render(
        mark=MARK, style=read_style(), run=run, reference=reference, split=split, notes=notes, sections=sections,
        examples=len(evaluated.wrong), wrong=int(evaluated.wrong.sum()), tests=sum(map(len, judged)), level=1 - LEVEL,
        surest=surest, captions=captions(evaluated, shown | set(surest)), pictures=pictures,
    )  # fmt: skip
    write_atomic(path, content.encode())
    failing = sum(section["significant"] for section in sections)
    return f"{path}: {counted(failing, 'subgroup')} of {sum(map(len, judged)):,} with more errors than chance (p < {1 - LEVEL:.2f}, corrected)"


FROM_ITSELF = (
    "The features decide the predictions of this run, so a cluster may be little more than the examples of a class that it "
    "takes for another class; see the column of predictions. With --reference the features are those of another run."
)
FROM_REFERENCE = "The features are those of the reference, which do not decide the predictions of this run."


def read_evaluated(directory: Path, split: str, flag: str = "run") -> Evaluated:
    """Read the predictions of a finished run for a split.

    Args:
        flag: the argument that named the run, for messages.

    Raises:
        BadInput: the run is not finished, has no predictions for the split, or its predictions are damaged or not finite.
    """
    try:
        summary = summary_of(directory)
        saved = read_predictions(directory, split, summary) if summary["status"] == "done" else None
    except (FileNotFoundError, NotADirectoryError):
        summary, saved = {}, None
    if saved is None or not len(saved["logits"]):
        raise BadInput(f"{flag}: {directory}: no predictions of {split}; {describe_run(directory)}")
    if not np.isfinite(saved["logits"]).all():
        raise BadInput(f"{flag}: {directory}: predictions of {split} are not finite; name another run")
    count = saved_group_mask(saved).shape[1]
    return Evaluated(
        saved,
        saved["logits"].argmax(1) != saved["targets"],
        all_names(summary, "classes", split, saved["logits"].shape[1]),
        all_names(summary, "groups", split, count),
    )


def all_names(summary: dict[str, Any], kind: str, split: str, count: int) -> list[str]:
    """Return the names of all `count` classes or groups; a number replaces each name that an old run's summary lacks.

    Args:
        kind: "classes" or "groups".
    """
    names = list(summary.get(kind, {}).get(split, ()))
    return names + [str(number) for number in range(len(names), count)]


def known_divisions(evaluated: Evaluated) -> Iterator[Division]:
    """Yield the division into classes and, unless the groups are the classes, the division into known groups."""
    everything, targets = np.ones(len(evaluated.wrong), dtype=bool), evaluated.targets
    classes = targets[:, None] == np.arange(len(evaluated.class_names))
    yield Division("Classes", "Chance is that all examples have the same risk.", evaluated.class_names, classes, everything, False)  # fmt: skip
    groups = saved_group_mask(evaluated.saved)
    if not all(any(np.array_equal(group, label) for label in classes.T) for group in groups.T if group.any()):
        about = "The groups of the data, which the run is evaluated by."
        yield Division("Known groups", about, evaluated.group_names, groups, everything)


def inferred_division(evaluated: Evaluated, directory: Path, who: str) -> list[Division]:
    """Return a list with the division into the groups that a run inferred; [] if the run inferred none.

    Args:
        evaluated: the predictions of the run that inferred groups; their examples are those of the judged run.
        directory: run directory of the run that inferred groups.
        who: name of this run on the page, such as "the reference".
    """
    if "inferred" not in evaluated.saved:
        return []
    name = str(read_run_config(directory).get("groups", {}).get("name", "another method"))
    about = f"Groups that {who} inferred by {name}, from the predictions of its first run and the classes of these examples."
    return [by_class(f"Groups inferred by {name}", about, evaluated.saved["inferred"], "group", evaluated)]


def eiil_division(reference: Evaluated) -> Division:
    """Return the division into the combinations of a class and one of EIIL's two environments for the reference's logits."""
    import torch

    logits, targets = (torch.from_numpy(reference.saved[key]) for key in ("logits", "targets"))
    scale = slopes(lambda z: cross_entropy(z, targets), logits.double())
    about = (
        "The two environments that EIIL infers from the predictions of the reference: in one, a larger scale of the logits "
        "raises the loss. For two classes these are the errors of the reference. Examples with wrong labels are errors of both runs."
    )
    environments = largest_violation(scale).numpy()
    return by_class("Environments of EIIL", about, environments, "environment", reference)


def by_class(title: str, about: str, labels: np.ndarray, kind: str, evaluated: Evaluated) -> Division:
    """Return the division whose subgroups are the combinations of a class and a label.

    Args:
        labels: (N,) int, the label of each example.
        kind: noun for a label in the names of subgroups, such as "cluster".
    """
    parts, names = [], []
    for target, class_name in enumerate(evaluated.class_names):
        inside = evaluated.targets == target
        for number, label in enumerate(np.unique(labels[inside])):
            parts.append(inside & (labels == label))
            names.append(f"{class_name}, {kind} {number}")
    return Division(title, about, names, np.stack(parts, axis=1), np.ones(len(labels), dtype=bool))


def cluster_division(title: str, about: str, points: np.ndarray, evaluated: Evaluated, clusters: int) -> Division:
    """Return the division of each class into clusters of points, found on one half of the examples, judged on the other half.

    Args:
        points: (N, D), one for each example.
        clusters: number of clusters of each class; see `failures`.
    """
    targets, rng = evaluated.targets, np.random.default_rng(derived_seed(SEED, "halves"))
    half, judged = stratified_split(targets, 0.5, rng)
    labels = np.zeros(len(targets), dtype=np.int64)
    scale = points[half].std(0) if len(half) else np.ones(points.shape[1])
    points = (points - points[half].mean(0)) / np.where(scale > 0, scale, 1)
    for target in range(len(evaluated.class_names)):
        fitted, members = half[targets[half] == target][:MOST_FITTED], judged[targets[judged] == target]
        if len(fitted) and len(members):
            count = max(1, min(clusters, len(fitted) // SMALL))
            seed = derived_seed(SEED, f"clusters of class {target}")
            labels[members] = k_means(points[fitted], (count,), seed).assign(points[members])
    is_judged = np.zeros(len(targets), dtype=bool)
    is_judged[judged] = True
    found_on = (
        f"k-means in each class; found on {len(half):,} random examples, judged on the other {len(judged):,}. {about}"
    )
    return by_class(title, found_on, labels, "cluster", evaluated)._replace(judged=is_judged)


def features_of(directory: Path, dataset: Dataset, split: str) -> np.ndarray:
    """Return the (N, D) inputs of the last layer of a run's network, for the examples of a split.

    Raises:
        BadInput: the network is defined in the user's Python code, is damaged, or takes inputs of another shape or
            vocabulary.
    """
    try:
        about = read_json(directory / "model.json")
    except FileNotFoundError:
        raise BadInput(f"{directory} has no model.json; {describe_run(directory)}") from None
    check_no_code(about)  # before `load`, which runs the code
    model, inputs = load(directory), getattr(dataset, split).inputs
    is_text = bool(dataset.vocabulary)
    if model.about.get("vocabulary", 0) != dataset.vocabulary or (
        not is_text and model.input_shape != dataset.input_shape
    ):
        raise BadInput(
            f"{directory}: the network takes inputs of another shape or vocabulary; name a run on the same data"
        )
    parts = [
        model.features(inputs[start : start + BATCH]).float().flatten(1).cpu() for start in range(0, len(inputs), BATCH)
    ]
    return np.concatenate([part.numpy() for part in parts])


def judge(division: Division, evaluated: Evaluated) -> list[Subgroup]:
    """Return the subgroups of a division that have judged examples; the one with the most errors beyond chance comes first."""
    judged, subgroups = division.judged, []
    strata = evaluated.targets if division.within_class else np.zeros_like(evaluated.targets)
    wrong, strata = evaluated.wrong[judged], strata[judged]
    positions = np.flatnonzero(judged)
    for name, members in zip(division.names, division.members[judged].T):
        if members.any():
            chance = errors_by_chance(wrong, members, strata)
            subgroups.append(Subgroup(name, positions[members], int(wrong[members].sum()), chance.expected, chance.p))
    return sorted(subgroups, key=lambda subgroup: subgroup.expected - subgroup.wrong)


def describe(division: Division, subgroups: Sequence[tuple[Subgroup, float]], evaluated: Evaluated) -> dict[str, Any]:
    """Return what the page and the printed table show of a division, by key.

    Args:
        subgroups: what `judge` returns, each subgroup with its corrected p-value.
    """
    judged, targets = division.judged, evaluated.targets
    total, errors = int(judged.sum()), int(evaluated.wrong[judged].sum())
    predicted, known = evaluated.saved["logits"].argmax(1), evaluated.saved["groups"]
    has_known = not np.array_equal(saved_group_mask(evaluated.saved).sum(1), np.ones(len(known))) or bool(
        len(np.unique(known)) > len(np.unique(targets))
    )
    names_known = has_known and "members" not in evaluated.saved and division.title not in ("Classes", "Known groups")
    lines, galleries = [], []
    for subgroup, p in subgroups:
        rows, size = subgroup.rows, len(subgroup.rows)
        mistaken = rows[evaluated.wrong[rows]]
        guess, main = most_frequent(predicted[mistaken].tolist()), most_frequent(known[rows].tolist())
        assert main is not None  # a subgroup has judged examples
        significant = p < 1 - LEVEL
        lines.append({
            "name": subgroup.name,
            "examples": size,
            "error": f"{percent(subgroup.wrong / size)} ({wilson(subgroup.wrong, size).percent()})",
            "of_examples": size / total,
            "of_errors": subgroup.wrong / max(1, errors),
            "by_chance": subgroup.expected / max(1, errors),
            "p": "< 0.001" if p < 0.001 else f"{p:.3f}",
            "significant": significant,
            "predicted": "–" if guess is None else f"{evaluated.class_names[guess[0]]} ({percent(guess[1])})",
            "known": f"{evaluated.group_names[main[0]]} ({percent(main[1])})" if names_known else "",
        })  # fmt: skip
        if len(galleries) < MOST_SHOWN and significant:
            right = rows[~evaluated.wrong[rows]][:RIGHT_SHOWN].tolist()
            surest = surest_errors(evaluated, mistaken, WRONG_SHOWN)
            galleries.append({"name": subgroup.name, "wrong": surest, "right": right, "rows": [*surest, *right]})
    failing = [subgroup for subgroup, p in subgroups if p < 1 - LEVEL]
    held = np.zeros(len(targets), dtype=bool)
    for subgroup in failing:
        held[subgroup.rows] = True
    similar = None
    if has_known and division.title not in ("Classes", "Known groups"):
        labels = division.members[judged].argmax(1)
        similar = agreement(labels, known[judged], targets[judged])
    return {
        "title": division.title, "about": division.about, "lines": lines[:MOST_LINES], "left_out": len(lines) - MOST_LINES,
        "significant": len(failing), "names_known": names_known,
        "held_errors": percent(evaluated.wrong[held].sum() / max(1, errors)),
        "held_examples": percent(held.sum() / total),
        "agreement": None if similar is None else f"{similar:.2f}", "galleries": galleries,
    }  # fmt: skip


def percent(share: float) -> str:
    """Return a fraction as text in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def surest_errors(evaluated: Evaluated, rows: np.ndarray, most: int) -> list[int]:
    """Return the positions of the wrong predictions among `rows`, the most confident first, at most `most` of them."""
    mistaken = rows[evaluated.wrong[rows]]
    sureness = log_odds(evaluated.saved["logits"][mistaken]).max(1)  # many confidences round to 1
    return mistaken[np.argsort(-sureness, kind="stable")][:most].tolist()


def captions(evaluated: Evaluated, rows: set[int]) -> dict[int, dict[str, Any]]:
    """Return, for each of `rows`, the class, the prediction, the confidence and the row in the data file, by key."""
    order = sorted(rows)
    logits = evaluated.saved["logits"][order]
    confidence = probabilities(logits).max(1)
    return {
        row: {
            "target": evaluated.class_names[evaluated.targets[row]],
            "predicted": evaluated.class_names[guess],
            "confidence": percent(sure).replace(" ", "\u00a0"),  # a narrow column would break the line there
            "source": int(evaluated.saved["indices"][row]),
        }
        for row, guess, sure in zip(order, logits.argmax(1).tolist(), confidence.tolist())
    }


def print_tables(sections: Sequence[dict[str, Any]]) -> None:
    """Print each division as a Markdown table, with the subgroups that have the most errors beyond chance first."""
    heads = ("examples", "error", "of examples", "of errors", "by chance", "p, corrected")
    for section in sections:
        rows = [
            [line["name"], line["examples"], line["error"],
             *(percent(line[key]) for key in ("of_examples", "of_errors", "by_chance")), tables.Raw(line["p"])]
            for line in section["lines"][:8]
        ]  # fmt: skip
        print(tables.markdown([section["title"], *heads], rows))
        if section["agreement"]:
            print(
                f"agreement with the known groups inside classes (adjusted mutual information): {section['agreement']}\n"
            )


def is_failures_page(path: Path) -> bool:
    """Return whether the file is a page of `imbalance failures`."""
    return contains(path, MARK.encode())
