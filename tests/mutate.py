"""Changes of the code that no test notices: `python tests/mutate.py --sample=10 --seed=0`.

Draws mutants of `imbalance/` at random, each one small change of one file: a comparison turned, an operator or a
constant replaced, `and` and `or` swapped, a statement dropped. Works in a copy of the repository. First runs the tests
that belong to the drawn modules once and records which test executes which line. Then runs for each mutant those tests
of its module that execute the changed line, and prints whether one failed (killed, also by a timeout) or none did
(lived). A mutant that lived is a missing test, or changes nothing: look at it. `EQUIVALENT` lists the mutants that
change nothing, with the reason. Not part of the suite: 150 mutants take an hour.
"""

import argparse
import ast
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

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
    "test_contract",
    "test_device",
    "test_faults",
    "test_power",
    "test_fuzz",
    "test_browser",
    "test_golden",
    "test_gpu",
}

# Mutants that change nothing a user could notice, by file and change, with the reason.
EQUIVALENT: dict[tuple[str, str], str] = {}


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(what is replaced, by what) for each mutant at this node alone; annotations and docstrings are left out."""
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
    if is_call or isinstance(node, ast.AugAssign | ast.Raise | ast.Assert):
        yield node, ast.Pass()


def is_path(node: ast.BinOp) -> bool:
    """Whether `/` joins file names here."""
    return isinstance(node.op, ast.Div) and any(
        isinstance(part, ast.JoinedStr) or isinstance(getattr(part, "value", None), str)
        for part in (node.left, node.right)
    )


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node whose change is one of behaviour: not of types."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)


class Mutant(NamedTuple):
    """One change of one file."""

    path: Path
    line: int  # first line of the change
    last: int  # last line of the change
    shown: str
    source: str  # of the whole file


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a file."""
    source, found = path.read_text(encoding="utf-8"), []
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    for node in walk(ast.parse(source)):
        for old, new in changes(node):
            begin, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            before, text = source.encode()[begin:end].decode(), ast.unparse(ast.fix_missing_locations(new))
            text = f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else text
            mutant = source.encode()[:begin] + text.encode() + source.encode()[end:]
            try:
                compile(mutant, str(path), "exec")
            except SyntaxError:  # inside an f-string, for one
                continue
            shown = " ".join(f"{before} → {text}".split())
            found.append(Mutant(path, old.lineno, old.end_lineno, shown, mutant.decode()))
    return found


def tests_of(path: Path) -> list[str]:
    """Return the tests to run for a module: files of its name or that import it, of its room, of configs and the loop.

    For methods and training, two tests of the contract are run too. Slow files are left out.
    """
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    texts = {file: file.read_text() for file in sorted((ROOT / "tests").rglob("test_*.py")) if file.stem not in SLOW}
    imports = (f"{module} import", f"import {module}\n", f"from {package} import {name}\n")
    chosen = [
        file for file, text in texts.items() if file.stem == f"test_{name}" or any(line in text for line in imports)
    ]
    if not chosen:  # no test names the module, so those of its folder are the nearest
        folder = ROOT / "tests" / path.relative_to(ROOT / "imbalance").parent
        chosen = [file for file in texts if file.parent == folder]
    files = [str(file.relative_to(ROOT)) for file in chosen]
    files += [file for file in ("tests/config/test_config.py", "tests/training/test_loop.py") if file not in files]
    is_method = "methods" in path.parts or "training" in path.parts
    return files + [f"tests/test_contract.py::test_{name}" for name in CONTRACT if is_method]


class LineRecorder:
    """Pytest plugin that writes which lines of `modules` each test executes, and how long the test takes.

    Lines that a fixture of a wider scope than a test executes count for all tests of the file: only the first test
    sets the fixture up. A test that starts a Python process counts for all lines, as that process is not recorded.
    """

    def __init__(self, root: Path, modules: set[str], output: Path) -> None:
        self.root, self.modules, self.output = root, modules, output
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.failed: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self.with_processes: set[str] = set()
        self.owner = "import"
        self.path_of_code: dict[CodeType, str | None] = {}

    def pytest_configure(self) -> None:
        sys.addaudithook(self.audit)
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def audit(self, event: str, arguments: tuple) -> None:
        is_python = event == "subprocess.Popen" and any(sys.executable == str(part) for part in arguments[1])
        if is_python or event in ("os.fork", "os.posix_spawn"):
            self.with_processes.add(self.owner)

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code not in self.path_of_code:
            path = code.co_filename.removeprefix(f"{self.root}/")
            self.path_of_code[code] = path if path in self.modules else None
        path = self.path_of_code[code]
        if path is None:
            return None

        def trace_lines(frame: FrameType, event: str, argument: object) -> Any:
            self.lines[self.owner].add((path, frame.f_lineno))
            return trace_lines

        return trace_lines(frame, event, argument)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.owner = item.nodeid
        sys.settrace(self.trace)  # a test may have removed it
        yield
        self.owner = "import"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        owner = self.owner
        if fixturedef.scope != "function":
            self.owner = owner.partition("::")[0]
        yield
        self.owner = owner

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)
            print(f"fails without any change: {report.nodeid}", flush=True)

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        for node in self.failed:  # fails for every mutant, so that it says nothing about one
            self.seconds.pop(node)
        lines = {owner: sorted(lines) for owner, lines in self.lines.items()}
        self.output.write_text(
            json.dumps(dict(lines=lines, seconds=self.seconds, with_processes=sorted(self.with_processes)))
        )


class Selection:
    """Pytest plugin that keeps the given tests alone, in the given order."""

    def __init__(self, nodes: list[str]) -> None:
        self.places = {node: place for place, node in enumerate(nodes)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.places), key=lambda i: self.places[i.nodeid])


def run_pytest(copy: Path, arguments: list[str], plugin: object, seconds: float | None, output: int) -> int | None:
    """Run pytest in the copy and return its status, or None after a timeout.

    The process is forked from this one, which has imported the slow libraries: a start costs a tenth.
    """
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.setsid()
        os.chdir(copy)
        for stream in (1, 2):
            os.dup2(output, stream)
        folders = [str(copy), str(copy / "tests")]
        os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        sys.path[:0] = folders
        sys.dont_write_bytecode = True
        status = 3
        try:
            status = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[plugin]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if seconds is not None and time.monotonic() - begin > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def nodes_for(path: str, first: int, last: int, tests: list[str], record: dict) -> list[str]:
    """Return the tests that execute one of the lines first…last, those of a file with the module's name first.

    If only the import executes these lines, or a process that was not recorded, return all tests that belong to the
    module.
    """
    seconds, changed = record["seconds"], {(path, line) for line in range(first, last + 1)}
    owners = {owner for owner, lines in record["lines"].items() if not changed.isdisjoint(map(tuple, lines))}
    prefixes = tuple(f"{test}{mark}" for test in tests for mark in ("::", "["))
    belonging = [node for node in seconds if node.startswith(prefixes) or node in tests]
    direct = [node for node in belonging if node in owners or node.partition("::")[0] in owners]
    chosen = {*direct, *(node for node in belonging if node in record["with_processes"])} if direct else belonging
    return sorted(chosen, key=lambda node: (f"test_{Path(path).stem}.py" not in node) + seconds[node])


def is_killed(copy: Path, path: Path, mutant: str, nodes: list[str], seconds: float) -> bool:
    """Whether one of the tests fails in the copy with this one file replaced."""
    target = copy / path.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant, encoding="utf-8")
    files = list(dict.fromkeys(node.partition("::")[0] for node in nodes))
    with open(os.devnull, "w") as nowhere:
        try:
            status = run_pytest(copy, ["-x", *files], Selection(nodes), seconds, nowhere.fileno())
        finally:
            target.write_text(original, encoding="utf-8")
    assert status != pytest.ExitCode.NO_TESTS_COLLECTED, path
    return status != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=10, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="a part of the path of the files to change, as training/progress")
    parser.add_argument("--record", type=Path, help="file that keeps the recorded lines for the next call")
    args = parser.parse_args()
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    paths = [path for path in sorted((ROOT / "imbalance").glob("**/*.py")) if args.only in str(path)]
    mutants = [mutant for path in paths for mutant in mutants_of(path)]
    chosen = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            take(ROOT / name, copy / name, **(dict(symlinks=True) if (ROOT / name).is_dir() else {}))
        modules = sorted({str(mutant.path.relative_to(ROOT)) for mutant in chosen})
        tests = sorted({test for mutant in chosen for test in tests_of(mutant.path)})
        if not (args.record and args.record.is_file()):
            recorder = LineRecorder(copy, set(modules), copy / "record.json")
            run_pytest(copy, tests, recorder, None, sys.stdout.fileno())
            if args.record:
                shutil.copy(copy / "record.json", args.record)
        record = json.loads((args.record or copy / "record.json").read_text())
        counts = dict(killed=0, lived=0, equivalent=0)
        for mutant in chosen:
            path = str(mutant.path.relative_to(ROOT))
            if (path, mutant.shown) in EQUIVALENT:
                outcome = "equivalent"
            else:
                nodes = nodes_for(path, mutant.line, mutant.last, tests_of(mutant.path), record)
                seconds = 60 + 5 * sum(record["seconds"][node] for node in nodes)
                outcome = "killed" if is_killed(copy, mutant.path, mutant.source, nodes, seconds) else "lived"
            counts[outcome] += 1
            label = "LIVED" if outcome == "lived" else outcome
            print(f"{label:10}  {path}:{mutant.line}  {mutant.shown[:100]}", flush=True)
    killed, lived = counts["killed"], counts["lived"]
    n = killed + lived
    half = 1.96 * math.sqrt(max(killed * lived, 1) / n) / n
    print(
        f"{killed} of {n} killed ({killed / n:.0%} ± {half:.0%}), {counts['equivalent']} more change nothing; "
        f"drawn from {len(mutants)} mutants in {len(paths)} files"
    )


if __name__ == "__main__":
    main()
