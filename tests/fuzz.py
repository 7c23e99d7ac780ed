"""Inputs that nobody would write, and what main.py and the image decoder make of them, under a memory limit.

The inputs are drawn by hypothesis in a process of their own (`hunt`, started by test_fuzz.py), and each run of main.py
is a fork of it: so it starts in a moment, and can exhaust its memory, hang or crash without harm.
"""

import json
import os
import re
import resource
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from conftest import ROOT
from fuzz_api import API_KINDS
from helpers.data_files import save_image
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from imbalance.config.resolve import load
from imbalance.config.schema import flatten, keyword_annotations
from imbalance.data import DATASETS
from imbalance.data.images.decode import Recipe, decode
from imbalance.methods.heads.registry import HEADS
from imbalance.methods.losses import LOSSES
from imbalance.methods.mixing import MIXINGS
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS
from imbalance.models import MODELS
from imbalance.training.optim import OPTIMIZERS
from imbalance.training.schedules import SCHEDULES

MEMORY = 3 * 2**30  # bytes that an input may take beyond those of an idle process
SECONDS = 30  # that it may take
TABLES = {
    "sampler": SAMPLERS, "weights": WEIGHTS, "mix": MIXINGS, "loss": LOSSES, "objective": OBJECTIVES, "model": MODELS,
    "head": HEADS, "optim": OPTIMIZERS, "optim.schedule": SCHEDULES, "data": DATASETS,
}  # fmt: skip
BASES = ("digits_ce", "gaussian_poly", "colored_digits_dfr", "colored_digits_crt", "colored_digits_lisa")
PICTURES = ("x.png", "x.jpg", "x.gif", "x.bmp", "x.tiff", "x.webp", "x.ppm", "x.ico", "x.tga", "x.pcx")

NASTY_TEXT = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a\nb",
        "\x1b[31m",
        "größe",
        "日" * 100,
        "x" * 300,
        "../..",
        "/",
        ".",
        "=1+1",
        "$\\frac{",
        "|",
        "nan",
    ]
)
TEXT = NASTY_TEXT | st.text(max_size=12)
INTEGERS = st.sampled_from([-1, 0, 1, 2, 3, 10, 255, 2**31, 2**63, 2**64 - 1, 2**64, 10**9, 10**12]) | st.integers()
FLOATS = st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, 1e39]) | st.floats()
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a"]), inner, max_size=2),
)
MAKES = {int: INTEGERS, float: FLOATS, bool: st.booleans(), str: TEXT}


def of_type(annotation: Any) -> st.SearchStrategy:
    """Mostly values that fit an annotation of `imbalance.config.schema`, so that they come further than its check."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        return st.lists(of_type(get_args(annotation)[0]), max_size=3)
    if annotation is float:
        return st.one_of(*3 * [st.floats(0.01, 0.99)], st.floats(0, 2), FLOATS)
    if annotation is int:
        return st.one_of(*3 * [st.integers(1, 5)], st.just(0), INTEGERS)
    return MAKES.get(annotation, VALUES)


@st.composite
def sections(draw: st.DrawFn, table: dict[str, Callable]) -> dict[str, Any]:
    """A call of an entry of `table`."""
    name = draw(st.sampled_from(sorted(table)))
    return {"name": name} | {
        key: draw(of_type(annotation)) for key, annotation in keyword_annotations(table[name]).items()
    }


def base(name: str) -> dict[str, Any]:
    """A config that trains in a moment."""
    config = load(ROOT / "configs" / f"{name}.py")
    config.debug = True
    config.trainer.batch_size = 32
    if config.data.name == "gaussian":
        config.data.update(dim=5, val_per_class=(20, 20), test_per_class=(20, 20))
    return config.to_dict()


def put(config: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for name in sections:
        config = config[name]
        if not isinstance(config, dict):
            return
    config[key] = value


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config of which one or two values or sections are others."""
    config = base(draw(st.sampled_from(BASES)))
    paths = sorted(flatten(config))
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.integers(0, 3)):
            path = draw(st.sampled_from(sorted(TABLES)))
            kept = (
                {"schedule": config["optim"]["schedule"]} if path == "optim" and "schedule" in config["optim"] else {}
            )
            put(config, path, draw(sections(TABLES[path])) | kept)
        else:
            path = draw(st.sampled_from([path for path in paths if path not in ("work_dir", "debug")]))
            put(config, path, draw(VALUES))
    return config


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """A command line of up to three overrides, and now and then what is none."""
    paths = [path for path in sorted(flatten(base("digits_ce"))) if path not in ("work_dir", "debug")]
    texts = (
        TEXT | VALUES.map(repr) | VALUES.map(str) | st.sampled_from(["(1,)", "(1,", "{'name': 'poly'}", "True", "'"])
    )
    some = []
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths + sorted(TABLES)) | st.sampled_from(["", "loss.", ".", "x", "optim.lr.x"]))
        some.append(f"--config.{path}={draw(texts)}")
    some += draw(
        st.lists(st.sampled_from(["--dry_run", "--dry_run=maybe", "--x", "x", "--", "-1", "--config"]), max_size=1)
    )
    return [text.replace("\0", "") for text in some]  # which no command line can hold


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A CSV of images, with cells and then bytes that do not belong there."""
    cells = st.sampled_from(["0.png", "1.png", "negative", "positive", "train", "val", "test"]) | TEXT
    rows = [["path", "target", "split"]]
    rows += [[f"{i}.png", ("negative", "positive")[i % 2], ("train", "val", "test")[i % 3]] for i in range(12)]
    for _ in range(draw(st.integers(0, 3))):
        rows[draw(st.integers(0, 12))][draw(st.integers(0, 2))] = draw(cells)
    between, end = draw(st.sampled_from(4 * [(",", "\n")] + [(",", "\r\n"), (";", "\n"), (",", "\r")]))
    data = end.join(between.join(row) for row in rows).encode("utf-8", "surrogatepass")
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + (data if draw(st.booleans()) else draw(damaged(data)))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` cut short, with bytes changed, or with some put in."""
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, min(len(data), 200) - 1)) | st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["cut", "change", "put in", "big"]))
        if how == "cut":
            data = data[:place]
        elif how == "big":
            data = (
                data[:place]
                + draw(st.sampled_from([b"\xff\xff\xff\x7f", b"\0\0\xea\x60", b"\0\1\0\0"]))
                + data[place + 4 :]
            )
        else:
            data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + (how == "change") :]
    return data


def pictures(folder: Path) -> st.SearchStrategy[bytes]:
    """Image files of many kinds and shapes, damaged."""
    files = [save_image(folder / name) for name in PICTURES]
    files += [
        save_image(folder / f"{mode}.png", mode=mode)
        for mode in ("L", "1", "P", "RGBA", "I;16", "CMYK")
        if mode != "CMYK"
    ]
    for width, height in ((1, 60_000), (60_000, 1), (1, 1), (300, 256)):
        Image.new("RGB", (width, height)).save(folder / f"{width}x{height}.png")
        files.append(folder / f"{width}x{height}.png")
    return st.sampled_from([file.read_bytes() for file in files]).flatmap(lambda data: damaged(data))


# What is done with them. Each returns what became of it, and what is wrong with that, or "".


def try_config(config: dict[str, Any], folder: Path) -> tuple[str, str]:
    path = folder / "experiment.json"
    path.write_text(json.dumps(config))
    return run_main(f"--config={path}", f"--config.work_dir={folder / 'runs'}", folder=folder)


def try_overrides(some: list[str], folder: Path) -> tuple[str, str]:
    given = ("--config.debug=True", f"--config.work_dir={folder / 'runs'}")
    return run_main(f"--config={ROOT / 'configs' / 'digits_ce.py'}", *given, *some, folder=folder)


def try_table(table: bytes, folder: Path) -> tuple[str, str]:
    if not (folder / "images").exists():
        for i in range(12):
            save_image(folder / "images" / f"{i}.png", seed=i)
    (folder / "table.csv").write_bytes(table)
    config = load(ROOT / "configs" / "table_erm.py")
    config.update(debug=True, data_dir=str(folder))
    config.model = dict(name="linear", init="zeros")
    small = dict(resize=16, size=16, val_fraction=0.0, test_fraction=0.0, split="split")
    config.data.update({key: value for key, value in small.items() if key in config.data})
    return try_config(config.to_dict(), folder)


def try_picture(data: bytes, folder: Path) -> tuple[str, str]:
    path = folder / "picture"
    path.write_bytes(data)
    try:
        pixels = decode(path, Recipe("RGB", (("shorter", 256), ("crop", 224))))
        return "decoded", "" if pixels.shape == (3, 224, 224) else f"shape {pixels.shape}"
    except ValueError as error:
        return "refused", "" if "\n" not in str(error) else f"two lines: {error}"
    except Exception:
        return "traceback", traceback.format_exc()


def run_main(*args: str, folder: Path) -> tuple[str, str]:
    """main.py in a fork: its exit status, and what it should not have said."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    outputs = folder / "stdout", folder / "stderr"
    child = os.fork()
    if not child:
        os._exit(main_in_fork([str(ROOT / "main.py"), *args], outputs))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said, complaint = (path.read_text(errors="replace") for path in outputs)
    if status == -signal.SIGALRM:
        return "hangs", f"more than {SECONDS} s"
    if status not in (0, 2, 3):
        return str(status), complaint or "no message"
    if status and (complaint.count("\n") != 1 or len(complaint) < 10):
        return str(status), f"not one line: {complaint!r}"
    if not status and "--dry_run" not in args and json.loads(said.splitlines()[-1])["status"] != "done":
        return str(status), f"no result: {said!r}"
    return str(status), ""


def main_in_fork(argv: list[str], outputs: tuple[Path, Path]) -> int:
    for descriptor, path in zip((1, 2), outputs):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)
    sys.argv = argv
    signal.alarm(SECONDS)
    status = 0
    try:
        runpy.run_path("main.py", run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    return status


KINDS = {
    "configs": (configs(), try_config),
    "overrides": (overrides(), try_overrides),
    "tables": (tables(), try_table),
    "pictures": (None, try_picture),
    **API_KINDS,
}


def hunt(kind: str, folder: Path, examples: int, minutes: float) -> None:
    """Try `examples` inputs of a kind, always the same, or for some minutes new ones; write what became of them.

    `<folder>/report.json` has the counts of every outcome, and one input, the shortest, of every kind of failure.
    """
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    strategy, attempt = KINDS[kind]
    strategy = pictures(folder / "pictures") if strategy is None else strategy
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    counts, failures, started = Counter(), {}, time.monotonic()

    def check(case: Any) -> None:
        if minutes and time.monotonic() - started > 60 * minutes:
            return
        outcome, wrong = attempt(case, folder)
        counts[outcome] += 1
        if wrong:
            last = re.sub(r"[\d.]+|'[^']*'|\"[^\"]*\"", "…", wrong.strip().splitlines()[-1])[:60]
            where = re.findall(r'File ".*/(imbalance/[^"]*|main.py)", line (\d+)', wrong)
            found = failures.setdefault(f"{outcome}: {where[-1] if where else ''} {last}", [0, None, None])
            found[0] += 1
            if found[1] is None or len(repr(case)) < len(found[1]):
                found[1:] = repr(case), wrong

    quiet = dict(database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    if not minutes:
        settings(max_examples=examples, derandomize=True, **quiet)(given(strategy)(check))()
    while minutes and time.monotonic() - started < 60 * minutes:
        seed(time.time_ns())(settings(max_examples=500, **quiet)(given(strategy)(check)))()
    report = {"counts": counts, "failures": failures, "seconds": time.monotonic() - started}
    (folder / "report.json").write_text(json.dumps(report, indent=1))
