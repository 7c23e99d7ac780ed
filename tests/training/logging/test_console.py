"""Output of a run for people: the tables at its end."""

import re
import sys
from io import StringIO

from conftest import ROOT
from scipy.stats import binomtest

from imbalance.config.metric_names import in_percent, shown
from imbalance.config.resolve import load
from imbalance.training.loop import train


def test_a_run_ends_in_tables_of_its_metrics_by_split(tmp_path, capsys):
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    config.trainer.epochs, config.work_dir = 1, str(tmp_path)
    metrics = train(config, tmp_path / "run")["metrics"]
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    assert rows["accuracy"] == [
        f"{100 * metrics['val/accuracy']:.1f}",
        "%",
        f"{100 * metrics['test/accuracy']:.1f}",
        "%",
    ]
    assert rows["nll"] == [f"{metrics['val/nll']:.3f}", f"{metrics['test/nll']:.3f}"]
    assert "mcc" not in rows  # 0/0, because all is predicted as one class
    odd, even = (f"{100 * metrics[f'test/auprc/{name}']:.1f}" for name in ("odd", "even"))
    assert odd != even and rows["auprc/odd"][2] == odd  # 134 of 576 training images
    exact = binomtest(0, 135).proportion_ci(1 - 0.05 / 4, method="exact")  # the high end allows for four groups
    assert (
        f"Worst test group: odd red, 0.0 % of 135 examples; 95 % interval of the worst group 0.0 to {100 * exact.high:.1f} %."
        in printed
    )


def test_a_terminal_shows_the_tables_of_the_log_drawn_by_rich_and_the_score_in_bold(tmp_path, monkeypatch):
    config = load(ROOT / "configs" / "colored_digits_erm.py")
    config.trainer.epochs, config.work_dir = 1, str(tmp_path)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    train(config, tmp_path / "run")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())

    def words(text: str) -> list[str]:
        return text[text.index(" val ") :].replace("─", "").split()

    logged = (tmp_path / "run" / "log.txt").read_text()
    assert (
        words(plain) == words(logged.replace("val       test", " val test", 1)) and "─" in plain and "─" not in logged
    )
    bold = [
        line for line in terminal.getvalue().splitlines() if line.lstrip().startswith("\x1b[1mworst_group_accuracy")
    ]
    assert len(bold) == 1


def test_without_rich_a_terminal_shows_what_the_log_has(tmp_path, monkeypatch):
    config = load(ROOT / "configs" / "digits_erm.py")
    config.trainer.epochs, config.work_dir = 1, str(tmp_path)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setitem(sys.modules, "rich", None)
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text().partition("\n\n")[2] in terminal.getvalue()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_only_fractions_are_in_percent():
    assert not any(map(in_percent, ("nll", "val/loss", "test/brier", "test/mcc")))
    # A class "nll"
    assert all(map(in_percent, ("auroc", "test/accuracy", "test/recall/nll", "val/group_accuracy/loss")))
    assert [shown(0.12345, name) for name in ("test/f1/cat", "nll")] == ["12.3 %", "0.123"]
    assert shown(float("nan"), "nll") == "-"
