"""Write every file of configs/ from one table and one template.

    python tools/write_configs.py            # rewrite the files whose text is stale
    python tools/write_configs.py --check    # name the stale files, change none, exit with 1 if there is one

`tools/config_table.py` is the table: a row for each file, and a base for each data set. TEMPLATE below is the template.
A new key is one line of TEMPLATE; a value that differs between data sets or methods is a slot there.
Files that are not in the table are left alone.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

from config_table import BASES, DEFAULTS, ROWS, Row

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
WIDTH = 120
COMMENT = "\0"  # begins the comment of a slot, which belongs behind what closes the slot
TEMPLATE = '''"""{docstring}
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"{data_dir}
    config.score = "{score}"  # the metric that a run returns, of the selected weights

    config.data = create({data})
    config.groups = create({groups})
    config.sampler = create({sampler})
    config.weights = create({weights})
    config.mix = create({mix})
    config.loss = create({loss})
    config.objective = create({objective})
    config.model = create({model})
    config.optim = create({optim})
    config.optim.schedule = create({schedule})
    config.head = create({head})

    config.trainer = create(
        epochs={epochs},
        batch_size={batch_size},
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm={clip_norm},  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size={eval_batch_size},
        eval_every={eval_every},  # epochs
        eval_splits=("val",),  # test is evaluated once, at the end; add "test" to evaluate it each time
        dtype="{dtype}",
        mixed_precision="no",  # or "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what a GPU computes with 10 bits of mantissa: "none", "convolutions", "all"
        channels_last={channels_last},
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; "reduce-overhead" (CUDA graphs) suits small models on a GPU
        deterministic=False,  # True: the same bits in every run on a GPU too, at some cost in speed
    )
    config.callbacks = create(
        select={select},
        monitor="{score}",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.
'''


def text_of(name: str, row: Row) -> str:
    """Return the whole text of the config file `name`."""
    base = BASES[row.base]
    slots = {"data": base.data, **DEFAULTS, **base.slots, **row.slots}
    keys = {line.partition("=")[0] for line in textwrap.dedent(slots["data"]).splitlines()}
    known = {*DEFAULTS, "data", *re.findall(r"\{(\w+)\}", TEMPLATE), *(f"data.{key}" for key in keys)}
    if unknown := [slot for slot in slots if slot not in known]:
        raise SystemExit(f"{name}: slot {unknown[0]!r} is not in the template; there are {', '.join(sorted(known))}")
    data = textwrap.indent(textwrap.dedent(slots.pop("data")).strip("\n "), " " * 8)
    for key in [key for key in slots if key.startswith("data.")]:
        start = f"        {key.removeprefix('data.')}="
        (line,) = (line for line in data.splitlines() if line.startswith(start))
        data = data.replace(line, start + slots.pop(key))
    marked = {slot: value.replace("  # ", COMMENT) for slot, value in slots.items()}
    text = TEMPLATE.format(docstring=docstring(name, row, slots), data=f"\n{data}\n    ", **marked)
    return "\n".join(map(finished, text.split("\n")))


def docstring(name: str, row: Row, slots: dict[str, str]) -> str:
    """Return the title, a paragraph each on the method and on the data set, and the commands."""
    base = BASES[row.base]
    commands = [*base.before, f"python main.py --config=configs/{name}.py{base.flags}"]
    prose = [f"{base.title}: {row.title}.", row.about, base.about.format(epochs=slots["epochs"])]
    whole = [
        " ".join(text.split()).replace(" %", "\xa0%") for text in prose if text
    ]  # a number and its % stay together
    filled = [textwrap.fill(text, WIDTH, break_on_hyphens=False).replace("\xa0%", " %") for text in whole]
    return "\n\n".join([*filled, "\n".join(f"    {command}" for command in commands)])


def finished(line: str) -> str:
    """Put the comment of a slot at the end of its line, and break a call that is too long into a line for each key."""
    code, mark, comment = line.partition(COMMENT)
    if mark:
        closing = comment[-1] if comment[-1] in ")," and not code.startswith("    config.data_dir") else ""
        return f"{finished(code + closing)}  # {comment.removesuffix(closing)}"
    if len(line) <= WIDTH or "create(" not in line:
        return line
    head, _, arguments = line.removesuffix(")").partition("create(")
    return "\n".join([f"{head}create(", *(f"        {part}," for part in re.split(r", (?=\w+=)", arguments)), "    )"])


def stale() -> dict[Path, str]:
    """Return the files that differ from the table, or are missing, with the text that they should have."""
    texts = {CONFIGS / f"{name}.py": text_of(name, row) for name, row in ROWS.items()}
    return {path: text for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write every file of configs/ from one table and one template.")
    parser.add_argument("--check", action="store_true", help="name the stale files and change none")
    check = parser.parse_args().check
    for path, text in (files := stale()).items():
        print(f"{'stale' if check else 'written'}: configs/{path.name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and files:
        print("write them with: python tools/write_configs.py")
    return int(check and bool(files))


if __name__ == "__main__":
    sys.exit(main())
