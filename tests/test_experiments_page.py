"""What the page says, and that it stands alone; tests/test_browser.py opens it."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from experiments.collect import collect
from experiments.intervals import expected_best
from experiments.page import embedded, page
from experiments.page.details import details, surest_errors
from experiments.page.facts import OWN_RULE, facts, thinned
from experiments.page.pictures import picture
from experiments.runs import configured
from experiments.settings import common, varying
from imbalance.training.loop import train

pytest.importorskip("jinja2")
SHORT = {"trainer.epochs": 4, "trainer.eval_every": 1, "trainer.eval_splits": ("val", "test")}


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """Two methods, one of them at two rates, each with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rates in (("colored_digits_erm", (0.03, 0.1)), ("colored_digits_dro", (0.1,))):
        for rate in rates:
            for seed in range(2):
                train(*configured(name, SHORT | {"optim.lr": rate}, seed, str(folder)))
    return folder


def test_columns_are_what_differs_between_settings_of_one_file(work_dir):
    rows = collect(work_dir)
    assert varying(rows) == ["optim.lr"]
    shared = common(rows, ["optim.lr"])
    assert shared["trainer.epochs"] == 4 and "optim.lr" not in shared and "seed" not in shared
    assert "objective.name" not in shared  # the two files differ in it, which their names say


def test_every_rule_gives_the_test_metrics_of_the_epoch_that_it_chooses(work_dir):
    rows = collect(work_dir)
    found = facts(work_dir, rows, ["worst_group_accuracy"])
    names = [metric["name"] for metric in found["metrics"]]
    assert names[0] == "worst_group_accuracy" and {"auroc", "ece", "balanced_accuracy"} <= set(names)
    for row, run in zip(rows, found["runs"]):
        lines = [json.loads(line) for line in (work_dir / row["run"] / "metrics.jsonl").read_text().splitlines()]
        assert run["values"][OWN_RULE][0] == pytest.approx(row["test/worst_group_accuracy"], rel=1e-4)
        assert run["values"]["last epoch"][0] == pytest.approx(lines[-1]["test/worst_group_accuracy"], rel=1e-4)
        best = max(line["test/worst_group_accuracy"] for line in lines)
        assert run["values"]["oracle"][0] == pytest.approx(best, rel=1e-4)
        chosen = lines[int(np.argmax([line["val/balanced_accuracy"] for line in lines]))]
        at = names.index("balanced_accuracy")
        assert run["values"]["best balanced accuracy"][at] == pytest.approx(chosen["test/balanced_accuracy"], rel=1e-4)
    assert [setting["rule"]["labels"] for setting in found["settings"]] == ["val groups"] * 3


def test_methods_run_on_all_tasks_are_aggregated(work_dir, tmp_path):
    for saturation in (0.4, 0.6):
        for name in ("colored_digits_erm", "colored_digits_dro"):
            for seed in range(3):
                run = configured(name, {"trainer.epochs": 1, "data.saturation": saturation}, seed, str(tmp_path))
                train(*run)
    rows = collect(tmp_path)
    found = facts(tmp_path, rows, ["balanced_accuracy"])
    assert found["tasks"] == ["colored_digits saturation=0.4", "colored_digits saturation=0.6"]
    over = found["aggregates"]["balanced_accuracy"]
    assert (over["tasks"], over["seeds"], over["baseline"]) == (2, 3, "erm")
    for row in over["rows"]:
        values = sorted(
            r["test/balanced_accuracy"] for r in rows if r["name"].endswith(row["method"].partition(",")[0])
        )
        assert row["iqm"].value == pytest.approx(np.mean(values[1:-1]))  # a quarter of six is one run at each end


def test_a_run_has_its_surest_errors_as_pictures(work_dir):
    rows = collect(work_dir)
    found = facts(work_dir, rows, ["worst_group_accuracy"])
    of_runs, pictures = details(work_dir, rows, found, pictured=3)
    assert sum(any("shown" in e for g in run["errors"] for e in g["examples"]) for run in of_runs) == 3
    assert all(shown["picture"].startswith("data:image/webp;base64,") for shown in pictures)
    run = next(run for run in of_runs if any("shown" in e for g in run["errors"] for e in g["examples"]))
    at = of_runs.index(run)
    with np.load(work_dir / rows[at]["run"] / "predictions" / "test.npz") as saved:
        counts = np.array(run["confusion"]["counts"])
        assert counts.sum() == len(saved["targets"])
        assert counts.trace() == (saved["logits"].argmax(1) == saved["targets"]).sum()
        assert sum(group["wrong"] for group in run["errors"]) == counts.sum() - counts.trace()
        for group in run["errors"]:
            for example in group["examples"]:
                assert example["source"] == saved["indices"][example["row"]]
                assert run["confusion"]["classes"][saved["logits"][example["row"]].argmax()] == example["predicted"]
    assert "python main.py --config=" in run["command"] and run["log"].startswith(str(work_dir))


def test_many_groups_and_runs_keep_a_page_small():
    rng = np.random.default_rng(0)
    saved = {
        "logits": rng.normal(size=(5000, 10)), "targets": rng.integers(10, size=5000),
        "groups": rng.integers(200, size=5000), "indices": np.arange(5000),
    }  # fmt: skip
    names = {"classes": {"test": dict.fromkeys("abcdefghij")}, "groups": {"test": dict.fromkeys(map(str, range(200)))}}
    found = surest_errors(saved, names, most=13)
    assert len(found) == 13 and all(len(group["examples"]) == 1 for group in found)
    shares = [group["wrong"] / group["of"] for group in found]
    assert shares == sorted(shares, reverse=True)
    curve = thinned([{"epoch": i, "val/loss": 1.0 / i} for i in range(1, 1001)], points=8)
    assert len(curve["epoch"]) == 8 and curve["epoch"][0] == 1 and curve["epoch"][-1] == 1000


def test_the_page_stands_alone_and_nothing_in_it_can_end_a_script(work_dir):
    rows = collect(work_dir)
    rows[0]["name"] = "</script><script>alert(1)</script>"
    text = page(work_dir, rows, ["worst_group_accuracy"], pictured=1)
    assert "<script>alert" not in text and text.count("</script>") == text.count("<script")
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|@import|https?://', markup)
    assert "default-src 'none'" in text and len(text) < 2_000_000
    assert json.loads(embedded({"a": float("nan"), "b": ["<", float("inf")]})) == {"a": None, "b": ["<", None]}


def test_a_picture_keeps_its_pixels():
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    read = Image.open(io.BytesIO(base64.b64decode(picture(pixels).partition(",")[2])))
    assert np.array_equal(np.asarray(read.convert("RGB")).transpose(2, 0, 1), pixels)


def test_the_expected_best_is_the_mean_over_all_draws():
    from itertools import combinations

    values = np.random.default_rng(0).normal(size=7)
    found = expected_best(values)
    for k in range(1, 8):
        assert found[k - 1] == pytest.approx(np.mean([max(draw) for draw in combinations(values, k)]))
    assert stats.rankdata(found).tolist() == list(range(1, 8))


def test_the_page_needs_its_files_in_the_package():
    folder = ROOT / "experiments" / "page"
    assert {"d3.min.js", "plot.umd.min.js", "LICENSE-d3", "LICENSE-plot"} == {
        p.name for p in (folder / "vendor").iterdir()
    }
