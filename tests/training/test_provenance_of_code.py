"""Which commits others can check out: clean ones of the current branch."""

import subprocess

import pytest

from imbalance.errors import BadInput
from imbalance.report import kept_results
from imbalance.training.state import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository in place of this project's, with a commit on its branch and one on another branch."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-b", "main")
    git("commit", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    git("checkout", "-b", "aside")
    git("commit", "--allow-empty", "-m", "aside")
    aside = git("rev-parse", "HEAD")
    git("checkout", "main")
    git("commit", "--allow-empty", "-m", "two")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.in_branch.cache_clear()
    yield {"older": first, "newest": git("rev-parse", "HEAD"), "aside": aside}
    provenance.in_branch.cache_clear()


def test_only_clean_commits_of_the_branch_are_kept(checkout):
    for name in ("older", "newest"):
        provenance.check_commit(checkout[name], "a run")
        provenance.check_commit(checkout[name][:10], "a run")
    provenance.check_commit(None, "a run of an installed package")
    with pytest.raises(BadInput, match="a run: files had uncommitted changes"):
        provenance.check_commit(checkout["newest"] + "+", "a run")
    for unknown in (checkout["aside"], "0123456789"):
        with pytest.raises(BadInput, match="is not part of the current branch"):
            provenance.check_commit(unknown, "a run")


def test_changed_results_and_pages_leave_the_code_committed(checkout, tmp_path):
    for name in ("results/leaderboard.csv", "docs/leaderboard.md", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "files"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    for name in ("results/leaderboard.csv", "docs/leaderboard.md"):
        (tmp_path / name).write_text("new")
    assert provenance.commit.__wrapped__() == head
    (tmp_path / "code.py").write_text("new")
    assert provenance.commit.__wrapped__() == f"{head}+"


def test_keep_refuses_a_run_of_uncommitted_code(checkout):
    row = {"name": "digits_ce", "overrides": "default", "seed": "3", "commit": checkout["older"][:10]}
    kept_results.check_row(row)
    kept_results.check_row(row | {"commit": ""})
    with pytest.raises(BadInput, match="digits_ce/default/seed=3: files had uncommitted changes"):
        kept_results.check_row(row | {"commit": row["commit"] + "+"})


def test_the_processor_is_named_by_what_changes_results():
    assert provenance.processor()
    assert provenance.machine(3) == {"threads": 3, "processor": provenance.processor()}
