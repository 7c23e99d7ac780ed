"""What the page says, and that it stands alone; tests/report/page/test_browser.py opens it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.checkpoints import save_summary
from scipy import stats

from imbalance.data import Split
from imbalance.data.tables.columns import frame_columns
from imbalance.data.tables.encoding import fit_features, transform
from imbalance.data.texts.tokenizers import learn_tokenizer
from imbalance.data.texts.tokens import Tokens, tokenise
from imbalance.metrics.intervals import expected_best
from imbalance.metrics.scores import probabilities
from imbalance.report.collect import collect
from imbalance.report.page import embedded_json, page
from imbalance.report.page.contents import page_contents, surest_errors, thinned
from imbalance.report.page.examples import picture, render_example
from imbalance.report.page.overview import OWN_RULE, Shared, aggregates, chosen_by_val, method_names, overview
from imbalance.report.page.run_details import run_details
from imbalance.report.settings import common_values, varying_keys
from imbalance.sweep.runs import make_run
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
                train(*make_run(name, SHORT | {"optim.lr": rate}, seed, str(folder)))
    return folder


def test_columns_are_what_differs_between_settings_of_one_file(work_dir):
    rows = collect(work_dir)
    assert varying_keys(rows) == ["optim.lr"]
    shared = common_values(rows, ["optim.lr"])
    assert shared["trainer.epochs"] == 4 and "optim.lr" not in shared and "seed" not in shared
    assert "objective.name" not in shared  # the two files differ in it, which their names say


def test_every_rule_gives_the_test_metrics_of_the_epoch_that_it_chooses(work_dir):
    rows = collect(work_dir)
    found = overview(rows, page_contents(work_dir, rows), ["worst_group_accuracy"], Shared())
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
                run = make_run(name, {"trainer.epochs": 1, "data.saturation": saturation}, seed, str(tmp_path))
                train(*run)
    rows = collect(tmp_path)
    found = overview(rows, page_contents(tmp_path, rows), ["balanced_accuracy"], Shared())
    assert found["tasks"] == ["colored_digits saturation=0.4", "colored_digits saturation=0.6"]
    over = found["aggregates"]["balanced_accuracy"]
    assert (over["tasks"], over["seeds"], over["baseline"]) == (2, 3, "erm")
    for row in over["rows"]:
        values = sorted(
            r["test/balanced_accuracy"] for r in rows if r["name"].endswith(row["method"].partition(",")[0])
        )
        assert row["iqm"].value == pytest.approx(np.mean(values[1:-1]))  # a quarter of six is one run at each end


def test_aggregates_are_of_the_settings_with_the_best_val_score_alone():
    settings = [dict(task=task, method=method, chosen=chosen) for task in "ab" for method, chosen in (("erm", True), ("dro", True), ("dro", False))]  # fmt: skip
    runs = [
        dict(setting=i, seed=seed, metrics={OWN_RULE: {"test/accuracy": 0.1 * (i + 1) + 0.01 * seed}})
        for i in range(len(settings))
        for seed in range(4)
    ]
    rows = aggregates(settings, runs, ["accuracy"])["accuracy"]["rows"]
    means = {row["method"]: row["iqm"].value for row in rows}
    assert means == pytest.approx({"erm": 0.25 + 0.015, "dro": 0.35 + 0.015})


def test_a_run_has_its_surest_errors_as_pictures(work_dir):
    rows = collect(work_dir)
    contents, shared = page_contents(work_dir, rows), Shared()
    found = overview(rows, contents, ["worst_group_accuracy"], shared)
    of_runs, pictures = run_details(work_dir, rows, contents, found, shared, pictured=3)
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
    found = surest_errors(saved, probabilities(saved["logits"]), names, most=13)
    assert len(found) == 13 and all(len(group["examples"]) == 1 for group in found)
    shares = [group["wrong"] / group["of"] for group in found]
    assert shares == sorted(shares, reverse=True)
    curve = thinned([{"epoch": i, "val/loss": 1.0 / i} for i in range(1, 1001)], points=8)
    assert len(curve["epoch"]) == 8 and curve["epoch"][0] == 1 and curve["epoch"][-1] == 1000


def test_surest_errors_are_in_order_where_their_confidence_rounds_to_one():
    margins = np.array([50, 41, 60, 44, 38, 3])
    saved = {
        "logits": np.stack([np.zeros(6), margins], axis=1), "targets": np.array([0, 0, 0, 1, 0, 0]),
        "groups": np.zeros(6, dtype=int), "indices": np.arange(6),
    }  # fmt: skip
    names = {"classes": {"test": dict.fromkeys("ab")}, "groups": {"test": {"all": 6}}}
    (group,) = surest_errors(saved, probabilities(saved["logits"]), names, most=13)
    assert [example["row"] for example in group["examples"]] == [2, 0, 1, 4, 5]


def test_the_page_stands_alone_and_nothing_in_it_can_end_a_script(work_dir):
    rows = collect(work_dir)
    rows[0]["name"] = "</script><script>alert(1)</script>"
    text = page(work_dir, rows, ["worst_group_accuracy"], pictured=1)
    assert "<script>alert" not in text and text.count("</script>") == text.count("<script")
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|@import|https?://', markup)
    assert "default-src 'none'" in text and len(text) < 2_000_000
    assert json.loads(embedded_json({"a": float("nan"), "b": ["<", float("inf")]})) == {"a": None, "b": ["<", None]}


DAMAGE = {
    "no config": lambda run: (run / "config.json").write_text(""),
    "another's config": lambda run: (run / "config.json").write_text('{"seed": 0, "trainer": 1, "optim": 2}'),
    "begun": lambda run: [(run / name).unlink() for name in ("summary.json", "metrics.jsonl", "log.txt")],
    "summary cut": lambda run: (run / "summary.json").write_text((run / "summary.json").read_text()[:200]),
    "summary of another kind": lambda run: (run / "summary.json").write_text('{"status": "done"}'),
    "summary binary": lambda run: (run / "summary.json").write_bytes(b"\xff{"),
    "metrics cut in a letter": lambda run: (run / "metrics.jsonl").open("ab").write('{"é'.encode()[:-1]),
    "metrics of no kind": lambda run: (run / "metrics.jsonl").write_text('null\n[]\n{"val/accuracy": 1}\n'),
    "metrics binary": lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\n\xff\n"),
    "predictions cut": lambda run: (run / "predictions/test.npz").write_bytes(b"PK\3\4cut"),
    "predictions of another kind": lambda run: np.savez(run / "predictions/test.npz", a=1),
    "predictions of another run": lambda run: np.savez(
        run / "predictions/test.npz", logits=np.zeros((3, 2)), targets=[0, 1, 9], groups=[0, 99, 1], indices=[0, 1, 2]
    ),
    "predictions not numbers": lambda run: np.savez(
        run / "predictions/test.npz", logits=np.full((2, 2), np.nan), targets=[0, 1], groups=[0, 1], indices=[0, 1]
    ),
    "log binary": lambda run: (run / "log.txt").write_bytes(bytes(range(256))),
}  # fmt: skip


def test_run_directories_that_are_half_written_or_damaged_do_not_take_the_report_with_them(work_dir, tmp_path, capsys):
    from imbalance.report.report import report

    source = next(work_dir.rglob("seed=0"))
    for name, damage in DAMAGE.items():
        run = tmp_path / "runs" / "colored_digits_erm" / name / "seed=0"
        shutil.copytree(source, run)
        damage(run)
    shutil.copytree(source, tmp_path / "runs" / "colored_digits_erm" / "whole" / "seed=0")
    report(work_dir=str(tmp_path / "runs"), folder=str(tmp_path), metrics=["worst_group_accuracy"], pictured=3)
    said = capsys.readouterr()
    assert said.err.count("config.json is left out: ") == 2 and said.err.count("\n") == 2
    rows = {row["overrides"]: row for row in collect(tmp_path / "runs")}
    assert len(rows) == len(DAMAGE) - 1 and rows["whole"]["status"] == "done"
    assert {name for name, row in rows.items() if row["status"] == "damaged"} == {
        name for name in DAMAGE if "summary" in name
    }
    assert rows["begun"]["status"] == "incomplete" and rows["metrics binary"]["status"] == "done"
    assert "metrics.jsonl is damaged, so the run has no learning curves" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("status", ["diverged", "incomplete", "no metrics"])
def test_a_page_of_runs_of_which_none_is_to_be_ranked(work_dir, tmp_path, status):
    for seed in range(3):
        run = tmp_path / "colored_digits_erm" / "default" / f"seed={seed}"
        shutil.copytree(next(work_dir.rglob("seed=0")), run)
        path = run / "summary.json"
        summary = json.loads(path.read_text())
        if status == "incomplete":
            path.unlink()
        elif status == "diverged":
            save_summary(run, summary | {"status": "diverged", "score": None, "metrics": None})
        else:
            save_summary(run, summary | {"score": None, "metrics": dict.fromkeys(summary["metrics"])})
    text = page(tmp_path, collect(tmp_path), ["worst_group_accuracy"], pictured=1)
    assert "3 runs of 1 setting<" in text and len(text) < 2_000_000


def test_of_a_methods_settings_the_one_is_shown_that_val_chooses_over_the_seeds_that_they_share():
    rows = [{"score": score, "seed": seed, "status": "done" if score is not None else "diverged"} for seed, score in
            [(0, 0.9), (1, 0.8), (2, 0.1), (0, 0.7), (1, 0.7), (0, 0.5), (0, None), (0, 0.2), (0, 0.2), (1, 0.0)]]  # fmt: skip
    of_setting = [0, 0, 0, 1, 1, 2, 3, 4, 5, 5]
    alike = [("erm", "a"), ("erm", "a"), ("dro", "a"), ("erm", "a"), ("erm", "b"), ("erm", "b")]
    # Of erm on a: 0.85 against 0.70 over the two seeds of both, though 0.60 over all; what diverged has no score. On b
    # two are equal, and one of them has been run over more seeds.
    assert chosen_by_val(rows, of_setting, alike) == {0, 2, 5}
    # Of two settings, one has lost four seeds of five: its one score is no reason to choose it.
    scores = [[None, None, None, None, 0.92], [0.90, 0.91, 0.89, 0.90, 0.90]]
    rows = [
        {"score": score, "seed": seed, "status": "done" if score else "diverged"}
        for values in scores
        for seed, score in enumerate(values)
    ]
    assert chosen_by_val(rows, [0] * 5 + [1] * 5, [("erm", "a")] * 2) == {1}
    assert method_names([{"name": f"digits_pair_{m}", "config.data.name": "digits"} for m in ("erm", "poly")]) == [
        "erm",
        "poly",
    ]
    assert method_names([{"name": "a_poly", "config.data.name": "a"}, {"name": "a_poly_dro", "config.data.name": "a"}]) == [
        "poly", "poly_dro"]  # fmt: skip


def test_a_text_is_shown_as_the_numbers_of_its_tokens():
    tokens = Tokens(
        np.arange(20, dtype=np.int32), np.zeros(0, np.uint8), np.array([0, 3, 20]), np.zeros(2, np.uint32),
        torch.arange(2), vocabulary=30, padding=0, target=torch.device("cpu"),
    )  # fmt: skip
    labels = torch.zeros(2, dtype=torch.int64)
    shown = render_example(Split(tokens, labels, labels, torch.arange(2)), 1, {})
    assert shown["row"]["input_ids"] == list(range(3, 15)) and shown["row"]["attention_mask"] == [1] * 12


def test_a_text_is_shown_as_its_tokens_spell_it_and_a_row_by_its_columns():
    pytest.importorskip("tokenizers")
    tokenizer = learn_tokenizer("words", ["the cat sat on the mat", "a dog ran"], 40)
    labels = torch.zeros(2, dtype=torch.int64)
    preprocessing = {"kind": "texts", "tokenizer": tokenizer.to_str()}
    single = Split(tokenise(["a dog ran", "the cat"], tokenizer), labels, labels, labels)
    assert [render_example(single, row, preprocessing) for row in (0, 1)] == [
        {"text": "a dog ran"},
        {"text": "the cat"},
    ]
    pairs = Split(tokenise([("a dog", "the cat"), ("a", "mat " * 300)], tokenizer), labels, labels, labels)
    assert render_example(pairs, 0, preprocessing) == {"text": "a dog ‖ the cat"}
    long = render_example(pairs, 1, preprocessing)["text"]
    assert long.startswith("a ‖ mat mat") and long.endswith("…") and len(long) == len("a ‖ ") + 400
    columns = frame_columns({"age": [20.0, 40.0], "job": ["cook", "dean"]})
    features = fit_features(columns, np.arange(2), ("age",), ("job",), ())
    table = Split(torch.from_numpy(transform(columns, features)), labels, labels, labels)
    shown = render_example(table, 1, {"kind": "columns", "features": features})
    assert shown == {"cells": {"age": "40", "job": "dean"}, "columns": 2}


def test_a_picture_keeps_its_pixels():
    import base64
    import io

    from PIL import Image

    def decoded(example: np.ndarray) -> np.ndarray:
        image = Image.open(io.BytesIO(base64.b64decode(picture(example).partition(",")[2])))
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    pixels[0, 0, :2] = 0, 255
    assert np.array_equal(decoded(pixels), pixels)
    assert np.array_equal(decoded(pixels / 50 - 2), pixels)  # floats are scaled from black to white
    assert not decoded(np.full((3, 8, 8), 0.7)).any()


def test_the_expected_best_is_the_mean_over_all_draws():
    from itertools import combinations

    values = np.random.default_rng(0).normal(size=7)
    found = expected_best(values)
    for k in range(1, 8):
        assert found[k - 1] == pytest.approx(np.mean([max(draw) for draw in combinations(values, k)]))
    assert stats.rankdata(found).tolist() == list(range(1, 8))
    many = expected_best(np.arange(1100.0))  # C(1100, 550) is no float
    assert many[-1] == 1099 and many[0] == pytest.approx(549.5) and many[549] == pytest.approx(1101 * 550 / 551 - 1)


def test_the_page_needs_its_files_in_the_package():
    folder = ROOT / "imbalance" / "report" / "page"
    assert {"d3.min.js", "plot.umd.min.js", "LICENSE-d3", "LICENSE-plot"} == {
        p.name for p in (folder / "vendor").iterdir()
    }
