"""Change the code at random places and report which changes no test notices: `python tests/mutate.py --sample=10`.

A mutant is one small change of one file of `imbalance/`: a comparison is turned, an operator or a constant replaced, `and`
and `or` swapped, or a statement dropped. The mutants are drawn by a hash of their text, so that a change elsewhere in the
code draws the same mutants again. Everything runs in a copy of the repository.

coverage.py first records which test executes which line, for the test files nearest to the drawn modules; `--record` keeps
this record, and later calls record only test files that are new or have changed. Then the tests that execute the changed
line run for each mutant, the quickest first. A mutant is killed if a test fails or takes too long, and lives otherwise. A
mutant that lives is a missing test or superfluous code, or changes nothing. `EQUIVALENT` lists the mutants that change
nothing, with the reason. Not part of the suite: 150 mutants take half an hour, with a new record.
"""

import argparse
import ast
import hashlib
import importlib
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import coverage
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
MOST_SECONDS = 60  # of tests for one mutant; a test of the line that is not near the module is missing in any case
LEAST_TABLE = 50  # numbers of a table that was copied from a publication: a digest tests these, not single numbers

# Mutants that change nothing a user could notice, by file, line and change, with the reason.
EQUIVALENT: dict[tuple[str, str, str], str] = {}


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
    line: int  # first line of the change
    last: int  # last line of the change
    shown: str
    source: str  # of the whole file
    is_in_function: bool
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
    in_functions = {
        line
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for line in range(function.body[0].lineno, function.end_lineno + 1)
    }
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
            is_in_function = old.lineno in in_functions
            found.append(
                Mutant(path, old.lineno, old.end_lineno, shown, mutant.decode(), is_in_function, numbers[shown])
            )
    return found


def tests_of(path: Path) -> list[str]:
    """Return the tests nearest to a module; slow files are left out.

    Nearest are the test files of the mirrored folder that have its name or import it. If there are none, these are all
    files of that folder, and the files of any folder that have its name or import it. For methods and training, two tests
    of the contract are added.
    """
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    imports = re.compile(
        rf"{re.escape(module)}\b|from {re.escape(package)} import ([^(\n]*\b{name}\b|\([^)]*\b{name}\b)"
    )
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if file.stem not in SLOW]
    of_folder = [file for file in files if file.parent == ROOT / "tests" / path.relative_to(ROOT / "imbalance").parent]
    of_module = [file for file in files if file.stem == f"test_{name}" or imports.search(file.read_text())]
    chosen = [file for file in of_module if file in of_folder] or sorted({*of_module, *of_folder})
    is_method = "methods" in path.parts or "training" in path.parts
    contract = [f"tests/test_contract.py::test_{test}" for test in CONTRACT if is_method]
    return [str(file.relative_to(ROOT)) for file in chosen] + contract


class LineRecorder:
    """Pytest plugin that writes which lines of `imbalance/` each test executes, and how long the test takes.

    Lines that a fixture of a wider scope than a test executes count for all tests of the file: only the first test
    sets the fixture up. A test that starts a Python process counts for all lines, as that process is not recorded.
    """

    def __init__(self, root: Path, output: Path) -> None:
        self.root, self.output, self.owner = root, output, "import"
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[f"{root}/imbalance/*"])
        self.failed: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self.with_processes: set[str] = set()

    def pytest_configure(self) -> None:
        sys.addaudithook(self.audit)
        self.coverage.start()

    def audit(self, event: str, arguments: tuple) -> None:
        is_python = event == "subprocess.Popen" and any(sys.executable == str(part) for part in arguments[1])
        if is_python or event in ("os.fork", "os.posix_spawn"):
            self.with_processes.add(self.owner)

    def switch(self, owner: str) -> None:
        self.owner = owner
        self.coverage.switch_context(owner)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.switch(item.nodeid)
        yield
        self.switch("import")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        owner = self.owner
        if fixturedef.scope != "function":
            self.switch(owner.partition("::")[0])
        yield
        self.switch(owner)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)
            print(f"fails without any change: {report.nodeid}", flush=True)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        for node in self.failed:  # fails for every mutant, so that it says nothing about one
            self.seconds.pop(node)
        data = self.coverage.get_data()
        owners: dict[str, dict[int, list[str]]] = {
            str(Path(file).relative_to(self.root)): data.contexts_by_lineno(file) for file in data.measured_files()
        }
        self.output.write_text(
            json.dumps(dict(owners=owners, seconds=self.seconds, with_processes=sorted(self.with_processes)))
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


def lines_by_test(copy: Path, test: str, folder: Path) -> dict:
    """Return what `LineRecorder` wrote for a test file, and run the file if it is new or has changed since."""
    file = test.partition("::")[0]
    output = folder / f"{hashlib.sha256(test.encode() + (ROOT / file).read_bytes()).hexdigest()}.json"
    if not output.exists():
        with open(os.devnull, "w") as nowhere:
            run_pytest(copy, [test], LineRecorder(copy, output), None, nowhere.fileno())
    return json.loads(output.read_text())


def nodes_for(mutant: Mutant, records: list[dict]) -> dict[str, float]:
    """Return the tests that execute a changed line with their seconds, the quickest first, those of the module's name before.

    If only the import executes these lines, or a process that was not recorded, return all tests nearest to the module.
    """
    path, name, every, direct = str(mutant.path.relative_to(ROOT)), f"test_{mutant.path.stem}.py", {}, set()
    for recorded in records:
        lines = recorded["owners"].get(path, {})
        owners = {owner for line in range(mutant.line, mutant.last + 1) for owner in lines.get(str(line), [])}
        every |= recorded["seconds"]
        direct |= {node for node in recorded["seconds"] if node in owners or node.partition("::")[0] in owners}
    if direct and mutant.is_in_function:
        direct |= {node for recorded in records for node in recorded["with_processes"] if node in every}
        every = {node: every[node] for node in direct}
    total, chosen = 0.0, {}
    for node in sorted(every, key=lambda node: (name not in node, every[node])):
        total += every[node]
        if total < MOST_SECONDS or not chosen:
            chosen[node] = every[node]
    return chosen


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
    parser.add_argument(
        "--record",
        type=Path,
        help="folder that keeps the recorded lines for the next call; empty it after changes of imbalance/",
    )
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
        if args.record:
            args.record.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            take(ROOT / name, copy / name, **(dict(symlinks=True) if (ROOT / name).is_dir() else {}))
        for mutant in chosen:
            if mutant.key() in EQUIVALENT:
                outcome = "equivalent"
            else:
                records = [lines_by_test(copy, test, args.record or copy) for test in tests_of(mutant.path)]
                nodes = nodes_for(mutant, records)
                seconds = 30 + 5 * sum(nodes.values())
                outcome = "killed" if is_killed(copy, mutant.path, mutant.source, list(nodes), seconds) else "lived"
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
