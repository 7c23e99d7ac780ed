"""Run the commands `imbalance predict` and `imbalance export`: predict files with a trained model, or export the model."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imbalance.data.sets.image_folder import images_in
from imbalance.data.tables.columns import as_array, read_columns
from imbalance.deploy.load import TrainedModel, load
from imbalance.errors import BadInput
from imbalance.utils.output import csv_cell

TABLES = (".csv", ".gz", ".tsv", ".txt", ".parquet", ".npz", ".npy")  # the ends of the names of files with columns


def predict_files(*, run: str, files: Sequence[str], output: str, batch_size: int, device: str | None) -> str:
    """Run `imbalance predict RUN FILES… --output=predictions.csv`: predict each example in the files, and write CSV.

    Args:
        run: the directory of a finished run.
        files: image files, folders of images, or tables.
        output: the CSV file to write.
        batch_size: the number of examples on the device at a time.
        device: the device of the model; None for a GPU if there is one.

    Returns:
        The message that the command prints.
    """
    into = Path(output)
    if into.is_dir():
        raise BadInput(f"--output: {into} is a folder; name a file")
    if not into.absolute().parent.is_dir():
        raise BadInput(f"--output: {into} is in a folder that does not exist; make the folder first")
    if "" in files:  # "" would mean the current folder
        raise BadInput("FILE: '' given; name image files, folders of images, or tables")
    model = load(run, device)
    sources = list(read_sources([Path(file) for file in files], model))
    check_output(into, [Path(file) for file in files], sources)
    temporary = into.with_name(f"{into.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as text:
            count = write_predictions(csv.writer(text), model, sources, batch_size)
        temporary.replace(into)
    except OSError as error:
        raise BadInput(f"--output: cannot write {into}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return f"{into}: {count:,} predictions"


def check_output(output: Path, files: Sequence[Path], sources: Sequence[tuple[Path | None, Any]]) -> None:
    """Raise `BadInput` if the file to write is one of the files to predict.

    Args:
        sources: the results of `read_sources`.
    """
    images = [image for file, examples in sources if file is None for image in examples]
    if output.exists() and any(output.samefile(file) for file in (*files, *images)):
        raise BadInput(f"--output: {output} is one of the files to predict, and would be lost; name another file")


def export_file(*, run: str, file: str) -> str:
    """Run `imbalance export RUN FILE`: export the model of a run to `file`, and return the message to print."""
    load(run, "cpu").export(file)
    return f"{file}: {Path(file).stat().st_size:,} bytes; checked: the outputs equal those of {run}"


def read_sources(files: Sequence[Path], model: TrainedModel) -> Iterator[tuple[Path | None, Any]]:
    """Yield the examples in `files`: first (None, list of all image files) if any, then (file, content) for each table.

    The content is the table's columns, or its array.
    """
    images, tables = [], []
    for file in files:
        if not file.exists():
            raise BadInput(f"{file}: no such file; name image files, folders of images, or tables")
        inside = images_in(file) if file.is_dir() else []
        if inside:
            images += inside
        else:
            (tables if file.is_dir() or file.suffix.lower() in TABLES else images).append(file)
    if images and model.about["preprocessing"].get("kind") == "texts":
        raise BadInput(
            f"{images[0]}: not a table; this model takes {model.expected()}, in files that end in {', '.join(TABLES)}"
        )
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
                    f"{file}: {len(columns.values)} arrays; this model takes a single one: {model.expected()}"
                )
            array = as_array(*columns.values.values())
            if not array.ndim:
                raise BadInput(f"{file}: a single number; this model takes {model.expected()}")
            yield file, array


def write_predictions(
    writer: Any, model: TrainedModel, sources: Sequence[tuple[Path | None, Any]], batch_size: int
) -> int:
    """Write a line of CSV for each example, and return the number of examples.

    Args:
        writer: a writer of the module `csv`.
        sources: the results of `read_sources`.
    """
    writer.writerow(["file", "row", "class", *map(csv_cell, model.class_names)])
    total, done, bar = sum(len(examples) for _, examples in sources), 0, sys.stderr.isatty()
    for file, examples in sources:
        row = 0
        for probabilities in model.batched_probabilities(examples, batch_size):
            for values in probabilities.tolist():
                name = model.class_names[values.index(max(values))]
                where = (csv_cell(str(file)), row) if file else (csv_cell(str(examples[row])), "")
                writer.writerow([*where, csv_cell(name), *(f"{value:.6g}" for value in values)])
                row += 1
            done += len(probabilities)
            if bar:
                print(f"\r\x1b[K{done:,} of {total:,}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    return done
