"""The command that shows which subgroups a run fails on."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import hypergeom

from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.metrics.clusters import holm
from imbalance.report import failures as module
from imbalance.report.failures import MARK, cluster_division, failures, judge, read_evaluated
from imbalance.training.loop import train
from imbalance.utils.read import seal

pytest.importorskip("jinja2")
RUN = "colored_digits_erm/default/seed=0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run on colored digits, and one with inferred groups as its reference."""
    folder = tmp_path_factory.mktemp("failures")
    for name in ("colored_digits_erm", "colored_digits_xrm"):
        config = load(ROOT / "configs" / f"{name}.py")
        config.model = dict(name="mlp", hidden=(16,))
        config.trainer.update(epochs=3, eval_every=3)
        if name.endswith("xrm"):
            config.groups.first_epochs = 8
        train(config, folder / name / "default" / "seed=0")
    return folder


def ran(folder: Path, tmp_path: Path, capsys, **options) -> tuple[str, str]:
    """Run the command, and return what it printed and its page."""
    output = tmp_path / "failures.html"
    last = failures(
        **dict(run=str(folder / RUN), split="test", reference=None, clusters=4, output=str(output)) | options
    )
    return f"{capsys.readouterr().out}\n{last}", output.read_text()


def test_the_known_groups_are_judged_within_their_classes(trained, tmp_path, capsys):
    printed, page = ran(trained, tmp_path, capsys)
    saved = np.load(trained / RUN / "predictions" / "test.npz")
    targets, groups = saved["targets"], saved["groups"]
    wrong = saved["logits"].argmax(1) != targets
    red = groups == 2
    odd = targets == 1
    assert f"| odd red | {red.sum()} | {100 * wrong[red].mean():.1f} % (" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("| odd red |")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4] == f"{100 * red.mean():.1f} %" and cells[5] == f"{100 * wrong[red].sum() / wrong.sum():.1f} %"
    assert cells[6] == f"{100 * wrong[odd].sum() * red.sum() / odd.sum() / wrong.sum():.1f} %"
    p = hypergeom.sf(wrong[red].sum() - 1, odd.sum(), wrong[odd].sum(), red.sum())
    assert p < 1e-6 and cells[7] == "< 0.001"
    assert MARK in page and page.count("data:image/webp") > 8 and "script" not in page
    surest = saved["indices"][wrong][np.argsort(-np.abs(np.diff(saved["logits"][wrong]))[:, 0], kind="stable")[:3]]
    shown = page[page.index("most confident errors of all") :]
    assert re.findall(r"row (\d+)</div>", shown)[:3] == [str(row) for row in surest]


def test_p_values_are_corrected_for_all_subgroups_of_the_page(trained, tmp_path, capsys):
    evaluated = read_evaluated(trained / RUN, "val")
    printed, _ = ran(trained, tmp_path, capsys, split="val", clusters=2)
    raw = [each.p for division in module.known_divisions(evaluated) for each in judge(division, evaluated)]
    count = int(re.search(r" of (\d+) with more errors", printed)[1])
    assert count == len(raw) + 4  # two clusters in each of two classes
    shown = re.findall(r"\| (even|odd)(?: red| green)? \|.*\| ([\d.]+) \|$", printed, flags=re.M)
    corrected = holm([*raw, *[1.0] * 4])  # those of clusters may be smaller, so these are the smallest values possible
    assert shown and all(float(text) >= corrected.min() - 0.0005 for _, text in shown)


def test_clusters_are_judged_on_examples_that_they_were_not_found_on(trained):
    evaluated = read_evaluated(trained / RUN, "test")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(len(evaluated.wrong), 3))
    division = cluster_division("c", "", points, evaluated, 3)
    found_on = ~division.judged
    assert abs(int(division.judged.sum()) - int(found_on.sum())) <= 2
    # The clusters of the judged half are decided by the points alone: other errors, and other points of this half, change none.
    other = evaluated._replace(wrong=~evaluated.wrong)
    assert (cluster_division("c", "", points, other, 3).members == division.members).all()
    row = np.flatnonzero(division.judged)[0]
    moved = points.copy()
    moved[row] += 100
    assert (np.delete(cluster_division("c", "", moved, evaluated, 3).members, row, 0) == np.delete(division.members, row, 0)).all()  # fmt: skip


def test_random_clusters_hold_no_more_errors_than_chance(trained):
    evaluated = read_evaluated(trained / RUN, "test")
    found = 0
    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=(len(evaluated.wrong), 2))
        subgroups = judge(cluster_division("c", "", points, evaluated, 4), evaluated)
        found += bool((holm([subgroup.p for subgroup in subgroups]) < 0.05).any())
    assert found <= 2  # each page has a false finding in at most 5 % of cases, so more than 2 of 10 in 1 %


def test_separate_clusters_with_all_errors_are_found(trained):
    evaluated = read_evaluated(trained / RUN, "test")
    points = np.stack([evaluated.wrong * 10.0, np.zeros(len(evaluated.wrong))], axis=1)
    points += np.random.default_rng(0).normal(size=points.shape) * 0.1
    first, *_ = judge(cluster_division("c", "", points, evaluated, 2), evaluated)
    assert first.wrong == len(first.rows) and first.p < 1e-6


def test_a_reference_brings_its_groups_and_its_features(trained, tmp_path, capsys):
    printed, page = ran(trained, tmp_path, capsys, reference=str(trained / "colored_digits_xrm/default/seed=0"))
    assert "| Groups inferred by xrm |" in printed and "| Environments of EIIL |" in printed
    assert "The features are those of the reference" in page and "adjusted mutual information" in printed
    saved = np.load(trained / "colored_digits_xrm/default/seed=0/predictions/test.npz")
    errors = int(((saved["logits"].argmax(1) != saved["targets"]) & (saved["targets"] == 1)).sum())
    assert f"| odd, environment 1 | {errors} |" in printed  # for two classes: the errors of the reference
    other = tmp_path / "other"
    shutil.copytree(trained / RUN, other)
    rewrite(other, lambda saved: saved | {"indices": saved["indices"] + 1})
    with pytest.raises(BadInput, match="--reference.*other test examples"):
        ran(trained, tmp_path, capsys, reference=str(other))


def rewrite(run: Path, change) -> None:
    """Change the saved predictions of a run, and its record of their digest."""
    path = run / "predictions" / "test.npz"
    np.savez(path, **change(dict(np.load(path))))
    summary = json.loads((run / "summary.json").read_text())
    del summary["files"]["predictions/test.npz"]
    (run / "summary.json").write_text(json.dumps(seal({k: v for k, v in summary.items() if k != "digest"})))


def test_the_code_of_a_foreign_run_is_not_run(trained, tmp_path, capsys):
    foreign = tmp_path / "foreign"
    shutil.copytree(trained / RUN, foreign)
    (foreign / "modules").mkdir()
    (foreign / "modules" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(**_): ...\n")
    path = foreign / "model.json"
    about = json.loads(path.read_text())
    about["model"] = {"name": "evil.py:net"}
    path.write_text(json.dumps(seal({k: v for k, v in about.items() if k != "digest"})))
    _, page = ran(trained, tmp_path, capsys, run=str(foreign))
    assert not (tmp_path / "ran").exists()
    assert "uses Python code of its user" in page and "Clusters of features" not in page and "Known groups" in page


def test_without_its_data_a_run_is_still_judged(trained, tmp_path, capsys):
    copied = tmp_path / "copied"
    shutil.copytree(trained / RUN, copied)
    config = json.loads((copied / "config.json").read_text())
    config["data"] = {"name": "waterbirds"} | {k: v for k, v in load(ROOT / "configs" / "waterbirds_erm.py").data.items() if k != "name"}  # fmt: skip
    config["data_dir"] = str(tmp_path / "none")
    (copied / "config.json").write_text(json.dumps(seal({k: v for k, v in config.items() if k != "digest"})))
    summary = json.loads((copied / "summary.json").read_text())
    del summary["files"]["config.json"]
    (copied / "summary.json").write_text(json.dumps(seal({k: v for k, v in summary.items() if k != "digest"})))
    printed, page = ran(trained, tmp_path, capsys, run=str(copied))
    assert "| odd red |" in printed and "cannot be shown" in page and "data:image/webp" not in page
    assert "The data set cannot be shown: " in printed  # fewer subgroups are tested, so other p-values are printed


def test_wrong_arguments_are_refused(trained, tmp_path, capsys):
    with pytest.raises(BadInput, match="no predictions of test; this is no run directory"):
        ran(trained, tmp_path, capsys, run=str(tmp_path))
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(BadInput, match="this command did not write it"):
        ran(trained, tmp_path, capsys, output=str(tmp_path / "mine.html"))
    ran(trained, tmp_path, capsys)
    ran(trained, tmp_path, capsys)  # its own page is replaced


def test_names_that_are_markup_stay_text(trained, tmp_path, capsys):
    marked = tmp_path / "marked"
    shutil.copytree(trained / RUN, marked)
    summary = json.loads((marked / "summary.json").read_text())
    summary["groups"]["test"] = {f"<img src=x>{name}": n for name, n in summary["groups"]["test"].items()}
    (marked / "summary.json").write_text(json.dumps(seal({k: v for k, v in summary.items() if k != "digest"})))
    _, page = ran(trained, tmp_path, capsys, run=str(marked))
    assert "&lt;img src=x&gt;odd red" in page and "<img src=x>" not in page
