"""The pieces that wait for a GPU run without one, leave out what is done, and say what was not measured."""

import gzip
import json

import pytest

from imbalance.bench import gpu_checks
from imbalance.bench.gpu_checks import NOT_MEASURED, run_check
from imbalance.config.resolve import override
from imbalance.training import loop


def test_waits_of_a_device_are_not_measured_without_one(tmp_path):
    found = run_check("waits", tmp_path, 1, ["digits_poly"])
    assert found["configs"] == {"digits_poly": {"epochs": 1, "steps": 5, "warnings": NOT_MEASURED}}


def test_a_piece_goes_on_with_the_configs_that_are_left(tmp_path, monkeypatch):
    done = []

    def piece(name, size, folder):
        if name == "third":
            raise KeyboardInterrupt
        done.append(name)
        return {"size": size}

    monkeypatch.setitem(gpu_checks.CHECKS, "waits", (piece, ("first", "second", "third"), 3))
    with pytest.raises(KeyboardInterrupt):
        run_check("waits", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_check("waits", tmp_path)
    assert done == ["first", "second"]
    saved = json.loads((tmp_path / "waits.json").read_text())
    assert saved["device"] == "cpu" and saved["configs"] == {"first": {"size": 3}, "second": {"size": 3}}
    (tmp_path / "waits.json").write_text(json.dumps(saved | {"device": "another"}))  # whose figures are not this one's
    with pytest.raises(KeyboardInterrupt):
        run_check("waits", tmp_path)
    assert done == ["first", "second"] * 2


def test_bits_of_runs_twice_and_stopped_in_the_middle(tmp_path):
    found = run_check("bits", tmp_path, 2, ["digits_poly"])["configs"]["digits_poly"]
    assert found == {
        "twice the same": True,
        "stopped": "interrupted at step 5 of 10",
        "stopped and resumed the same": True,
    }


def test_runs_that_differ_are_told_apart(tmp_path):
    for name, lr in (("one", 0.1), ("same", 0.1), ("other", 0.2)):
        loop.train(override(gpu_checks.make_config("digits_poly", 1), {"optim.lr": lr}), tmp_path / name)
    assert gpu_checks.same(tmp_path / "one", tmp_path / "same")
    assert not gpu_checks.same(tmp_path / "one", tmp_path / "other")


def test_curves_of_what_a_cpu_computes(tmp_path):
    found = run_check("precision", tmp_path, 2, ["digits_poly"])["configs"]["digits_poly"]
    curves = found["curves"]
    assert curves["tf32"] == curves["fp16"] == NOT_MEASURED and len(curves["float32"]) == len(curves["bf16"]) == 2
    assert found["distance"]["float32"] == 0 < found["distance"]["bf16"] < 0.05


def test_a_trace_of_steps(tmp_path):
    found = run_check("trace", tmp_path, 2, ["digits_poly"])["configs"]["digits_poly"]
    assert found["kernels a step"] == NOT_MEASURED and found["ms a step"] > 0
    events = json.loads(gzip.open(tmp_path / found["trace"]).read())["traceEvents"]
    assert sum(event.get("name") == "aten::_fused_sgd_" for event in events) == 2  # one a step
