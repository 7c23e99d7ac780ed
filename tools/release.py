"""Check that this commit can be released, step by step: python tools/release.py

The steps: the tree is clean; the version is the same in the package, in CITATION.cff and at the top of CHANGELOG.md, where
it has a date; the wheel can be built; and the tests in SMOKE pass with the wheel in a new environment, once with the newest
version of every dependency and once with the lowest allowed ones, which `uv` chooses. `--only=tree,version` runs these steps
alone. A step that fails is named, and the exit status is 1. The last two steps download torch, and take minutes.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMOKE = ("tests/config", "tests/methods/test_losses.py", "tests/training/test_run.py")


def tree(work_dir: Path) -> str:
    """Return the uncommitted changes of the working tree; "" if it is clean."""
    return output("git", "status", "--porcelain")


def version(work_dir: Path) -> str:
    """Return a text that says which files have another version than the package, or lack the date; "" if all are right."""
    package = re.search(r'__version__ = "(.+)"', read("imbalance/utils/package.py"))
    citation = re.search(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE)
    changes = re.search(r"^## (\S+), (\S+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert package and citation and changes
    problems = []
    if citation[1] != package[1]:
        problems.append(f"CITATION.cff has {citation[1]}, and the package {package[1]}; edit CITATION.cff")
    if changes[1] != package[1]:
        problems.append(f"CHANGELOG.md begins with {changes[1]}, and the package has {package[1]}; add its section")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", changes[2]):
        problems.append(f"CHANGELOG.md: version {changes[1]} is {changes[2]!r}; write the date, such as 2026-12-01")
    return "; ".join(problems)


def wheel(work_dir: Path) -> str:
    """Build the wheel in `work_dir`; return a text that names the files that the wheel lacks, or ""."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work_dir, ROOT)
    names = output(sys.executable, "-m", "zipfile", "--list", next(work_dir.glob("*.whl")))
    needed = ("imbalance/configs/digits_poly.py", "imbalance/experiments/figure1.py", "imbalance/py.typed", "/LICENSE")
    return "".join(f"the wheel lacks {name}; " for name in needed if name not in names)


def newest(work_dir: Path) -> str:
    """Run the smoke tests with the newest version of every dependency."""
    return smoke(work_dir, "highest")


def lowest(work_dir: Path) -> str:
    """Run the smoke tests with the lowest allowed version of every dependency."""
    return smoke(work_dir, "lowest-direct")


STEPS = (tree, version, wheel, newest, lowest)


def smoke(work_dir: Path, resolution: str) -> str:
    """Install the wheel into a new environment, and run the smoke tests outside the clone; return "" if they pass.

    Args:
        work_dir: the folder of the wheel.
        resolution: the strategy by which uv chooses the versions of the dependencies that pyproject.toml names.
    """
    environment, pins = work_dir / resolution, work_dir / f"{resolution}.txt"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "uv")
    uv, options = [python, "-m", "uv", "pip"], [f"--resolution={resolution}", "--quiet", "--no-header", "--no-annotate"]
    run(*uv, "compile", *options, "--python", python, "--output-file", pins, ROOT / "pyproject.toml")
    print(pins.read_text(), flush=True)
    tools = ["pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100"]
    run(*uv, "install", "--quiet", "--python", python, "--requirements", pins, *tools)
    run(*uv, "install", "--quiet", "--python", python, "--no-deps", next(work_dir.glob("*.whl")))
    tests = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout=600",  # the first import of a new CUDA build of torch takes minutes from a cold disk
        f"--rootdir={ROOT}",
        *(ROOT / path for path in SMOKE),
    ]
    run(*tests, cwd=environment)
    return ""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command in an environment without the variables through which Python would find this clone."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, env=variables)


def output(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def read(name: str) -> str:
    """Return the content of a file of the clone."""
    return (ROOT / name).read_text(encoding="utf-8")


def main() -> int:
    """Run the steps in order, print a line for each, and return the exit status."""
    names = [step.__name__ for step in STEPS]
    parser = argparse.ArgumentParser(description="Check that this commit can be released.")
    parser.add_argument(
        "--only", default=",".join(names), help=f"steps with commas between them, out of {', '.join(names)}"
    )
    chosen = parser.parse_args().only.split(",")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            if step.__name__ not in chosen:
                continue
            try:
                problem = step(Path(folder))
            except subprocess.CalledProcessError as error:
                problem = f"{' '.join(error.cmd)} ended with status {error.returncode}"
            print(f"{step.__name__}: {problem or 'ok'}", flush=True)
            failed += [step.__name__] if problem else []
    print("can be released" if not failed else f"cannot be released: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
