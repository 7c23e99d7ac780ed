"""Read batches of images from their original files, decoded anew each time by the worker processes of a DataLoader.

A random crop is cut out of the original image, at its full resolution, and not out of the smaller image of a store. The
caller draws the random numbers of a crop, so the pixels do not depend on the number of workers.

All data sets of a process share one set of workers. The workers hold no data: each `Order` names the files to decode. The
forkserver starts the workers, because a fork of a process with threads may hang.
"""

import atexit
import functools
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from imbalance.data.images.augment import crop_boxes
from imbalance.data.images.decode import (
    Recipe,
    decode_crops,
    end_with_parent,
    image_pixels,
    loaded,
    read_header,
    read_image,
)
from imbalance.data.images.stored_images import DiskImages, Request
from imbalance.errors import BadInput

WORKERS = "IMBALANCE_WORKERS"  # environment variable with the number of worker processes; 0 decodes in this process
MOST_WORKERS = 16  # by default; each holds a few decoded batches in memory
FEW_IMAGES = 256  # starting workers takes longer than decoding so few images
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # the signals that ask a run to stop
MEMORY = "free some memory, enlarge /dev/shm (docker run --shm-size=8g), or set a smaller number in IMBALANCE_WORKERS"


@dataclass(frozen=True)
class ImageFiles(DiskImages):
    """N images that are decoded from their files at each access; for the other fields see `DiskImages`.

    folder: the folder that the M `paths` are relative to.
    recipe: the steps that decode an image without a random crop.
    least_area: the least area of a random crop, as a share of the image; 0.0 without random crops.
    """

    folder: Path
    paths: Sequence[str]
    recipe: Recipe
    least_area: float
    checksums: np.ndarray
    rows: Tensor
    target: torch.device

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.recipe.shape

    def read(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield the images of each request, as `DiskImages.read` says; meanwhile worker processes decode the next batches."""
        workers = worker_count() if WORKERS in os.environ or len(self) > FEW_IMAGES else 0
        orders = map(self._order, requests)
        batches = worker_loader(workers, self.target.type == "cuda").decode(orders) if workers else map(decoded, orders)
        return map(self._sent, batches)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self._sent(decoded(self._order(Request(index))))[0]

    def as_tensor(self) -> Tensor:
        """Return all images as a tensor, as `DiskImages.as_tensor` does; raise `BadInput` also if there are random crops."""
        if self.least_area:
            raise BadInput(
                "config.trainer.images_on_device: True given, but config.data.images_from='files' cuts random crops out of the "
                "original images, which are too large for the device; use False, or config.data.images_from='store'"
            )
        return super().as_tensor()

    def _order(self, request: Request) -> "Order":
        rows: list[int] = self.rows[request.index].tolist()
        crops = None if request.crops is None else request.crops.numpy()
        return Order(str(self.folder), [self.paths[row] for row in rows], self.recipe, self.least_area, crops)

    def _sent(self, batch: "Tensor | Failure") -> Tensor:
        """Return a decoded batch on the target device; raise `BadInput` for a `Failure`."""
        if isinstance(batch, Failure):
            raise BadInput(
                f"{self.folder / batch.path}: {batch.reason}; the image could be read when the run began; put it back, "
                "and type the same command, which resumes the run"
            )
        return batch.to(self.target, non_blocking=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle these images so that a process without the folder raises OSError when it unpickles them."""
        fields = (self.folder, self.paths, self.recipe, self.least_area, self.checksums, self.rows, self.target)
        return existing_files, fields


def existing_files(folder: Path, *fields: Any) -> ImageFiles:
    """Return `ImageFiles(folder, *fields)`; raise `OSError` if this machine has no such folder."""
    folder.stat()
    return ImageFiles(folder, *fields)


class Order(NamedTuple):
    """A batch of images to decode, with all that a worker must know.

    folder: the folder that the B `paths` are relative to.
    recipe, least_area: see `ImageFiles`.
    crops: (V, B, R) random numbers: R for the crop of each image in each of V views; None to decode without random crops.
    """

    folder: str
    paths: list[str]
    recipe: Recipe
    least_area: float
    crops: np.ndarray | None


class Failure(NamedTuple):
    """An image that cannot be decoded: its path relative to the folder of its order, and the reason."""

    path: str
    reason: str


def decoded(order: Order) -> Tensor | Failure:
    """Return the (V, B, C, H, W) uint8 images of an order, or the `Failure` of the first image that cannot be decoded.

    An image that occurs twice with the same random numbers is decoded once.
    """
    crops, views = order.crops, 1 if order.crops is None else len(order.crops)
    images = torch.empty((views, len(order.paths), *order.recipe.shape), dtype=torch.uint8)
    if get_worker_info():
        images.share_memory_()  # here, where an error is reported to the parent process, and not in the queue's thread
    first: dict[tuple[str, bytes], int] = {}
    for i, path in enumerate(order.paths):
        uniform = None if crops is None else torch.from_numpy(crops[:, i])
        earlier = first.setdefault((path, b"" if uniform is None else uniform.numpy().tobytes()), i)
        if earlier < i:
            images[:, i] = images[:, earlier]
            continue
        try:
            pixels = view_pixels(Path(order.folder, path), order.recipe, order.least_area, uniform)
        except ValueError as error:
            return Failure(path, str(error))
        for view, view_image in enumerate(pixels):
            images[view, i] = torch.from_numpy(np.array(view_image, order="C"))  # a copy: Pillow's pixels are read-only
    return images


def view_pixels(path: Path, recipe: Recipe, least_area: float, uniform: Tensor | None) -> Sequence[np.ndarray]:
    """Return the (C, H, W) uint8 pixels of each view of an image file.

    Args:
        uniform: (V, R) random numbers of the random crops; None for one view without a random crop.

    Raises:
        ValueError: the file is missing or damaged.
    """
    content = read_image(path)
    if uniform is None:
        return [image_pixels(loaded(read_header(content), recipe.least_side), recipe)]

    def boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
        # One row at a time, because torch may round the elements of a longer tensor in another way.
        rows = (torch.cat(crop_boxes(row[None], width, height, least_area)).tolist() for row in uniform)
        return [cast(tuple[int, int, int, int], tuple(map(int, row))) for row in rows]

    return decode_crops(content, recipe, boxes)


def worker_count() -> int:
    """Return the number of worker processes of this process.

    The environment variable IMBALANCE_WORKERS sets the number. The default is the number of cores that this process may
    use, but at most `MOST_WORKERS`. Processes that a launcher has started on one machine divide the cores equally.

    Raises:
        BadInput: IMBALANCE_WORKERS does not hold a whole number.
    """
    text = os.environ.get(WORKERS)
    if text is None:
        shared_by = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // shared_by))
    if not text.isdecimal() or len(text) > 4:
        raise BadInput(
            f"{WORKERS}: {text!r} given in the environment; it must be a whole number of processes, such as 8"
        )
    return int(text)


class Decoder(TorchDataset):
    """Data set of torch that is indexed by orders, and returns the result of `decoded`."""

    def __getitem__(self, order: Order) -> Tensor | Failure:
        return decoded(order)


class Orders:
    """Sampler of torch that yields the orders to decode, which `WorkerLoader.decode` sets."""

    def __init__(self) -> None:
        self.orders: Iterable[Order] = ()

    def __iter__(self) -> Iterator[Order]:
        return iter(self.orders)


class WorkerLoader:
    """Worker processes that decode one sequence of orders after the other, through a DataLoader of torch.

    Args:
        workers: number of worker processes, at least 1.
        pin_memory: whether a thread copies the batches into pinned memory, from which a GPU copies them.
    """

    def __init__(self, workers: int, pin_memory: bool) -> None:
        import PIL.Image  # noqa: F401 (before the workers start, which then need not import it)

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.orders, self.turn = Orders(), 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # the user named the number
            self.loader: DataLoader[Any] = DataLoader(
                Decoder(),
                batch_size=None,
                sampler=cast(Any, self.orders),
                num_workers=workers,
                collate_fn=cast(Any, as_it_is),
                pin_memory=pin_memory,
                persistent_workers=True,
                multiprocessing_context=context,
                worker_init_fn=begin_worker,
                generator=torch.Generator(),  # else the loader would draw from the global generator
            )

    def decode(self, orders: Iterable[Order]) -> Iterator[Tensor | Failure]:
        """Yield the result of `decoded` for each of `orders`, in order; end early, without an error, once a later call of `decode` uses the workers.

        Raises:
            BadInput: a worker process ended, or has too little memory.
        """
        self.turn += 1
        turn, self.orders.orders = self.turn, orders
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the new processes inherit the blocked signals
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
                batches = iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if turn == 1:
            # At exit torch and `multiprocessing` end workers by a signal that these ignore, and then wait. So end them
            # before: `atexit` does so in most processes, and `Finalize` in those that `multiprocessing` has started.
            atexit.register(self.close)
            Finalize(None, self.close, exitpriority=0)
        while turn == self.turn:
            try:
                batch = next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:  # OSError: the worker ended while it sent a batch
                self.close()
                worker_loader.cache_clear()
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise BadInput(f"a process that decodes images failed: {reason}; {MEMORY}") from None
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Kill the workers, which keep nothing that could be lost."""
        batches = cast(Any, self.loader)._iterator
        if batches is not None:
            for worker in batches._workers:
                worker.kill()
                worker.join()
            batches._shutdown_workers()


@functools.cache
def worker_loader(workers: int, pin_memory: bool) -> WorkerLoader:
    """Return the one `WorkerLoader` of this process with these arguments; its workers live until the process ends."""
    return WorkerLoader(workers, pin_memory)


def as_it_is(batch: Tensor | Failure) -> Tensor | Failure:
    """Return `batch` unchanged: the `collate_fn` of a DataLoader whose items are whole batches."""
    return batch


def begin_worker(worker: int) -> None:
    """Make a new worker ignore the signals that ask the run to stop, and end when its parent process ends."""
    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)
    end_with_parent()
