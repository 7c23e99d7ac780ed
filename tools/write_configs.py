"""Write the files of configs/ from the table in tools/config_table.py and the template below.

    python tools/write_configs.py            # rewrite every file that differs from the table
    python tools/write_configs.py --check    # print the files that differ and change none; exit with 1 if any differs

The table has a row for each file, and a base for each data set. To add a key to all files, add a line to TEMPLATE. If
the value differs between data sets or methods, write a slot `{name}` in place of the value. Files in configs/ that have no
row in the table are not changed.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

from config_table import BASES, DEFAULTS, ROWS, Row

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
WIDTH = 120
COMMENT = "\0"  # stands before the comment of a slot until `finished` moves the comment to the end of the line
TEMPLATE = '''"""{docstring}
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"{data_dir}
    config.score = "{score}"  # the metric that the run returns, at the selected epoch

    config.data = create({data})
    config.groups = create({groups})
    config.sampler = create({sampler})
    config.weights = create({weights})
    config.mix = create({mix})
    config.loss = create({loss})
    config.objective = create({objective})
    config.model = create({model})
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create({optim})
    config.optim.schedule = create({schedule})
    config.head = create({head})

    config.trainer = create(
        epochs={epochs},
        batch_size={batch_size},
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm={clip_norm},  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size={eval_batch_size},
        eval_every={eval_every},  # evaluate after every so many epochs
        eval_splits=("val",),  # splits of these evaluations; test is evaluated at the end in any case
        dtype="{dtype}",
        mixed_precision="no",  # or "bf16"; on a GPU also "fp16"
        tf32="convolutions",  # where a GPU uses TF32 (10 bits of mantissa): "none", "convolutions", "all"
        channels_last={channels_last},
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; or "reduce-overhead" (CUDA graphs), which suits small models on a GPU
        deterministic=False,  # True: results on a GPU are the same to the bit in every run, but training is slower
        shard=False,  # True: split the model and the optimiser's state over the processes, to save memory
        activation_checkpointing=False,  # True: compute activations again in the backward pass, to save memory
    )
    config.callbacks = create(
        select={select},
        monitor="{score}",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.
'''


def text_of(name: str, row: Row) -> str:
    """Return the complete text of the config file `name`, which `row` describes."""
    base = BASES[row.base]
    slots = {"data": base.data, **DEFAULTS, **base.slots, **row.slots}
    keys = {line.partition("=")[0] for line in textwrap.dedent(slots["data"]).splitlines()}
    known = {*DEFAULTS, "data", *re.findall(r"\{(\w+)\}", TEMPLATE), *(f"data.{key}" for key in keys)}
    if unknown := [slot for slot in slots if slot not in known]:
        raise SystemExit(f"{name}: slot {unknown[0]!r} is not in TEMPLATE; use one of {', '.join(sorted(known))}")
    data = textwrap.indent(textwrap.dedent(slots.pop("data")).strip("\n "), " " * 8)
    for key in [key for key in slots if key.startswith("data.")]:
        start = f"        {key.removeprefix('data.')}="
        (line,) = (line for line in data.splitlines() if line.startswith(start))
        data = data.replace(line, start + slots.pop(key))
    marked = {slot: value.replace("  # ", COMMENT) for slot, value in slots.items()}
    text = TEMPLATE.format(docstring=docstring(name, row, slots), data=f"\n{data}\n    ", **marked)
    return "\n".join(map(finished, text.split("\n")))


def docstring(name: str, row: Row, slots: dict[str, str]) -> str:
    """Return the docstring of a config file: title, paragraphs on the method and the data set, and the commands.

    Args:
        name: the name of the file, without .py.
        slots: the text of all slots of this file.
    """
    base = BASES[row.base]
    commands = [*base.before, f"python main.py --config=configs/{name}.py{base.flags}"]
    prose = [f"{base.title}: {row.title}.", row.about, base.about.format(epochs=slots["epochs"])]
    # No line break between a number and its %
    whole = [" ".join(text.split()).replace(" %", "\xa0%") for text in prose if text]
    filled = [textwrap.fill(text, WIDTH, break_on_hyphens=False).replace("\xa0%", " %") for text in whole]
    return "\n\n".join([*filled, "\n".join(f"    {command}" for command in commands)])


def finished(line: str) -> str:
    """Finish a line of the template after its slots are filled.

    Move a comment from a slot to the end of the line. If a call is too long for the line, write each key on its own line.
    """
    code, mark, comment = line.partition(COMMENT)
    if mark:
        closing = comment[-1] if comment[-1] in ")," and not code.startswith("    config.data_dir") else ""
        return f"{finished(code + closing)}  # {comment.removesuffix(closing)}"
    if len(line) <= WIDTH or "create(" not in line:
        return line
    head, _, arguments = line.removesuffix(")").partition("create(")
    return "\n".join([f"{head}create(", *(f"        {part}," for part in re.split(r", (?=\w+=)", arguments)), "    )"])


def stale() -> dict[Path, str]:
    """Return the path and the correct text of each config file that is missing or differs from the table."""
    texts = {CONFIGS / f"{name}.py": text_of(name, row) for name, row in ROWS.items()}
    return {path: text for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write every file of configs/ from one table and one template.")
    parser.add_argument(
        "--check", action="store_true", help="print the files that differ from the table and change none"
    )
    check = parser.parse_args().check
    for path, text in (files := stale()).items():
        print(f"{'stale' if check else 'written'}: configs/{path.name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and files:
        print("type python tools/write_configs.py to write them")
    return int(check and bool(files))


if __name__ == "__main__":
    sys.exit(main())
