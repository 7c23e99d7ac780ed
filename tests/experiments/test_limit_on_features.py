"""The experiment on real features, on features made here: judgements by brute force, rows, and the outcome."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.svm import SVC

from imbalance.experiments import limit_on_features as experiment
from imbalance.metrics.clusters import contrast
from imbalance.report import kept_results
from imbalance.theory import gram

rng = np.random.default_rng(0)
CENTRES = 0.35 * rng.normal(size=(4, 60))


def features() -> experiment.Features:
    def split(count: int) -> list[np.ndarray]:
        return [(centre + rng.normal(size=(count, 60))).astype(np.float32) for centre in CENTRES]

    splits = {"train": split(40), "val": split(40), "test": split(50)}
    return experiment.Features(splits, ["a", "b", "c", "d"], "made up", "0123456789abcdef")


@pytest.fixture(scope="module")
def small():
    """Return few images, so that a problem takes milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "MAJORITY", 30)
        patch.setattr(experiment, "clean_commit", lambda: "0123456789")
        yield features()


def test_the_threshold_is_the_median_of_the_best_by_brute_force():
    scores = np.round(rng.normal(size=40) + np.repeat([0, 1.0], 20), 1)  # with ties
    signs = np.repeat([-1.0, 1.0], 20)
    ordered = np.unique(scores)
    midpoints = (ordered[1:] + ordered[:-1]) / 2
    accuracies = [balanced_accuracy_score(signs > 0, scores > level) for level in midpoints]
    best = midpoints[np.isclose(accuracies, max(accuracies))]
    assert experiment.best_threshold(scores, signs) == pytest.approx(best[(len(best) - 1) // 2])
    columns = np.column_stack([scores, -scores])
    for column, area, accuracy in zip(
        columns.T,
        [experiment.auroc(column, signs > 0) for column in columns.T],
        experiment.balanced_accuracy(columns, signs, 0.3),
    ):
        assert area == pytest.approx(roc_auc_score(signs > 0, column))
        assert accuracy == pytest.approx(balanced_accuracy_score(signs > 0, column > 0.3))


def test_images_are_drawn_once_for_all_ratios_and_roles_and_never_twice(small):
    problem = experiment.make_problem(small, (0, 2), 5, 10, "raw")
    assert (problem.signs < 0).sum() == 30 and (problem.signs > 0).sum() == 3
    swapped = experiment.make_problem(small, (2, 0), 5, 2, "raw")
    assert (problem.train[:15] == swapped.train[30:]).all(), "the first images of class 0 are the same in both roles"
    rows = {tuple(row) for row in np.concatenate([problem.train, problem.val, problem.test])}
    assert len(rows) == 66 + 100
    centred = experiment.make_problem(small, (0, 2), 5, 10, "centred").train
    assert centred[:30].mean(0) == pytest.approx(-centred[30:].mean(0))
    standardised = experiment.make_problem(small, (0, 2), 5, 10, "standardised").train
    assert standardised.std(0) == pytest.approx(1) and standardised.mean(0) == pytest.approx(0, abs=1e-9)


def test_the_limit_of_vs_is_a_hard_margin_with_unequal_margins(small):
    """Against a support vector machine whose minority is moved so far that its margin of 1 is one of δ."""
    problem = experiment.make_problem(small, (0, 1), 0, 10, "raw")
    arms = experiment.classifiers(problem, "raw", 0)
    machine = SVC(C=1e8, kernel="linear", tol=1e-9).fit(problem.train, problem.signs)
    scores = machine.decision_function(problem.train)
    for gamma, solution in arms["limit of VS, tuned"].items():
        delta = 10.0**gamma
        own = problem.train @ (problem.train.T @ solution.coefficients) + solution.bias
        assert own[problem.signs > 0].min() / -own[problem.signs < 0].max() == pytest.approx(delta, rel=1e-3)
        assert np.corrcoef(own, scores)[0, 1] == pytest.approx(1, abs=1e-6)


def test_nearest_mean_and_ensemble_are_what_they_say(small):
    problem = experiment.make_problem(small, (1, 2), 1, 10, "raw")
    arms = experiment.classifiers(problem, "raw", 1)
    means = [problem.train[problem.signs == sign].mean(0) for sign in (-1, 1)]
    (nearest,) = arms["nearest mean"].values()
    scores = problem.test @ (problem.train.T @ nearest.coefficients) + nearest.bias
    distances = [np.square(problem.test - mean).sum(1) for mean in means]
    assert scores == pytest.approx((distances[0] - distances[1]) / 2)
    ensemble = arms["undersampled ensemble, tuned"][1.0].coefficients
    assert (ensemble[problem.signs > 0] > 0).all() and (ensemble[problem.signs < 0] <= 0).all()
    assert ensemble.sum() == pytest.approx(0, abs=1e-9), "each member has a free bias, so its coefficients sum to 0"


def test_long_descent_comes_near_its_limit(small):
    problem = experiment.make_problem(small, (0, 1), 0, 2, "raw")
    cells = experiment.descend(problem, (10, 1000))
    for name in ("cross-entropy IW^0", "poly α=1 IW^1"):
        assert cells[f"{name}, 1000 steps: angle"] < cells[f"{name}, 10 steps: angle"]
    assert cells["poly α=1 IW^1, 1000 steps: angle"] < 1
    assert 0.5 < cells["poly α=1 IW^1, limit: at 0"] <= 1


def test_rows_are_added_once_and_the_outcome_is_a_sentence(small, tmp_path, monkeypatch):
    experiment.compute(small, 2, 10, "raw", tmp_path, descent=False)
    rows = kept_results.read(experiment.STUDY, tmp_path)
    assert len(rows) == 24 and {row["solved"] for row in rows} == {"yes"}
    assert {(row["representation"], row["commit"], row["threads"]) for row in rows} == {("made up", "0123456789", "1")}
    monkeypatch.setattr(experiment, "judge", lambda *arguments: pytest.fail("computed again"))
    experiment.compute(small, 2, 10, "raw", tmp_path, descent=False)
    cell = experiment.cell_of(rows, 10, "raw")
    assert cell.rows.shape == (6, 2, 2)
    by_hand = np.mean([
        float(row[f"{experiment.POLY}: at 0"]) - float(row[f"{experiment.HARD}: at 0"]) for row in rows
    ])  # fmt: skip
    assert experiment.primary(cell)["a"].value == pytest.approx(by_hand, abs=1e-9)
    text = experiment.outcome(cell)
    assert f"is {100 * by_hand:.2f} ±" in text
    parts = [contrast(experiment.difference(cell, *arms), cell.pairs) for arms in experiment.PARTS.values()]
    assert parts[0].value + parts[1].value == pytest.approx(by_hand, abs=1e-9), (
        "loss and weights add up to contrast (a)"
    )
    assert f"accounts for {parts[0].points(2)} points of (a) and {parts[2].points(2)} of (b)" in text
    assert f"for {parts[1].points(2)} and {parts[3].points(2)}" in text
    assert parts[1].points(2) in experiment.parts_table(tmp_path)
    chosen = [float(row[f"{experiment.RIDGE}: values"].split("|")[1]) for row in rows]
    smallest, largest = (np.mean([value == end for value in chosen]) for end in (1e-4, 1e3))
    assert f"of ridge in {smallest:.0%} and {largest:.0%}" in experiment.tuning_text(tmp_path)
    assert experiment.cell_of(rows[1:], 10, "raw") is None, "only seeds that are complete count"
    for table in (experiment.contrasts_table, experiment.arms_table):
        assert "hard margin" in table(tmp_path)
    assert all(len(line.split("|")) == len(experiment.arms_table(tmp_path).splitlines()[0].split("|"))
               for line in experiment.arms_table(tmp_path).splitlines())  # fmt: skip
    assert set(itertools.chain(*(row.keys() for row in rows))) == set(rows[0])


def test_tuning_reads_val_alone(small):
    problem = experiment.make_problem(small, (0, 1), 3, 10, "raw")
    arms = experiment.classifiers(problem, "raw", 3)
    cells = experiment.judge(problem, arms)
    other = experiment.judge(problem._replace(test=-problem.test), arms)
    assert cells[f"{experiment.RIDGE}: values"] == other[f"{experiment.RIDGE}: values"]
    assert other[f"{experiment.HARD}: auroc"] == pytest.approx(1 - cells[f"{experiment.HARD}: auroc"], abs=0.2)
    chosen = float(cells[f"{experiment.RIDGE}: values"].split("|")[1])
    solution: gram.Linear = arms[experiment.RIDGE][chosen]
    normal = problem.train.T @ solution.coefficients
    level = experiment.best_threshold(problem.val @ normal + solution.bias, problem.val_signs)
    accuracy = balanced_accuracy_score(
        problem.test_signs, np.where(problem.test @ normal + solution.bias > level, 1, -1)
    )
    assert cells[f"{experiment.RIDGE}: at val"] == pytest.approx(accuracy)
