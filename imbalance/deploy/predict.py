"""Run the commands `imbalance predict` and `imbalance export`: predict files with a trained model, or export the model."""

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imbalance.data.sets.image_folder import images_in, unread_note
from imbalance.data.tables.columns import as_array, read_columns
from imbalance.deploy.load import TrainedModel, at_prior, is_estimated, load
from imbalance.errors import BadInput
from imbalance.utils.files import begins_with, output_path
from imbalance.utils.output import counted, csv_cell

# The ends of the names of files with columns.
TABLES = (".csv", ".gz", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".npz", ".npy")


def predict_files(
    *,
    run: str,
    files: Sequence[str],
    output: str,
    batch_size: int,
    device: str | None,
    prior: str | list[float] | None = None,
) -> str:
    """Run `imbalance predict RUN FILES… --output=predictions.csv`: predict each example in the files, and write CSV.

    Args:
        run: the directory of a finished run.
        files: image files, folders of images, or tables.
        output: the CSV file to write.
        batch_size: the number of examples on the device at a time.
        device: the device of the model; None for a GPU if there is one.
        prior: the class shares to predict for, as in `TrainedModel.predict`; "estimated" reads the examples of all files.

    Returns:
        The message that the command prints.
    """
    into = output_path(output, "--output", lambda path: begins_with(path, b"file,row,class"))
    if "" in files:  # "" would mean the current folder
        raise BadInput("FILE: '' given; name image files, folders of images, or tables")
    model = load(run, device)
    model.check_prior(prior)
    sources = list(read_sources([Path(file) for file in files], model))
    check_output(into, [Path(file) for file in files], sources)
    batches = [model.batched_logits(examples, batch_size) for _, examples in sources]
    told = ""
    if is_estimated(prior):
        batches = [list(source) for source in batches]
        logits = [batch for source in batches for batch in source]
        prior = estimate = model.estimated(torch.cat([torch.empty(0, len(model.class_names)), *logits])).tolist()
        shares = [f"{name} {share:.3g}" for name, share in zip(model.class_names, estimate, strict=True)]
        told = f"; estimated class shares: {', '.join(shares)}"
    temporary = into.with_name(f"{into.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as text:
            count = write_predictions(csv.writer(text), model, sources, batches, model.prior_shift(prior))
        temporary.replace(into)
    except OSError as error:
        raise BadInput(f"--output: cannot write {into}: {error.strerror or error}; name another file") from None
    finally:
        temporary.unlink(missing_ok=True)
    return f"{into}: {counted(count, 'prediction')}{told}"


def check_output(output: Path, files: Sequence[Path], sources: Sequence[tuple[Path | None, Any]]) -> None:
    """Raise `BadInput` if the file to write is one of the files to predict.

    Args:
        sources: the results of `read_sources`.
    """
    images = [image for file, examples in sources if file is None for image in examples]
    if output.exists() and any(output.samefile(file) for file in (*files, *images)):
        raise BadInput(f"--output: {output} is one of the files to predict, and would be lost; name another file")


def export_file(*, run: str, file: str, prior: str | list[float] | None = None) -> str:
    """Run `imbalance export RUN FILE`: export the model of a run to `file`, and return the message to print."""
    load(run, "cpu").export(file, prior)
    shifted = "" if prior is None else ", with its logits shifted to the class shares of --prior"
    return f"{file}: {Path(file).stat().st_size:,} bytes; checked: the outputs equal those of {run}{shifted}"


def read_sources(files: Sequence[Path], model: TrainedModel) -> Iterator[tuple[Path | None, Any]]:
    """Yield the examples of `files` in pairs of a file and its content.

    If there are image files, the first pair is (None, list of all image files). For each table, the content is its
    columns or its array.
    """
    images, tables = [], []
    for file in files:
        if not file.exists():
            raise BadInput(f"{file}: no such file; name image files, folders of images, or tables")
        unread: list[Path] = []
        inside = images_in(file, unread) if file.is_dir() else []
        for line in unread_note(file, unread):
            print(f"warning: {line}", file=sys.stderr)
        if inside:
            images += inside
        else:
            (tables if file.is_dir() or file.suffix.lower() in TABLES else images).append(file)
    if images and model.about["preprocessing"].get("kind") == "texts":
        raise BadInput(
            f"{images[0]}: not a table; this model takes {model.expected()}, in files that end in {', '.join(TABLES)}"
        )
    for image in images:
        if not image.exists():
            raise BadInput(f"{image}: a link to a file that does not exist; restore that file, or remove the link")
    if images:
        yield None, images
    for file in tables:
        if model.about["preprocessing"].get("kind") in ("columns", "texts"):
            columns = model.read_columns(file)
            if model.about["preprocessing"]["kind"] == "columns":
                lines = model.unfamiliar_values(columns)
            else:
                lines = [f"{file}: {line}" for line in model.empty_texts(columns)]
            for line in lines:
                print(f"warning: {line}", file=sys.stderr)
            yield file, columns
        else:
            columns = read_columns(file)
            if len(columns.values) != 1:
                raise BadInput(
                    f"{file}: {len(columns.values)} arrays; this model takes a single one: {model.expected()}; "
                    "save this array alone in a file .npy"
                )
            array = as_array(*columns.values.values())
            if not array.ndim:
                raise BadInput(f"{file}: a single number; this model takes {model.expected()}")
            yield file, array


def headings(class_names: Iterable[str]) -> list[str]:
    """Return the names of the columns of the predictions: file, row, class, and one for each class, all different.

    The heading of a class is its name, or "probability of <class>" if an earlier column already has this name.
    """
    names = ["file", "row", "class"]
    for name in map(csv_cell, class_names):
        while name in names:
            name = f"probability of {name}"
        names.append(name)
    return names


def write_predictions(
    writer: Any,
    model: TrainedModel,
    sources: Sequence[tuple[Path | None, Any]],
    batches: Sequence[Iterable[Tensor]],
    shift: Tensor | None,
) -> int:
    """Write a line of CSV for each example, and return the number of examples.

    Args:
        writer: a writer of the module `csv`.
        model: the model that has computed the logits.
        sources: the results of `read_sources`.
        batches: for each source, the (B, K) logits of its examples in batches.
        shift: (K,) numbers to add to the logits; None for none.
    """
    writer.writerow(headings(model.class_names))
    total, done, bar = sum(len(examples) for _, examples in sources), 0, sys.stderr.isatty()
    for (file, examples), source_logits in zip(sources, batches, strict=True):
        row = 0
        for logits in source_logits:
            for values in at_prior(logits, shift).tolist():
                name = model.class_names[values.index(max(values))]
                where = (csv_cell(str(file)), row) if file else (csv_cell(str(examples[row])), "")
                writer.writerow([*where, csv_cell(name), *(f"{value:.6g}" for value in values)])
                row += 1
            done += len(logits)
            if bar:
                print(f"\r\x1b[K{done:,} of {total:,}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    return done
