"""What the tests do not notice: `python tests/mutate.py --sample=10 --seed=0`.

Draws mutants of `imbalance/` at random, each one small change of one file: a comparison turned, an operator or a
constant replaced, `and` and `or` swapped, a statement dropped. Runs on each the tests that name its module, in a copy
of the repository, and prints whether one failed (killed, also by a timeout) or none did (lived). A mutant that lived is a missing
test, or changes nothing: look at it. Not part of the suite: a mutant takes up to minutes.
"""

import argparse
import ast
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    "CONTRIBUTING.md",
    "docs",
)
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CONTRACT = ("three_parts_make_the_step_of_one", "stopped_and_gone_on_with_it_ends_in_the_same_bits")
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


def mutants_of(path: Path) -> list[tuple[Path, int, str, str]]:
    """(file, line, what stands there, the whole source of the mutant)"""
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
            found.append((path, old.lineno, shown, mutant.decode()))
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


def fails(copy: Path, tests: list[str], path: Path, mutant: str, seconds: float) -> bool:
    """Whether one of the tests fails in the copy with this one file replaced."""
    target = copy / path.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    path_list = os.pathsep.join([str(copy), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path_list, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=seconds).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(original, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=10, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--seconds", type=float, default=600, help="for a mutant's tests; longer is killed")
    parser.add_argument("--only", default="", help="a part of the path of the files to change, as training/progress")
    args = parser.parse_args()
    paths = [path for path in sorted((ROOT / "imbalance").glob("**/*.py")) if args.only in str(path)]
    mutants = [mutant for path in paths for mutant in mutants_of(path)]
    chosen = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            take(ROOT / name, copy / name, **(dict(symlinks=True) if (ROOT / name).is_dir() else {}))
        lived, checked = 0, set()
        for path, line, shown, mutant in chosen:
            tests = tests_of(path)
            if path not in checked and fails(copy, tests, path, path.read_text(encoding="utf-8"), args.seconds):
                sys.exit(f"without any change {' '.join(tests)} fails, or takes more than {args.seconds:g} s")
            checked.add(path)
            killed = fails(copy, tests, path, mutant, args.seconds)
            lived += not killed
            print(f"{'killed' if killed else 'LIVED '}  {path.relative_to(ROOT)}:{line}  {shown[:100]}", flush=True)
    killed, n = len(chosen) - lived, len(chosen)
    half = 1.96 * math.sqrt(max(killed * lived, 1) / n) / n
    print(f"{killed} of {n} killed ({killed / n:.0%} ± {half:.0%}), of {len(mutants)} mutants in {len(paths)} files")


if __name__ == "__main__":
    main()
