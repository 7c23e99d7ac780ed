"""Run the commands and programs of each page in their order, in a folder like that of a reader.

Commands run as printed, except for the number of seeds, which becomes 2. The folder has configs of its own: those of the
project with two epochs, and with small networks for small images. So a run directory has the name that the page says. A
program that begins with `# its_name.py` is a file that later commands name.
"""

import os
import re
import shlex
import subprocess
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG_FILES
from helpers.data_files import save_image
from helpers.pages import FENCE, ROOT, blocks

import imbalance.config.files
from imbalance.cli.main import call
from imbalance.sweep import launch, runs

PAGES = ["README.md", "docs/start.md", "docs/choose.md"]
PAGES += [str(path.relative_to(ROOT)) for part in ("concepts", "how-to") for path in sorted((ROOT / "docs" / part).glob("*.md"))]  # fmt: skip

NOT_RUN = {  # a pattern of lines or programs that are not run: the reason
    r"^(python3 -m venv|\. \.venv|pip install)": "installs",
    r"^python -m pytest": "the command of the README runs the tests",
    r"^(imbalance watch|tensorboard|optuna-dashboard)": "serves until it is stopped; tests/report/test_watch.py",
    r"^(TORCH_\w+=1 )?(torchrun|accelerate launch)": "tests/training/distributed/test_processes.py starts processes by both",
    r"^imbalance data download": "has no network; tests/data/test_download.py",
    r"--processes_per_run": "tests/sweep/test_ranks.py starts the processes",
    r"--launcher=slurm": "tests/sweep/test_slurm.py, where there is a Slurm",
    r"model\.name=(lite0|minilm)|photos_lite0|\"runs/folder_ce/…": "tests/models/test_backbones.py, where the extra `backbones` is installed",
    r"=distilbert-": "weights that have to be downloaded; tests/models/test_encoder.py makes some",
    r"--config=(configs/)?(cifar|drawn|celeba|civilcomments|waterbirds|fashion)|celeba_erm|fashion_lenet|waterbirds_": "data that have to be downloaded",
    r"^imbalance reproduce (figure[3-5]|gaussian_limit|prior_correction|colored_digits_methods|every_method|interval_coverage|subpopbench)": "minutes to hours",
    r"^imbalance (findings|keep|submit|leaderboard)": "writes to the repository; tests/experiments/test_findings.py and tests/report/test_leaderboard.py",
    r"--work_dir=runs/(advice|few)": "minutes; tests/experiments/test_choose.py reads the rows of these runs",
    r"^imbalance protocol": "tests/experiments/test_protocol.py runs it",
    r"data\.file=people\.csv": "tests/data/sets/test_arrays.py runs it",
    r'^import imbalance\n\nresult = imbalance\.run\("digits_poly"': "tests/config/test_overrides.py runs it",
    r"^import (numpy as np\nimport torch\nimport transformers|lightning)|^sampler = EpochSampler": "tests/methods/test_other_loops.py runs them",
    r"^import pyarrow\nimport pyarrow\.dataset": "tests/data/tables/test_arrow.py runs it",
    r"^import torch\nfrom (torch\.utils|accelerate)": "tests/methods/test_standalone.py runs the loops, and looks at what they learn",
}  # fmt: skip
BEFORE = {  # runs of an earlier page that a page needs
    "docs/concepts/nothing-is-lost.md": ["--config=digits_poly", "--config=digits_poly --config.optim.lr=1e20"],
    "docs/how-to/logging.md": ["--config=digits_poly"],
    "docs/how-to/predict.md": ["--config=folder_ce"],
    "docs/how-to/slurm.md": ["--config=digits_poly"],
}


# Folder of a reader


def make_reader_folder(folder: Path) -> None:
    """Write configs, and small data in the files that the pages name."""
    (folder / "configs").mkdir()
    (folder / "main.py").symlink_to(ROOT / "main.py")
    for path in CONFIG_FILES.values():
        text = re.sub(r"\b(epochs|first_epochs)=\d+", r"\1=2", path.read_text(encoding="utf-8"))
        if path.stem.startswith(("folder_", "table_")):
            text = re.sub(r"config\.model = create\(.*\)", 'config.model = create(name="lenet")', text)
            text = re.sub(r"resize=\d+", "resize=36", re.sub(r"\bsize=\d+", "size=32", text))
        (folder / "configs" / path.name).write_text(text, encoding="utf-8")
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(40)]
    for seed, name in enumerate(names):
        save_image(folder / "data" / "images" / name, seed=seed)
    for seed, name in enumerate(("new_photos/1.jpg", "new_images/1.png", "a.jpg", "b.png")):
        save_image(folder / name, seed=100 + seed)
    rng, data = np.random.default_rng(0), folder / "data"
    table = [f"{name},{'positive' if 'dog' in name else 'negative'}" for name in names]
    (data / "table.csv").write_text("\n".join(["path,target", *table]) + "\n")
    texts = [f'"{rng.choice(["good", "bad"])} film, number {i}",{kind},{domain}' for i in range(60)
             for kind in ("negative", "positive") for domain in ("film", "tweet")]  # fmt: skip
    (data / "texts.csv").write_text("\n".join(["text,target,domain", *texts]) + "\n")
    (folder / "new.csv").write_text("text\na good film\nnever again\n")
    for name, count, end in (("adult.data", 400, ""), ("adult.test", 200, ".")):
        rows = [", ".join([str(rng.integers(17, 90)), "Private", "77516", "Bachelors", "13", "Divorced", "Sales", "Wife", "White",
                           str(rng.choice(["Male", "Female"])), "0", "0", "40", "?", str(rng.choice(["<=50K", ">50K"])) + end])
                for _ in range(count)]  # fmt: skip
        (folder / name).write_text("\n".join(rows) + "\n\n")


class InThisProcess:
    """Stand in for the pool of `imbalance.sweep.runs.worker_pool`, because processes take seconds to start."""

    def __init__(self, jobs: int, processes: int = 1):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *args) -> Future:
        done = Future()
        done.set_result(function(*args))
        return done


# Lines and programs


def steps(text: str) -> list[tuple[str, str]]:
    """List the steps of a page in order: ("sh", a command) or ("python", a program). test_docs.py runs sessions."""
    found = []
    text = re.sub(r"(?:^    .*\n)+", lambda block: f"```sh\n{re.sub('^    ', '', block[0], flags=re.M)}```\n", text, flags=re.M) if "```" not in text else text  # fmt: skip
    for _, _, language, block in FENCE.findall(text):
        if language == "sh":
            found += [("sh", line) for line in lines(block)]
        elif language == "python" and not block.startswith(">>>"):
            found.append(("python", block))
    return found


def lines(block: str) -> list[str]:
    """Split a block of shell into commands: at ends of lines and at &&, but not within { … } or after a backslash."""
    joined, found = re.sub(r" *\\\n *", " ", block), []
    for line in joined.splitlines():
        if found and found[-1].count("{") > found[-1].count("}"):
            found[-1] += "\n" + line
        elif line.strip():
            found += [line] if "{" in line else line.split(" && ")
    return found


def why_not(step: str) -> str:
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, step)), "")


def run_line(line: str) -> None:
    """Run a command of this project in this process, any other command by a shell."""
    words = shlex.split(line, comments=True)
    if words[0] != "imbalance" and words[:2] != ["python", "main.py"]:
        subprocess.run(["bash", "-euc", line], check=True)
        return
    words = words[1:] if words[0] == "imbalance" else ["train", *words[2:]]
    if words[0] in ("compare", "sweep", "select"):
        words = [word for word in words if not word.startswith("--seeds=")] + ["--seeds=2", "--jobs=1"]
    diverges = "--config.optim.lr=1e20" in words
    assert call(words) == (3 if diverges else 0), line


STEPS = {name: steps((ROOT / name).read_text(encoding="utf-8")) for name in PAGES}


def test_most_of_what_is_printed_is_run():
    every = [step for of_page in STEPS.values() for _, step in of_page]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, step) for step in every), f"{pattern}: no page has it any more"
    assert sum(not why_not(step) for step in every) > len(every) / 2 > 20


def test_a_script_for_a_cluster_is_read_by_bash():
    scripts = [block for name in PAGES for block in blocks((ROOT / name).read_text(encoding="utf-8"), "bash")]
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("name", [name for name in PAGES if any(not why_not(step) for _, step in STEPS[name])])
def test_a_page_runs(name, tmp_path, monkeypatch, capsys):
    make_reader_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imbalance.config.files, "CONFIGS", tmp_path / "configs")
    for module in (launch, runs):
        monkeypatch.setattr(module, "worker_pool", InThisProcess)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(os.sys.executable).parent), os.environ["PATH"]]))
    for arguments in BEFORE.get(name, []):
        run_line(f"imbalance train {arguments}")
    names = {}
    for language, step in STEPS[name]:
        if why_not(step):
            continue
        if language == "sh":
            run_line(step)
        else:
            file = re.match(r"# (\w+\.py)\n", step)
            if file:  # which commands below name
                Path(file[1]).write_text(step, encoding="utf-8")
            exec(compile(step, name, "exec"), {} if file else names)
