"""Provenance of a run: the format of its files, the digest of its data, and the versions of the packages it used."""

import functools
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from imbalance.config.experiment import Experiment
from imbalance.data import Dataset
from imbalance.data.identity import differences, digest
from imbalance.errors import BadInput
from imbalance.models.weights import pretrained_digest
from imbalance.training.learner import load_dataset
from imbalance.utils.package import ROOT, __version__
from imbalance.utils.read import read_text

FORMAT = 2  # format of run directories and checkpoints; raise it whenever an older version could misread them
PACKAGES = (
    "torch", "torchvision", "accelerate", "ml-collections", "numpy", "scipy", "scikit-learn", "wandb",
    "pillow", "pyarrow", "tokenizers", "transformers", "timm", "peft",
)  # fmt: skip


def provenance(data: Mapping[str, Any], pretrained: str | None) -> dict[str, Any]:
    """Return the provenance of a run: its data, pretrained weights and packages.

    Checkpoints and summary.json store it.

    Args:
        data: digest of the run's data set.
        pretrained: digest of the pretrained weights with which the run began; None without any.
    """
    weights = {} if pretrained is None else {"pretrained": pretrained}
    return {"format": FORMAT, "data": dict(data), "versions": versions(), **weights}


@functools.cache
def versions() -> dict[str, str | None]:
    """Return the versions of the packages that decide what a run computes; None for a package that is not installed."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {"imbalance": __version__, **{package: installed(package) for package in PACKAGES}}


@functools.cache
def commit() -> str | None:
    """Return the git commit of this code, with "+" if files have uncommitted changes; None outside a git checkout.

    Files in results/ and docs/ do not count: no run reads them, and commands such as `imbalance submit` write them.
    """
    if not (ROOT / ".git").exists():
        return None

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True).stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results", ":(exclude)docs")
    return git("rev-parse", "HEAD") + ("+" if status else "")


def clean_commit() -> str:
    """Return a name from which others can get the same code: the git commit, or the version of an installed package.

    Raises:
        BadInput: files of the checkout have uncommitted changes.
    """
    current = commit()
    if current is None:
        return f"v{__version__}"
    check_commit(current, "this checkout")
    return current


def check_commit(saved: str | None, what: str) -> None:
    """Raise `BadInput` unless the commit of a result is clean and part of the current branch, so others can check it out.

    A result of an installed package has no commit and passes; its version names the code.

    Args:
        saved: the commit, with "+" at the end if files had uncommitted changes; None for an installed package.
        what: the result or checkout with this commit, as the beginning of the message.
    """
    if saved is None:
        return
    if saved.endswith("+"):
        raise BadInput(
            f"{what}: files had uncommitted changes at commit {saved[:10]}, so nobody can check out this code; commit them, "
            "and run again"
        )
    if (ROOT / ".git").exists() and not in_branch(saved):
        raise BadInput(
            f"{what}: commit {saved[:10]} is not part of the current branch, so a clone does not have this code; run "
            "again from a commit of this branch"
        )


@functools.cache
def in_branch(saved: str) -> bool:
    """Return whether a git commit is the current commit of this checkout or comes before it."""
    command = ["git", "-C", str(ROOT), "merge-base", "--is-ancestor", saved, "HEAD"]
    return subprocess.run(command, capture_output=True).returncode == 0


@functools.cache
def processor() -> str:
    """Return the instruction sets of the processor that change the last bits of a result, such as "avx2 avx512f"."""
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
    try:
        lines = read_text("/proc/cpuinfo").splitlines()
    except OSError:
        return platform.machine()
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
    return " ".join(name for name in known if name in flags) or platform.machine()


def machine(threads: int) -> dict[str, Any]:
    """Return the entries of a result about the machine: the number of threads, and the instruction sets of the processor; see `processor`."""
    return {"threads": threads, "processor": processor()}


def check_format(saved: Mapping[str, Any], path: Path, oldest: int = 0) -> None:
    """Raise `BadInput` if the file at `path` has a format that this version of the program cannot read.

    Args:
        saved: content of the file, whose format is a number.
        oldest: oldest format that can be read; a file without a format number has format 0.
    """
    number = saved.get("format", 0)
    if not isinstance(number, int) or not oldest <= number <= FORMAT:
        age = "another" if not isinstance(number, int) else "a newer" if number > FORMAT else "an older"
        raise BadInput(
            f"{path}: written by {age} version of imbalance (format {number}, this version reads {FORMAT}); "
            "use that version, or start anew with another config.work_dir"
        )


def check_provenance(
    saved: Mapping[str, Any],
    data: Mapping[str, Any],
    path: Path,
    warn: Callable[[str], None],
    pretrained: str | None = None,
    in_memory: bool = False,
) -> None:
    """Compare the provenance in the file at `path` with the current data, weights and packages. Warn if packages differ.

    Args:
        saved: content of the file.
        data: digest of the current data set.
        warn: function that logs a warning.
        pretrained: digest of the current pretrained weights; None without any, or if they cannot be read any more.
        in_memory: whether a program passed the data as `data=` of `imbalance.run`.

    Raises:
        BadInput: the data or the pretrained weights differ.
    """
    if pretrained is not None and saved.get("pretrained", pretrained) != pretrained:
        raise BadInput(
            f"config.model.pretrained: these are not the weights that {path} was made from; restore those weights, use "
            "another config.work_dir, or remove the run directory that contains this file"
        )
    if "data" not in saved:
        warn(f"WARNING: {path} does not say which data it was made from, so these may be other data")
    else:
        other = differences(saved["data"], data)
        if other:
            raise BadInput(
                f"{'data' if in_memory else 'config.data_dir'}: these are not the data that {path} was made from ({'; '.join(other)}); "
                f"restore those data, use another {'directory=' if in_memory else 'config.work_dir'}, or remove the run directory that "
                "contains this file"
            )
    before, now = saved.get("versions", {}), versions()
    # A package that one of the two lacks was not used there, so it changes no result.
    changed = [
        f"{name} {before[name]}, now {now[name]}"
        for name in now
        if before.get(name) and now[name] and before[name] != now[name]
    ]
    if changed:
        warn(f"WARNING: {path} was written with {'; '.join(changed)}; results may differ slightly")


def check_done(
    config: Experiment,
    summary: Mapping[str, Any],
    path: Path,
    warn: Callable[[str], None],
    dataset: Dataset | None = None,
) -> None:
    """Check the provenance of a finished run. If its data cannot be read any more, only warn.

    Args:
        summary: content of the file at `path`, a summary.json.
        warn: function that logs a warning.
        dataset: data set that the caller of `run` passed; None for the one that the config names.

    Raises:
        BadInput: the data differ, or a newer version of this program wrote the file.
    """
    check_format(summary, path)
    try:
        data = digest(dataset or load_dataset(config))
    except (BadInput, OSError) as error:
        warn(f"WARNING: cannot compare the data with those of {path}: {error}")
        return
    check_provenance(summary, data, path, warn, pretrained_digest(config.model), in_memory=dataset is not None)
