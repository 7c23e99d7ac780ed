"""Submitted runs are checked, summarised and ranked; what fails a check is refused and writes nothing."""

import gzip
import hashlib
import json
import shutil

import numpy as np
import pytest
from scipy import stats

import imbalance
from imbalance.config.registries import registries
from imbalance.config.resolve import resolve
from imbalance.config.schema import flatten
from imbalance.data import identity
from imbalance.errors import BadInput
from imbalance.experiments import leaderboard as kept_leaderboard
from imbalance.report import kept_results, leaderboard
from imbalance.training.state import provenance
from imbalance.utils.package import ROOT
from imbalance.utils.read import short_hash

SHORT = {"trainer.epochs": 2, "trainer.eval_every": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of group DRO on colored digits, and one seed of ERM."""
    work_dir = str(tmp_path_factory.mktemp("leaderboard") / "runs")
    trained = [
        imbalance.run(f"colored_digits_{method}", {**SHORT, "seed": seed, "work_dir": work_dir})
        for method, seed in (("dro", 0), ("dro", 1), ("dro", 2), ("erm", 0))
    ]
    return [result.directory for result in trained]


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Submit runs to an empty leaderboard; the code of this checkout may be uncommitted."""
    monkeypatch.setattr(provenance, "check_commit", lambda saved, what: None)
    folder = tmp_path / "results"

    def call(runs, by="Ada", tuning="of the config"):
        return leaderboard.submit(runs=list(map(str, runs)), by=by, tuning=tuning, results=str(folder))

    call.folder = folder
    return call


def worst_group(run):
    """Return the accuracy of the worst group on test, from the saved predictions."""
    saved = np.load(f"{run}/predictions/test.npz")
    right = saved["logits"].argmax(1) == saved["targets"]
    return min(right[saved["groups"] == group].mean() for group in range(4))


def test_a_row_has_the_mean_over_seeds_and_what_the_method_reads_with_evidence_under_its_digest(runs, submit):
    out = submit(runs)
    by_method = {row["method"]: row for row in leaderboard.read(submit.folder)}
    row, values = by_method["objective group_dro"], [worst_group(run) for run in runs[:3]]
    assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-9)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert [float(row[end]) for end in ("low", "high")] == pytest.approx([max(0, low), min(1, high)], abs=1e-9)
    assert (row["labels in train"], row["labels in val"], row["n"], row["seeds"]) == ("groups", "groups", "3", "0 1 2")
    assert (row["starts from"], row["data"], row["by"]) == ("random weights", "colored_digits", "Ada")
    assert (by_method["ERM"]["labels in train"], by_method["ERM"]["low"]) == ("classes", "")
    lines = (
        gzip.decompress((submit.folder / "submitted" / f"{row['digest']}.jsonl.gz").read_bytes()).decode().splitlines()
    )
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == row["digest"] and row["digest"] in out
    assert [json.loads(line)["summary"]["metrics"]["test/worst_group_accuracy"] for line in lines] == pytest.approx(
        values
    )


def test_the_same_runs_again_are_done_before_and_more_seeds_replace_a_row_but_fewer_are_refused(runs, submit):
    submit(runs[:2])
    before = (submit.folder / "leaderboard.csv").read_bytes()
    assert submit(runs[:2]).startswith("done before: ") and (submit.folder / "leaderboard.csv").read_bytes() == before
    submit(runs[:3])
    (row,) = leaderboard.read(submit.folder)
    assert row["n"] == "3"
    with pytest.raises(BadInput, match="has a row with the seeds 0 1 2; submit runs with these seeds and further ones"):
        submit(runs[1:3])


def unfinished(copy):
    (copy / "summary.json").unlink()


def write_logits(copy, change):
    """Change the logits of test, and record the digest of the changed file."""
    path = copy / "predictions" / "test.npz"
    arrays = dict(np.load(path))
    change(arrays["logits"])
    np.savez(path, **arrays)
    record(copy, {"files": {"predictions/test.npz": short_hash(path.read_bytes())}})


def record(copy, values):
    """Put values into the summary of a run, and a digest that fits."""
    path = copy / "summary.json"
    summary = json.loads(path.read_text())
    summary.pop("digest", None)
    for key, value in values.items():
        summary[key] = summary[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(summary))


def write_config(copy, section, key, value):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    config[section][key] = value
    path.write_text(json.dumps(config))
    record(copy, {"files": {"config.json": short_hash(path.read_bytes())}})


REFUSED = {
    "unfinished": (unfinished, "no finished run"),
    "diverged": (lambda copy: record(copy, {"status": "diverged", "score": None, "metrics": None}), "the run is diverged"),
    "not finite": (lambda copy: write_logits(copy, lambda z: z.__setitem__((0, 0), np.nan)), "test.npz has logits that are not"),
    "other predictions": (lambda copy: write_logits(copy, lambda z: z.__imul__(-1)), "test/accuracy is .* in summary.json and"),
    "no versions": (lambda copy: record(copy, {"versions": {"torch": None}}), "records no version of torch"),
    "own files": (lambda copy: write_config(copy, "data", "name", "folder"), "reads files of your own"),
    "selected on test": (
        lambda copy: write_config(copy, "callbacks", "monitor", "test/accuracy"), "'test/accuracy' does not select on val",
    ),
    "other data": (lambda copy: write_config(copy, "data", "saturation", 0.6), "not the known data of .*'colored_digits'"),
    "changed by hand": (lambda copy: (copy / "config.json").write_text("{}"), "config.json: damaged"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_run_that_fails_a_check_is_refused_in_one_line_and_nothing_is_written(runs, submit, tmp_path, fault):
    change, message = REFUSED[fault]
    copy = tmp_path / "copies" / "colored_digits_dro" / "default" / "seed=0"
    shutil.copytree(runs[0], copy)
    change(copy)
    with pytest.raises(BadInput, match=message) as refusal:
        submit([copy, *runs[1:]])
    assert "\n" not in str(refusal.value) and not submit.folder.exists()


def test_a_submission_without_a_name_or_with_a_run_twice_is_refused(runs, submit, tmp_path):
    with pytest.raises(BadInput, match="--by is empty"):
        submit(runs, by=" ")
    shutil.copytree(runs[0], tmp_path / "seed=0")
    with pytest.raises(BadInput, match="another of these runs has the same config and seed 0"):
        submit([runs[0], tmp_path / "seed=0"])
    assert not submit.folder.exists()


def test_a_run_of_uncommitted_code_is_refused(runs, tmp_path):
    copy = tmp_path / "seed=0"
    shutil.copytree(runs[0], copy)
    record(copy, {"commit": "0123456789+"})
    with pytest.raises(BadInput, match="files had uncommitted changes at commit 0123456789"):
        leaderboard.check_run(copy)


def test_test_examples_in_train_are_refused(runs, submit, monkeypatch):
    """The run and the data agree, and the data themselves have a test example in train for every fifth of them."""
    import imbalance.training.learner as learner

    load = learner.load_dataset

    def leaking(config):
        dataset = load(config)
        rows = range(0, len(dataset.test), 5)
        dataset.train.checksums[: len(rows)] = dataset.test.checksums[rows]
        return dataset

    monkeypatch.setattr(learner, "load_dataset", leaking)
    monkeypatch.setattr(identity, "differences", lambda before, now: [])
    with pytest.raises(BadInput, match=r"20\.1% of the test examples are also in train or val"):
        submit(runs[:1])


def row(method, mean, labels="classes", data="toys", **changes):
    cells = dict.fromkeys(leaderboard.COLUMNS, "same") | {"low": "", "high": "", "diverged": "0", "settings": ""}
    return cells | {
        "data": data, "method": method, "mean": str(mean), "labels in train": labels, "n": "3",
        "digest": f"{method}{data}", **changes,
    }  # fmt: skip


def test_ranks_are_among_comparable_rows_that_read_the_same_groups():
    rows = [row("a", 0.5), row("b", 0.7, "groups"), row("c", 0.6), row("d", 0.5), row("e", 0.9, budget="more")]
    rows.append(row("f", 0.8, **{"labels in val": "groups; and inputs of test"}))
    out = leaderboard.board(rows, [dict(name="x", data="Toys, worst group", value="99", source="y")])
    tables = [
        ([line.split(" | ")[:2] for line in part.splitlines() if line.startswith("| ") and "rank" not in line], part)
        for part in out.split("on test, %. ")[1:]
    ]
    assert [lines for lines, _ in tables] == [
        [["| –", "e"]], [["| 1", "c"], ["| 2.5", "a"], ["| 2.5", "d"]], [["| –", "f"]], [["| –", "b"]]
    ]  # fmt: skip
    kinds = ["none", "none", "those of val", "those of train"]
    assert all(f"groups read: {kind}." in part for kind, (_, part) in zip(kinds, tables))
    assert "99" not in out  # toys are no published data set
    celeba = leaderboard.board([row("a", 0.5, data="celeba")], kept_leaderboard.literature())
    assert (
        "| JTT | CelebA, worst group | 81.1 |" in celeba and "value (quoted)" in celeba and "Waterbirds" not in celeba
    )
    assert "| toys | 4 | budget, groups read |" in leaderboard.not_comparable_table(rows)


def test_the_board_keeps_apart_what_reads_no_groups_those_of_val_and_those_of_train():
    """Every row of a table reads the groups that the line above the table names, and no row misses labels that a choice read."""
    for key, rows in leaderboard.blocks(leaderboard.read(ROOT / "results")).items():
        tuning, rule, reads = key[-3:]
        for one in rows:
            train, val = one["labels in train"] == "groups", one["labels in val"].startswith("groups")
            assert {"none": not train and not val, "those of val": val and not train, "those of train": train}[reads]
            if "on val" in tuning or "rule" in tuning or rule != "last epoch":
                assert one["labels in val"] != "none", one
            if "worst group" in rule:
                assert val, one


def test_the_method_names_the_exponent_of_its_weights():
    config = flatten(resolve("digits_poly", {})[0].to_dict())
    assert leaderboard.method_text(config) == "weights importance by class to the power 1.5 + loss poly"
    assert leaderboard.method_text(config | {"weights.exponent": 1.0}) == "weights importance by class + loss poly"


def test_variance_shares_are_those_of_the_kept_runs_of_subpopbench():
    """The number of values and their spread, counted from the rows themselves."""
    table = kept_leaderboard.variance_table(ROOT / "results").splitlines()
    rows = [
        row for row in kept_results.read("subpopbench", ROOT / "results") if row["protocol data"] == "colored_digits"
    ]
    values = [float(row[f"val worst {kind}: worst group"]) for row in rows for kind in ("group", "class")]
    assert table[2].startswith(
        f"| colored_digits | all runs | 21 | {len(values)} | {100 * np.std(values, ddof=1):.1f} | "
    )
    for line in table[2:]:
        shares = [int(cell.split("%")[0]) for cell in line.split(" | ")[5:] if "%" in cell]
        assert abs(sum(shares) - 100) <= 2


def test_every_entry_that_counts_groups_says_that_it_reads_groups():
    flat = {f"{section}.name": plain[0] for section, plain in leaderboard.PLAIN.items()}
    reading = {
        name
        for section in leaderboard.PLAIN
        for name in registries()[section]
        if leaderboard.labels_in_train(flat | {f"{section}.name": name, "groups.name": "data"}) == "groups"
    }
    # The objective "ssa" is for the first run of the groups "ssa", whose examples are those of val.
    assert reading == {"lisa", "vs_group", "group_dro", "worst_group", "irm", "vrex", "coral", "mmd", "ssa"}
    assert leaderboard.labels_in_train(flat | {"sampler.name": "undersample", "sampler.by": "group"}) == "groups"
    inferred = {"objective.name": "group_dro", "groups.name": "eiil"}
    assert leaderboard.labels_in_train(flat | inferred) == "classes"


def test_a_head_that_is_fitted_to_inputs_of_test_says_so():
    config = resolve("colored_digits_dfr", {})[0].to_dict()
    about = leaderboard.about_config(flatten(config))
    assert (about["labels in train"], about["labels in val"], about["method"]) == ("classes", "groups", "head dfr")
    assert (
        leaderboard.about_config(flatten(config) | {"head.name": "test_time"})["labels in val"]
        == "groups; and inputs of test"
    )


def test_the_leaderboard_is_what_the_kept_results_give():
    """After a change of results/: imbalance leaderboard, then imbalance findings."""
    kept = {row["digest"] + row["rule"]: row for row in leaderboard.read(ROOT / "results")}
    for entry in kept_leaderboard.kept_entries(ROOT / "results"):
        assert kept[entry["digest"] + entry["rule"]] == entry
    digits = next(row for row in kept.values() if row["config"] == "colored_digits_dro" or row["method"] == "ERM")
    assert digits["evidence"].startswith("results/")


def test_rows_of_kept_results_are_written_anew_and_those_of_submitted_runs_stay(tmp_path):
    kept, submitted = row("a", 0.5, evidence="results/x.csv"), row("b", 0.7, evidence="results/submitted/0.jsonl.gz")
    leaderboard.add(tmp_path, [kept, submitted])
    kept_leaderboard.fill(results=str(tmp_path))
    assert [old["method"] for old in leaderboard.read(tmp_path)] == ["b"]


def test_a_damaged_leaderboard_is_refused(tmp_path):
    (tmp_path / "leaderboard.csv").write_text("data,mean\ntoys,0.5\n")
    with pytest.raises(BadInput, match="row 2 has not the columns data, metric"):
        leaderboard.read(tmp_path)
