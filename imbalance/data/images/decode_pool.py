"""Decode or read many image files, with one process for each core."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from imbalance.data.images.decode import ChunkResult, Recipe, decode_chunk, end_with_parent
from imbalance.data.problems import Problem
from imbalance.errors import BadInput
from imbalance.utils.workers import WorkerPool

CHUNK = 64  # images that a worker handles at a time


def run_chunks(
    function: Callable[..., ChunkResult], folder: Path, paths: Sequence[str], recipe: Recipe, title: str, **more: Path
) -> list[ChunkResult]:
    """Run `function` on chunks of `paths`, with one process for each core, and show progress.

    Args:
        function: `decode_chunk` or `read_chunk`.
        title: the text before the numbers in the progress line, such as "decoding images".
        more: further arguments of `function`.

    Returns:
        The result of each chunk, in the order of the paths.
    """
    starts = range(0, len(paths), CHUNK)
    workers = min(len(os.sched_getaffinity(0)), len(starts))
    calls = [dict(first=i, folder=folder, paths=paths[i : i + CHUNK], recipe=recipe, **more) for i in starts]
    if workers <= 1 or len(paths) <= 4 * CHUNK:  # starting processes takes longer than so few images
        return [function(**call) for call in calls]
    with WorkerPool(workers, end_with_parent) as pool:
        futures = [pool.submit(function, **call) for call in calls]
        try:
            show_progress(title, futures, len(paths))
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise BadInput(
                f"{title}: a worker process died; free some memory; if a script starts the run, it must do so inside "
                "`if __name__ == '__main__':`"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def show_progress(title: str, futures: list[Future[ChunkResult]], images: int) -> None:
    """Print `title` to stderr and wait for the futures; on a terminal, show progress.

    Args:
        futures: the chunks of images that worker processes decode or read.
        images: the number of images in all futures together.
    """
    started, bar = time.monotonic(), sys.stderr.isatty()
    print(f"{title}: {images:,} images", file=sys.stderr, flush=True)
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        if bar:
            seconds = time.monotonic() - started
            left = seconds / done * (len(futures) - done)
            line = f"{done * CHUNK / seconds:,.0f} images/s, {100 * done / len(futures):.0f} %, {left:.0f} s left"
            print(f"\r\x1b[K{line}", end="\r" if done == len(futures) else "", file=sys.stderr, flush=True)


def checksum_pairs(results: Sequence[ChunkResult]) -> np.ndarray:
    """Join the results of all chunks: return (N, 2) uint32, the CRC-32 of each file and the CRC-32 of its pixels."""
    return np.array([pair for pairs, _ in results for pair in pairs], dtype=np.uint32).reshape(-1, 2)


def file_problems(results: Sequence[ChunkResult], where: Callable[[int], str], paths: Sequence[str]) -> list[Problem]:
    """Return a problem for each file that `run_chunks` could not read or decode.

    Args:
        results: the results of `run_chunks` on `paths`.
        where: a function from a position in `paths` to the metadata file and line that list this image, as text.
    """
    return [Problem(f"{where(row)}: {paths[row]}", reason) for _, wrong in results for row, reason in wrong]


def check_images(
    folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]
) -> tuple[np.ndarray, list[Problem]]:
    """Decode every image to check it, without storing the pixels.

    Args:
        where: a function from a position in `paths` to the metadata file and line that list this image, as text.

    Returns:
        The (N,) CRC-32 of the pixels of each image, 0 if it cannot be decoded; and a problem for each image that cannot
        be decoded.
    """
    results = run_chunks(decode_chunk, folder, paths, recipe, f"checking {folder}")
    return checksum_pairs(results)[:, 1], file_problems(results, where, paths)
