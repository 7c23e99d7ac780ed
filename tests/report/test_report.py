"""What is told of runs: nothing is left out, and the page stands alone."""

import base64
import csv
import json
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import ROOT

from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.metrics.intervals import Interval, wilson
from imbalance.report import plots, report
from imbalance.report.collect import collect, columns, separate_repeated, write, write_csv, write_parquet
from imbalance.report.plot_style import save, subplots
from imbalance.report.settings import default_metrics
from imbalance.sweep.runs import make_run
from imbalance.training.loop import train


def write_run(work_dir, overrides: dict, seed: int, summary: dict | None, worst: float = 0.5) -> None:
    """A run directory as training leaves it, without the training."""
    config = load(ROOT / "configs" / "digits_ce.py")
    config.seed, config.debug = seed, overrides.get("debug", False)
    config.optim.lr = overrides.get("optim.lr", config.optim.lr)
    name = ",".join(f"{key}={value}" for key, value in overrides.items()) or "default"
    directory = work_dir / "digits_ce" / name / f"seed={seed}"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    if summary:
        metrics = {
            "test/balanced_accuracy": summary["score"], "test/worst_group_accuracy": worst,
            "test/group_accuracy/0": worst, "test/group_accuracy/1": summary["score"], "test/group_accuracy/none": None,
        }  # fmt: skip
        summary = {
            "seconds": 1.0, "groups": {"test": {"0": 20, "1": 1000, "none": 0}},
            "metrics": metrics if summary["status"] == "done" else None, **summary,
        }  # fmt: skip
        (directory / "summary.json").write_text(json.dumps(summary))
        line = {"epoch": 10, "val/group_accuracy/0": 0.9, "val/group_accuracy/1": None}
        (directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")


@pytest.fixture
def work_dir(tmp_path):
    """Two rates, three seeds: five runs done or begun, one diverged."""
    folder = tmp_path / "runs"
    for seed, score in enumerate((0.6, 0.7, 0.8)):
        write_run(folder, {}, seed, {"status": "done", "score": score})
    write_run(folder, {"optim.lr": 0.5}, 0, {"status": "done", "score": 0.9}, worst=0.25)
    write_run(folder, {"optim.lr": 0.5}, 1, {"status": "diverged", "score": None})
    write_run(folder, {"optim.lr": 0.5}, 2, None)
    return folder


def test_a_debug_run_is_counted_and_left_out_of_the_means(work_dir):
    """It trained on one batch; in a table without a column for `debug` it was a further seed or setting like any other."""
    write_run(work_dir, {"debug": True}, 0, {"status": "done", "score": 0.99})
    statuses = {row["run"]: row["status"] for row in collect(work_dir)}
    assert [run for run, status in statuses.items() if status == "debug"] == [
        run for run in statuses if "debug=True" in run
    ]
    assert sum(status == "done" for status in statuses.values()) == 4


def test_two_runs_of_one_name_and_seed_are_two_settings(work_dir):
    """The means of two work_dirs counted them as two seeds."""
    rows = collect(work_dir)
    assert separate_repeated(rows) == (rows, "")
    again = [{**row, "run": f"again/{row['run']}"} for row in rows if row["overrides"] == "default"][1:]
    separated, warning = separate_repeated([*rows, *again])
    groups = report.by_setting(separated)
    sizes = {("digits_ce", "default"): 3, ("digits_ce", "optim.lr=0.5"): 3, ("again/digits_ce", "default"): 2}
    assert {key: len(runs) for key, runs in groups.items()} == sizes
    assert f"{again[0]['run'].removeprefix('again/')} and {again[0]['run']} have the same config name" in warning

    copy = {**rows[0], "run": f"{rows[0]['run']} (copy)"}  # in the same folder
    groups = report.by_setting(separate_repeated([*rows, copy])[0])
    assert [len(runs) for runs in groups.values()] == [1, 1, 1, 3, 1]


def test_metrics_that_no_run_has_are_refused():
    with pytest.raises(BadInput, match="^--metrics: 'foo' given; it must be one of loss, accuracy"):
        report.report(work_dir=".", folder=".", metrics=["balanced_accuracy", "recall/cat", "foo"], pictured=0)


def test_the_report_opens_on_the_metric_by_which_the_runs_select():
    rows = [{"config.callbacks.monitor": f"val/{name}"} for name in ("mcc", "auroc", "auroc", "auroc/cat", "accuracy")]
    assert default_metrics(rows) == ["auroc", "balanced_accuracy", "worst_group_accuracy"]
    assert default_metrics(rows[3:4]) == ["balanced_accuracy", "worst_group_accuracy"]  # a metric of one class
    balanced = [{"config.callbacks.monitor": "val/worst_group_accuracy"}]
    assert default_metrics(balanced) == ["worst_group_accuracy", "balanced_accuracy"]


def test_collect_has_a_row_for_every_run_whatever_became_of_it(work_dir, tmp_path):
    rows = collect(work_dir)
    assert sorted(row["status"] for row in rows) == ["diverged", "done", "done", "done", "done", "incomplete"]
    assert rows[0]["name"] == "digits_ce" and rows[0]["config.optim.lr"] == load("configs/digits_ce.py").optim.lr
    write_csv(tmp_path / "runs.csv", rows)
    with open(tmp_path / "runs.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 6 and set(read[0]) == set(columns(rows))
    assert read[-1]["status"] == "incomplete" and read[-1]["score"] == read[-1]["test/balanced_accuracy"] == ""


def test_a_damaged_run_is_counted_and_ends_no_report(work_dir, capsys):
    """A summary that cannot be read is one of a damaged run; what is no run's config is left out, with a line."""
    summaries = sorted(work_dir.rglob("summary.json"))
    summaries[0].write_text("")
    summaries[1].write_text("[]")
    configs = sorted(work_dir.rglob("config.json"))
    configs[2].write_text("{")
    (work_dir / "config.json").write_text("{}")
    rows = collect(work_dir)
    assert len(rows) == 5 and [row["status"] for row in rows].count("damaged") == 2
    said = capsys.readouterr().err
    assert said.count("is left out: ") == 2 and str(configs[2]) in said
    report.summarise(report.by_setting(rows), ["balanced_accuracy"])


def test_a_parquet_table_has_the_same_rows_in_the_types_that_they_have(work_dir, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = collect(work_dir)
    rows[0]["config.optim.lr"], rows[1]["config.data.imbalance"] = 1, None
    rows[2]["config.weights.by"] = ["class", 2]  # a key whose values are of several types
    write_parquet(tmp_path / "runs.parquet", rows)
    read = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert len(read) == 6 and set(read[0]) == set(columns(rows))
    for row, found in zip(rows, read):
        for key in ("status", "seed", "score", "config.optim.lr", "config.data.imbalance", "test/balanced_accuracy"):
            assert found[key] == row.get(key)
        for key in ("config.model.hidden", "config.weights.by"):
            assert json.loads(found[key]) == row[key]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("runs.parquet", "Parquet files need pyarrow, which is not installed; type pip install"),
        ("no/runs.csv", "in a folder that does not exist; make the folder first"),
        ("runs.xlsx", "does not end in .csv or .parquet"),
    ],
)
def test_a_table_that_cannot_be_written_is_one_line(output, words, work_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInput, match=re.escape(words)):
        write(work_dir=str(work_dir), output=str(tmp_path / output))


def test_runs_that_are_done_and_have_no_value_of_a_metric_are_counted():
    row = {"name": "a", "overrides": "", "status": "done", "seconds": 1.0, "test/mcc": 0.5}
    rows = [
        row,
        {**row, "test/mcc": None},
        {**row, "test/mcc": float("nan")},
        {**row, "status": "diverged", "test/mcc": None},
    ]
    assert [report.missing_values(rows, metric) for metric in ("mcc", "f1")] == [2, 3]


def test_tables_have_means_over_what_is_done_and_count_the_rest(work_dir, tmp_path):
    groups = report.by_setting(collect(work_dir))
    table = report.as_text(report.summarise(groups, ["balanced_accuracy"]))
    by_rate = {row["optim.lr"]: row for row in table}
    own = str(load(ROOT / "configs" / "digits_ce.py").optim.lr)
    assert by_rate.keys() == {own, "0.5"}  # the rate is all that differs
    assert by_rate[own]["balanced_accuracy"] == "70.0 ± 24.8"  # 4.3027 · 10 / √3
    assert by_rate[own]["n"] == "3" and by_rate[own]["left out"] == "–"
    assert by_rate["0.5"]["balanced_accuracy"] == "90.0" and by_rate["0.5"]["n"] == "1"
    assert by_rate["0.5"]["left out"] == "1 diverged, 1 incomplete"
    for row in report.summarise(groups, ["mcc"]):  # these runs have no mcc
        assert row["left out"].endswith(f"mcc: {row['n']} without a value")
    assert all(line.count("|") == len(table[0]) + 1 for line in report.markdown(table).splitlines())
    assert r"digits\_ce" in report.latex(table) and r"70.0 $\pm$ 24.8" in report.latex(table)
    report.write_table(tmp_path, "results", report.summarise(groups, ["balanced_accuracy"]))
    with open(tmp_path / "results.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["optim.lr"] == own)
    assert float(row["balanced_accuracy value"]) == pytest.approx(0.7) and row["balanced_accuracy n"] == "3"


def test_groups_have_means_over_seeds_and_intervals_over_test_examples(work_dir, tmp_path):
    of_groups = report.summarise_groups(report.by_setting(collect(work_dir)), work_dir)
    own = str(load(ROOT / "configs" / "digits_ce.py").optim.lr)
    found = {(row["optim.lr"], row["test group"]): row for row in report.as_text(of_groups)}
    assert len(found) == 2 * 4  # two groups that there are examples of, the worst of them and their mean
    intervals = "one run, over test examples"
    few, many, one = found[own, "0"], found[own, "1"], found["0.5", "0"]
    assert (few["examples"], few["accuracy"], few["n"]) == ("20", "50.0 (all 3 equal)", "3")
    assert few[intervals] == "29.9 to 70.1"  # Wilson's, of 10 of 20
    assert many["accuracy"] == "70.0 ± 24.8"
    ends = [wilson(right, 1000) for right in (600, 700, 800)]
    assert many[intervals] == Interval(*np.mean(ends, axis=0)).percent()
    assert (one["accuracy"], one["n"], one[intervals]) == ("25.0", "1", wilson(5, 20).percent())
    worst, average = found[own, "the worst"], found[own, "their mean"]
    assert (worst["examples"], worst["accuracy"], average["accuracy"]) == ("1020", "50.0 (all 3 equal)", "60.0 ± 12.4")
    report.write_table(tmp_path, "groups", of_groups)
    with open(tmp_path / "groups.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row[f"{intervals} low"]) == pytest.approx(0.299, abs=0.001) and row["accuracy n"] == "3"


def test_a_report_writes_everything_and_shows_the_papers_figures_that_are_there(work_dir, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "figure1.png").write_bytes(b"boundaries")
    report.report(work_dir=str(work_dir), folder=str(folder), metrics=["balanced_accuracy"], pictured=0)
    assert {"results.md", "results.tex", "results.csv", "groups.md", "runs.csv", "boxes.pdf"} <= {
        path.name for path in folder.iterdir()
    }
    text = (folder / "index.html").read_text()
    assert "<h2>Figure 1 of Wang et al. (ICLR 2022)</h2>" in text and base64.b64encode(b"boundaries").decode() in text


def test_a_run_whose_optimiser_has_no_learning_rate_is_in_the_tables_and_not_in_the_figure_of_rates(work_dir):
    pytest.importorskip("matplotlib")
    path = work_dir / "digits_ce" / "default" / "seed=0" / "config.json"
    config = json.loads(path.read_text())
    config["optim"] = {"name": "lbfgs", "weight_decay": 0.01, "decayed": "weights", "tolerance": 1e-4}
    path.write_text(json.dumps(config))
    rows = collect(work_dir)
    assert len(rows) == 6 and sum("config.optim.lr" not in row for row in rows) == 1
    (axis,) = plots.rates(report.by_setting(rows)).axes
    scores = np.concatenate([line.get_ydata() for line in axis.lines if line.get_marker() == "o"])
    assert sorted(scores) == pytest.approx([70, 80, 90])


def test_box_plots_share_the_names_of_their_settings(work_dir):
    pytest.importorskip("matplotlib")
    for metrics in (["accuracy"], ["accuracy", "balanced_accuracy", "worst_group_accuracy"]):
        figure = plots.boxes(report.by_setting(collect(work_dir)), metrics)
        assert [axis.get_xlabel() for axis in figure.axes] == [f"test {m.replace('_', ' ')}, %" for m in metrics]
        assert all(figure.axes[0].get_shared_y_axes().joined(figure.axes[0], axis) for axis in figure.axes[1:])


def test_boundaries_are_drawn_of_runs_in_two_dimensions_and_are_the_models(work_dir, tmp_path):
    pytest.importorskip("matplotlib")
    assert plots.boundaries(work_dir, report.by_setting(collect(work_dir))) is None
    few = (10, 10)
    planar = {"data.dim": 2, "data.means": ((5.0,), (0.0, 5.0)), "data.val_per_class": few, "data.test_per_class": few}
    run = make_run("gaussian_poly", planar | {"trainer.epochs": 5}, 0, str(work_dir))
    train(*run)
    dataset, x, y, decided = plots.decisions(run.directory)
    state = torch.load(run.directory / "checkpoints" / "selected.pt", weights_only=True)
    (w0, w1), bias = np.diff(state["head.weight"].numpy(), axis=0)[0], np.diff(state["head.bias"].numpy())
    expected = w0 * x[None, :] + w1 * y[:, None] + bias > 0
    assert (decided == expected).mean() > 0.999 and 0.2 < expected.mean() < 0.8  # float32 where the model had float64
    assert x[0] < dataset.train.inputs[:, 0].min() < dataset.train.inputs[:, 0].max() < x[-1]
    figures = plots.draw(work_dir, report.by_setting(collect(work_dir)), ["balanced_accuracy"], tmp_path)
    assert "boundaries.png" in [path.name for _, path in figures]


def test_figure_1_is_the_notebooks_and_figure_2_the_papers_setting():
    from imbalance.experiments import figure1, figure2
    from imbalance.experiments.published import published

    for name, direction in figure1.limits(*figure1.draw(figure1.SEED)).items():
        angle, offset = figure1.measure(direction)
        assert angle == pytest.approx(published("figure1", f"{name} angle").value, abs=0.06)
        assert offset == pytest.approx(published("figure1", f"{name} offset").value, abs=0.006)
    found = [figure2.limit_errors(9, seed, (1, 4)) for seed in range(3)]
    for name, tolerance in (("margin", 1.0), ("1", 0.3), ("4", 0.7)):
        overall = np.mean([errors[name][2] for errors in found])
        assert overall == pytest.approx(published("figure2 right", f"{name} overall").value, abs=tolerance)


def test_a_report_into_a_file_is_refused(work_dir, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--folder: .*file is a file; name a folder"):
        report.report(work_dir=str(work_dir), folder=str(tmp_path / "file"), metrics=(), pictured=0)


def test_a_table_of_runs_replaces_an_earlier_one_and_nothing_else(work_dir, tmp_path):
    for name in ("mine.csv", "mine.parquet"):
        file = tmp_path / name
        file.write_bytes(b"PAR1 of another program" if name.endswith("parquet") else b"run,age\n1,2\n")
        before = file.read_bytes()
        with pytest.raises(BadInput, match=f"{name} exists, and this command did not write it; name another file"):
            write(work_dir=str(work_dir), output=str(file))
        assert file.read_bytes() == before
        file.unlink()
        for _ in range(2):
            write(work_dir=str(work_dir), output=str(file))


@pytest.mark.parametrize("name", ["index.html", "results.md", "groups.csv", "runs.csv", "curves.pdf"])
def test_a_report_replaces_an_earlier_report_and_nothing_else(work_dir, tmp_path, name):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "figure1.png").write_bytes(b"")  # as `imbalance reproduce` writes it
    (folder / name).write_text("my home page")
    with pytest.raises(BadInput, match=f"--folder: .*site has a file {name}, which no report wrote"):
        report.report(work_dir=str(work_dir), folder=str(folder), metrics=(), pictured=0)
    assert (folder / name).read_text() == "my home page" and len(list(folder.iterdir())) == 2
    (folder / name).unlink()
    report.check_folder(folder)
    write_csv(folder / "runs.csv", collect(work_dir))  # the first file of a report, in which it was stopped
    (folder / name).write_text("run,name,overrides,seed,status,")
    report.check_folder(folder)


def test_a_report_is_no_part_of_a_run_directory(work_dir):
    run = next(work_dir.rglob("summary.json")).parent
    before = sorted(run.rglob("*"))
    for folder in (run, run / "report"):
        with pytest.raises(BadInput, match=f"--folder: .* is inside the run directory {run}; name a path outside it"):
            report.report(work_dir=str(work_dir), folder=str(folder), metrics=(), pictured=0)
    assert sorted(run.rglob("*")) == before


def test_a_work_dir_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(
        BadInput, match="^--work_dir=.*nowhere is no folder; type the folder that has the run directories"
    ):
        write(work_dir=str(tmp_path / "nowhere"), output=None)


def test_long_names_fit_in_every_figure_and_stay_different(tmp_path):
    """Names were cut: twelve methods became one curve, and legends were outside the figure."""
    pytest.importorskip("matplotlib")
    settings, groups = {}, [f"group {i} with a name of sixty characters, of which all count" for i in range(4)]
    for method in range(12):
        name = f"config_with_a_name_of_sixty_characters_for_method_number_{method:03}"
        for rate in (0.01, 0.1):
            overrides = f"loss.name=a_loss_with_a_name_that_is_as_long_as_that_of_the_config_{method},optim.lr={rate}"
            rows = []
            for seed in range(2):
                run = f"{name}/{overrides}/seed={seed}"
                (tmp_path / run).mkdir(parents=True)
                lines = [json.dumps({"epoch": e, **{f"val/group_accuracy/{g}": e / 2 for g in groups}}) for e in (1, 2)]
                (tmp_path / run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
                score = {"score": method / 20 + seed / 100, "test/balanced_accuracy": 0.5 + seed / 100}
                rows.append({"run": run, "status": "done", "seed": seed, "config.optim.lr": rate, **score})
            settings[name, overrides] = rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plots.curves(tmp_path, settings),
            plots.rates(settings),
            plots.boxes(settings, ["balanced_accuracy"]),
        ):
            assert figure
            figure.canvas.draw()
            tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= width and tight.y1 <= height
            assert all(axis.get_position().height * height > 1 for axis in figure.axes if axis.get_visible())
    rates = plots.rates(settings)
    assert rates
    texts = [text.get_text().replace("\n", "") for text in rates.legends[0].get_texts()]
    assert len(set(texts)) == 12 and all("number_" in text and "_config_" in text for text in texts)
    handles = [(line.get_color(), line.get_linestyle()) for line in rates.legends[0].get_lines()]
    assert len(set(handles)) == 12
    curves = plots.curves(tmp_path, settings)
    assert [text.get_text().replace("\n", " ") for text in curves.legends[0].get_texts()] == groups


def test_a_colour_that_few_pixels_have_stays_in_the_png(tmp_path):
    """The lines of a legend got the colours of others if they were hidden in the axes."""
    pytest.importorskip("matplotlib")
    from PIL import Image

    figure, axis = subplots(1, 1, 4, 3)
    axis.imshow(np.random.default_rng(0).random((60, 80)), cmap="viridis")
    axis.plot([1, 2], [1, 1], color="#D55E00", linewidth=3)
    path = save(figure, tmp_path, "few")[0]
    colours = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    assert np.abs(colours - [0xD5, 0x5E, 0x00]).max(1).min() <= 8
