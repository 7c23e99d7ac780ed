"""Change the code at random places and report which changes no test notices: `python tests/mutate.py --sample=10`.

A mutant is one small change of one file of `imbalance/`: a comparison is turned, an operator or a constant replaced, `and`
and `or` swapped, or a statement dropped. The mutants are drawn by a hash of their text, so that a change elsewhere in the
code draws the same mutants again. Everything runs in a copy of the repository.

For each mutant the test files nearest to its module run, up to the first test that fails; tests that contain the name of the
changed function or class run first. A mutant is killed if a test fails, and lives if none does within `--seconds`. A mutant
that lives is a missing test or superfluous code, or changes nothing. `EQUIVALENT` lists the mutants that change nothing, with
the reason. Not part of the suite: 150 mutants take half an hour.
"""

import argparse
import ast
import hashlib
import importlib
import inspect
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
COPIED = (
    "imbalance",
    "experiments",
    "configs",
    "tools",
    "tests",
    "main.py",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "constraints.txt",
    "docs",
    "results",
)
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CONTRACT = ("three_parts_make_the_step_of_one", "stopped_and_gone_on_with_it_ends_in_the_same_bits")
SLOW_IMPORTS = ("matplotlib.pyplot", "optuna", "scipy.stats", "sklearn", "torch", "transformers")
SLOW = {
    "test_browser",
    "test_contract",
    "test_crossings",
    "test_damaged_files",
    "test_device",
    "test_docs_run",
    "test_faults",
    "test_first_gpu",
    "test_fuzz",
    "test_golden",
    "test_gpu",
    "test_least",
    "test_mutate",
    "test_package",
    "test_power",
    "test_site",
}
NEEDS_GPU = ("bench/gpu_checks.py", "bench/gpu_speed.py")  # no test of the suite can run these files as a whole
NO_EFFECT = ("daemon", "flush", "non_blocking", "pin_memory", "stacklevel")  # arguments that change no result on a CPU
TEST_SECONDS = 150  # for a test that ignores the time limit of pytest
LEAST_TABLE = 50  # a longer table of numbers, copied from a publication, is data and no code

# Mutants that change nothing a user could notice, by file, line and change, with the reason.
EQUIVALENT = {
    ("data/images/corruptions.py", "radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]", "6 → 7"):
        "the kernel is a normal density, and the pixel that is added has at most 0.2 % of the weight",
    ("data/images/store.py", "return np.empty(0)", "0 → 1"):
        "an array of one arbitrary number equals no stamps and no checksums, as one of no number",
    ("data/sets/biased.py", "indices = torch.arange(len(part[1]))[rows]", "1 → 2"):
        "a part has as many attributes as targets",
    ("theory/gram.py", "scale = (alpha * (weights * margins**-alpha).sum() / squared_length) ** (1 / (alpha + 2))",
     "weights * margins**-alpha → (weights / margins ** (-alpha))"):
        "Newton's method reaches the same limit from a start of any length, in other numbers of steps",
    ("theory/oracle.py", "while value(v + size * step) > before - 1e-4 * size * decrement and size > 1e-12:",
     "before - 1e-4 * size * decrement → (before + 0.0001 * size * decrement)"):
        "a line search that lets a strictly convex function rise by so little still ends in the minimum",
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the pairs (old, new) of each mutant at this node alone."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield node, ast.Compare(node.left, [SWAPS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS and not is_path(node):
        yield node, ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        yield node, ast.BoolOp(SWAPS[type(node.op)](), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node, node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, ast.Constant(node.value + 1)
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if is_call or isinstance(node, ast.AugAssign | ast.Raise):
        yield node, ast.Pass()


def is_path(node: ast.BinOp) -> bool:
    """Whether `/` joins file names here."""
    return isinstance(node.op, ast.Div) and any(
        isinstance(part, ast.JoinedStr) or isinstance(getattr(part, "value", None), str)
        for part in (node.left, node.right)
    )


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node whose change may change what the code does.

    Left out are types, the numbers in a message of an error, asserts (which never fail in code that is right), arguments
    without effect, and long tables of numbers.
    """
    if isinstance(node, ast.Assert) or (isinstance(node, ast.keyword) and node.arg in NO_EFFECT):
        return
    if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
        return
    if isinstance(node, ast.Dict | ast.Tuple | ast.List):
        numbers = (isinstance(n, ast.Constant) and isinstance(n.value, int | float) for n in ast.walk(node))
        if sum(numbers) > LEAST_TABLE:
            return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "exc"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)


class Mutant(NamedTuple):
    """One change of one file."""

    path: Path
    line: int
    shown: str
    source: str  # of the whole file
    name: str  # of the innermost function or class that contains the change, or of the module
    number: int  # among the mutants of the file with the same text

    def key(self) -> tuple[str, str, str]:
        """Return the key of `EQUIVALENT`: file, line and change."""
        text = self.path.read_text(encoding="utf-8").splitlines()[self.line - 1]
        return str(self.path.relative_to(ROOT / "imbalance")), text.strip(), self.shown

    def compiles(self) -> bool:
        """Return whether the mutant is valid code; a change inside an f-string may not be."""
        try:
            compile(self.source, str(self.path), "exec")
        except SyntaxError:
            return False
        return True

    def rank(self, seed: int) -> str:
        """Return the place in the draw."""
        return hashlib.sha256(f"{seed} {self.path.relative_to(ROOT)} {self.shown} {self.number}".encode()).hexdigest()


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a file."""
    source, found = path.read_text(encoding="utf-8"), []
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    tree, numbers = ast.parse(source), Counter()
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for node in walk(tree):
        for old, new in changes(node):
            if "cuda" in "".join(source.splitlines()[old.lineno - 1 : old.end_lineno]):
                continue
            begin, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            before, text = source.encode()[begin:end].decode(), ast.unparse(ast.fix_missing_locations(new))
            text = f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else text
            mutant = source.encode()[:begin] + text.encode() + source.encode()[end:]
            shown = " ".join(f"{before} → {text}".split())
            numbers[shown] += 1
            around = [scope.name for scope in scopes if scope.lineno <= old.lineno <= scope.end_lineno]
            name = next((name for name in reversed(around) if not name.startswith("_")), path.stem)
            found.append(Mutant(path, old.lineno, shown, mutant.decode(), name, numbers[shown]))
    return found


def tests_of(path: Path) -> list[str]:
    """Return the tests nearest to a module; slow files are left out.

    Nearest are the test files of the mirrored folder that have its name or import it. If no file of that folder has its
    name, these are also all files of that folder, and the files of any folder that have its name, that import it, or that
    have the name of a module that imports it. For methods and training, two tests of the contract are added.
    """
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    imports = re.compile(
        rf"{re.escape(module)}\b|from {re.escape(package)} import ([^(\n]*\b{name}\b|\([^)]*\b{name}\b)"
    )
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if file.stem not in SLOW]
    of_folder = [file for file in files if file.parent == ROOT / "tests" / path.relative_to(ROOT / "imbalance").parent]
    users = [file for file in (ROOT / "imbalance").rglob("*.py") if imports.search(file.read_text())]
    of_users = {f"test_{user.stem}" for user in users}
    of_module = [file for file in files if file.stem == f"test_{name}" or imports.search(file.read_text())]
    chosen = [file for file in of_module if file in of_folder]
    if not any(file.stem == f"test_{name}" for file in chosen):
        chosen = sorted({*chosen, *of_folder, *of_module, *(file for file in files if file.stem in of_users)})
    is_method = "methods" in path.parts or "training" in path.parts
    contract = [f"tests/test_contract.py::test_{test}" for test in CONTRACT if is_method]
    return [str(file.relative_to(ROOT)) for file in chosen] + contract


class NamedFirst:
    """Pytest plugin that runs the tests whose code contains `name` first, and starts no test after `seconds`."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.end = name, time.monotonic() + seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items.sort(key=lambda item: self.name not in inspect.getsource(item.function))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        return True if time.monotonic() > self.end else None  # True says that the test has been run


def is_killed(copy: Path, mutant: Mutant, seconds: float) -> bool:
    """Return whether a test fails in the copy with this one file replaced.

    Pytest runs in a process that is forked from this one, which has imported the slow libraries: a start costs a tenth.
    """
    target = copy / mutant.path.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant.source, encoding="utf-8")
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.setsid()
        os.chdir(copy)
        folders, nowhere = [str(copy), str(copy / "tests")], os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        sys.path[:0] = folders
        sys.dont_write_bytecode = True
        status = pytest.ExitCode.INTERNAL_ERROR
        try:
            plugin = NamedFirst(mutant.name, seconds)
            status = pytest.main(["-qx", "-p", "no:cacheprovider", *tests_of(mutant.path)], plugins=[plugin])
        finally:
            os._exit(int(status))
    begin, ended = time.monotonic(), 0
    while not ended and time.monotonic() - begin < seconds + TEST_SECONDS:
        time.sleep(0.05)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    target.write_text(original, encoding="utf-8")
    if not ended:
        return True
    code = os.waitstatus_to_exitcode(status)
    assert code != pytest.ExitCode.NO_TESTS_COLLECTED, mutant.path
    return code != pytest.ExitCode.OK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=10, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="a part of the path of the files to change, as training/progress")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for one mutant")
    args = parser.parse_args()
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    paths = [path for path in sorted((ROOT / "imbalance").glob("**/*.py")) if args.only in str(path)]
    paths = [path for path in paths if not str(path).endswith(NEEDS_GPU)]
    mutants = [mutant for path in paths for mutant in mutants_of(path)]
    ranked = sorted(mutants, key=lambda mutant: mutant.rank(args.seed))
    chosen = list(islice(filter(Mutant.compiles, ranked), args.sample))
    counts = dict(killed=0, lived=0, equivalent=0)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            take(ROOT / name, copy / name, **(dict(symlinks=True) if (ROOT / name).is_dir() else {}))
        for mutant in chosen:
            if mutant.key() in EQUIVALENT:
                outcome = "equivalent"
            else:
                outcome = "killed" if is_killed(copy, mutant, args.seconds) else "lived"
            counts[outcome] += 1
            label = "LIVED" if outcome == "lived" else outcome
            print(f"{label:10}  {mutant.path.relative_to(ROOT)}:{mutant.line}  {mutant.shown[:100]}", flush=True)
    killed, lived = counts["killed"], counts["lived"]
    n = killed + lived
    half = 1.96 * math.sqrt(max(killed * lived, 1) / n) / n
    print(
        f"{killed} of {n} killed ({killed / n:.0%} ± {half:.0%}), {counts['equivalent']} more change nothing; "
        f"drawn from {len(mutants)} mutants in {len(paths)} files"
    )


if __name__ == "__main__":
    main()
