"""Write constraints.txt: every package that the tests need, and all that these bring: `python .ci/pin.py python3.10 python3.11`.

What constraints.txt says already stays; to move a version, change its line, or remove it for the newest, and run this
again. What only a CUDA build of torch brings is left out: torch itself asks for exact versions of it.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = ROOT / "constraints.txt"
BUILD = ("pip", "setuptools", "wheel")
HEADING = """\
# The versions that the tests pass with: pip install -c constraints.txt -e .
# Made by: python .ci/pin.py python3.10 python3.11
"""


def resolve(python: str) -> tuple[tuple[int, int], dict[str, str]]:
    """The version of `python`, and under every package's name the version that pip would install there."""
    with tempfile.TemporaryDirectory() as scratch:
        venv, report = Path(scratch, "venv"), Path(scratch, "report.json")
        subprocess.run([python, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", "--constraint", FILE, "--upgrade", "pip"], check=True)
        dry = ["install", "--dry-run", "--ignore-installed", "--report", report, "--constraint", FILE]
        subprocess.run([*pip, *dry, f"{ROOT}[dev]", *BUILD], check=True)
        content = json.loads(report.read_text())
    numbers = content["environment"]["python_version"].split(".")
    found = [item["metadata"] for item in content["install"]]
    pins = {item["name"].replace("_", "-"): item["version"].split("+")[0] for item in found}
    of_cuda = re.compile("nvidia-|cuda-|triton$")
    return tuple(map(int, numbers)), {
        name: version for name, version in pins.items() if name != "imbalance" and not of_cuda.match(name)
    }


def lines(resolved: dict[tuple[int, int], dict[str, str]]) -> list[str]:
    """A line for each package, or for each Python from which on another version is right."""
    pythons, found = sorted(resolved), []
    for name in sorted({name for pins in resolved.values() for name in pins}, key=str.lower):
        versions = [(python, resolved[python][name]) for python in pythons if name in resolved[python]]
        changes = [pair for before, pair in zip([(None, None), *versions], versions) if before[1] != pair[1]]
        for (first, version), (following, _) in zip(changes, [*changes[1:], (None, None)]):
            marks = [f'python_version >= "{first[0]}.{first[1]}"'] if first != changes[0][0] else []
            marks += [f'python_version < "{following[0]}.{following[1]}"'] if following else []
            found.append(f"{name}=={version}" + ("; " + " and ".join(marks) if marks else ""))
    return found


if __name__ == "__main__":
    FILE.write_text(HEADING + "\n".join(lines(dict(map(resolve, sys.argv[1:])))) + "\n")
