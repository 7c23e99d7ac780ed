"""Images that are decoded from their files: random crops of the originals, the same bits by any number of workers."""

import multiprocessing.forkserver
import os
import pickle
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_files import make_folder, save_image
from helpers.server import SERVER
from PIL import Image
from scipy.stats import kstest

from imbalance.cli.main import call
from imbalance.data import load
from imbalance.data.identity import digest
from imbalance.data.images import decode_pool, image_files, store
from imbalance.data.images.augment import crop_boxes, uniforms
from imbalance.data.images.decode import Recipe, decode, decode_crops
from imbalance.data.images.image_files import ImageFiles, worker_count, worker_loader
from imbalance.data.images.stored_images import Request, StoredImages, mapped_images
from imbalance.errors import BadInput
from imbalance.training.read_ahead import ReadAhead
from imbalance.utils.torchvision_import import import_torchvision

RECIPE = Recipe("RGB", (("convert", 0), ("shorter", 20), ("crop", 16)))
CPU = torch.device("cpu")
FOLDER = dict(
    name="folder", folder="birds", val_fraction=0.0, test_fraction=0.0, mode="RGB", convert=True, reduce=False, resize=20,
    size=16, images_from="files", augment=("inception_crop", "flip"),
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageFiles:
    """Return 24 image files of different sizes, with random crops of 8 to 100 % of the area."""
    assert SERVER
    multiprocessing.forkserver.ensure_running()  # with the modules that helpers/server.py names
    folder = tmp_path_factory.mktemp("files")
    names = [save_image(folder / f"{i}.png", (40 + i, 31 + 2 * i), seed=i).name for i in range(24)]
    return ImageFiles(folder, names, RECIPE, 0.08, np.zeros(24, np.uint32), torch.arange(24), CPU)


def requests(size: int, views: int = 1, rows: torch.Tensor | None = None) -> list[Request]:
    """Return requests for 24 images in batches of `size`, with the numbers of a crop for each of `views`."""
    rows = torch.arange(24) if rows is None else rows
    crops = torch.stack([uniforms(view, rows, rows * 0, 22) for view in range(views)])
    places = torch.arange(len(rows)).split(size)
    return [Request(rows[place], crops[:, place]) for place in places]


def read(images: ImageFiles, asked: list[Request]) -> torch.Tensor:
    return torch.cat(list(images.read(asked)), 1)


def test_grey_images_are_read_without_a_warning(tmp_path):
    Image.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30)).save(tmp_path / "grey.png")
    recipe = Recipe("L", RECIPE.steps)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = image_files.decoded(image_files.Order(str(tmp_path), ["grey.png"], recipe, 0.0, None))
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(pixels[0, 0], decode(tmp_path / "grey.png", recipe))


def test_a_crop_is_torchvisions_crop_of_the_original_image(tmp_path):
    """The photograph lies on its side; the crops are of the upright image."""
    functional = import_torchvision().transforms.functional
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((400, 300)).save(tmp_path / "photo.jpg", exif=turned)
    content, boxes, sizes = (tmp_path / "photo.jpg").read_bytes(), [(31, 5, 120, 90), (0, 0, 300, 400)], []

    def boxes_of(width: int, height: int):
        sizes.append((width, height))
        return boxes

    upright = Image.open(tmp_path / "photo.jpg").transpose(Image.Transpose.ROTATE_270)
    modes = import_torchvision().transforms.InterpolationMode
    for steps, mode in (
        ((("shorter", 64), ("crop", 56)), modes.BILINEAR),
        ((("square bicubic", 56),), modes.BICUBIC),
    ):
        crops = decode_crops(content, Recipe("RGB", steps), boxes_of)
        for crop, (left, top, wide, tall) in zip(crops, boxes, strict=True):
            expected = functional.resized_crop(upright, top, left, tall, wide, [56, 56], mode)
            assert (crop == np.asarray(expected).transpose(2, 0, 1)).all()
    # With "reduce" the small crop still needs all pixels, and a large crop is made of a quarter of the image's sides.
    whole = Recipe("RGB", (("shorter", 64), ("crop", 56)))
    reducing = whole._replace(steps=(("reduce", 0), *whole.steps))
    assert (decode_crops(content, reducing, boxes_of)[0] == decode_crops(content, whole, boxes_of)[0]).all()
    boxes = [(30, 20, 240, 250)]
    difference = np.subtract(*(decode_crops(content, recipe, boxes_of)[0].astype(int) for recipe in (reducing, whole)))
    assert 0 < np.abs(difference).mean() < 2
    assert set(sizes) == {(300, 400)}


def test_boxes_have_torchvisions_distribution_at_every_shape():
    transforms, rows = import_torchvision().transforms, torch.arange(2000)
    uniform = uniforms(3, rows, rows * 0, 22)
    torch.manual_seed(0)
    for width, height in ((50, 37), (30, 90)):
        boxes = torch.stack(crop_boxes(uniform, width, height, 0.08), 1).numpy()
        image = torch.zeros(3, height, width)
        theirs = [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
        for column, other in enumerate((1, 0, 3, 2)):  # left, top, width, height against top, left, height, width
            assert kstest(boxes[:, column], np.array(theirs)[:, other]).pvalue > 1e-3
    # No box of 99 % fits into a strip, so it is the one in the middle.
    for width, height in ((500, 20), (20, 500)):
        box = torch.cat(crop_boxes(uniform[:1], width, height, 0.99)).int().tolist()
        top, left, tall, wide = transforms.RandomResizedCrop.get_params(
            torch.zeros(3, height, width), [0.99, 1.0], [3 / 4, 4 / 3]
        )
        assert box == [left, top, wide, tall]


def test_any_number_of_workers_any_batches_and_repeats_give_the_same_bits(images, monkeypatch):
    results = []
    for workers, size in (("0", 24), ("0", 5), ("1", 7), ("4", 3)):
        monkeypatch.setenv("IMBALANCE_WORKERS", workers)
        results.append(read(images, requests(size, views=2)))
    assert results[0].shape == (2, 24, 3, 16, 16) and len(results[0].flatten(0, 1).unique(dim=0)) == 48
    assert all(torch.equal(result, results[0]) for result in results)
    order = torch.tensor([7, 3, 7, 0])
    again = read(images, requests(4, views=2, rows=order))
    assert torch.equal(again, results[0][:, order])  # the numbers of a crop are of the image, so both sevens are alike
    whole = torch.from_numpy(np.stack([decode(images.folder / f"{i}.png", RECIPE) for i in (5, 6)]))
    assert torch.equal(images[5:7], whole) and torch.equal(next(images.batches([torch.tensor([5, 6])])), whole)


def test_two_readers_take_turns_with_the_workers(images, monkeypatch):
    monkeypatch.setenv("IMBALANCE_WORKERS", "1")
    order, slices = torch.arange(24), [slice(start, start + 4) for start in range(0, 24, 4)]
    readers = [
        ReadAhead(images.subset(order.flip(0)) if turned else images, order, [order]) for turned in (False, True)
    ]
    for reader in readers:
        reader.start(slices)
    every = images[:]
    for batch_slice in slices:
        for turned, reader in enumerate(readers):
            (batch,) = reader.read(batch_slice, 0)
            assert torch.equal(batch, (every.flip(0) if turned else every)[batch_slice])


def test_a_held_batch_is_read_once_and_is_cut_into_micro_batches(images, monkeypatch):
    """Of two processes, each with every other example, and with partners."""
    order, partners = torch.arange(24).flip(0), torch.arange(24).roll(3)
    reader = ReadAhead(images, order, [torch.arange(24), partners])
    every, asked = images[:], []
    read_images = ImageFiles.read

    def counted(self: ImageFiles, requests):
        return read_images(self, (asked.append(request) or request for request in requests))

    monkeypatch.setattr(ImageFiles, "read", counted)
    reader.advance(slice(1, 13, 2))
    for part, positions in ((0, torch.arange(24)), (1, partners)):
        for piece in (slice(1, 13, 2), slice(1, 7, 2), slice(7, 13, 2), slice(13, 13, 2)):
            assert torch.equal(reader.read(piece, part)[0], every[order[positions[piece]]])
    assert len(asked) == 1
    assert torch.equal(reader.read(slice(12, 24, 2), 0)[0], every[order[12:24:2]])
    assert len(asked) == 2


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_image_that_cannot_be_read_is_one_line_and_the_workers_go_on(images, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("IMBALANCE_WORKERS", workers)
    (tmp_path / "bad.png").write_bytes((images.folder / "3.png").read_bytes()[:200])
    bad = replace(images, folder=tmp_path, paths=["bad.png"] * 12 + ["missing.png"] * 12)
    for rows, reason in (([3], r"bad\.png: damaged, or incomplete"), ([20], r"missing\.png: no such file")):
        with pytest.raises(
            BadInput, match=rf"^{tmp_path}/{reason}.*; the image could be read when the run began; put it back"
        ):
            read(bad, requests(1, rows=torch.tensor(rows)))
    assert torch.equal(read(images, requests(9)), read(replace(images), requests(24)))


def test_signals_that_stop_a_run_do_not_stop_its_workers_and_a_killed_worker_is_one_line(images, monkeypatch):
    """A terminal sends Ctrl-C to all processes, and Slurm sends its signals to them, too."""
    monkeypatch.setenv("IMBALANCE_WORKERS", "1")
    batches = images.read(requests(1))
    first = next(batches)
    (worker,) = worker_loader(1, False).loader._iterator._workers
    for signum in image_files.STOPS:
        os.kill(worker.pid, signum)
    assert torch.equal(torch.cat([first, *batches], 1), read(images, requests(24)))
    batches = images.read(requests(1))
    next(batches)
    monkeypatch.setattr(type(worker_loader(1, False).loader._iterator)._try_get_data, "__defaults__", (0.1,))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(BadInput, match=r"^a process that decodes images failed: .*; free some memory"):
        list(batches)
    assert torch.equal(read(images, requests(24))[:, :1], first)  # with a new worker


@pytest.mark.parametrize("number", ["", "two", "-1", "1.5", "99999"])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch, number):
    monkeypatch.setenv("IMBALANCE_WORKERS", number)
    with pytest.raises(BadInput, match=f"^IMBALANCE_WORKERS: {number!r} given in the environment; it must be a whole"):
        worker_count()


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.delenv("IMBALANCE_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(96))
    for world, workers in (("1", 16), ("8", 12), ("200", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", world)
        assert worker_count() == workers


def test_files_are_checked_once_and_have_the_identity_of_their_store(tmp_path, monkeypatch):
    make_folder(tmp_path)
    calls, run_chunks = [], store.run_chunks
    monkeypatch.setattr(store, "run_chunks", lambda function, *args, **more: calls.append(function.__name__) or run_chunks(function, *args, **more))  # fmt: skip
    files = load(FOLDER, str(tmp_path), 0)
    assert calls == ["decode_chunk"] and not list(tmp_path.glob("decoded/*/images.u8"))
    load(FOLDER, str(tmp_path), 0)
    os.utime(tmp_path / "birds" / "train" / "land" / "1.png")
    assert digest(load(FOLDER, str(tmp_path), 0)) == digest(files) and calls == ["decode_chunk", "read_chunk"]
    stored = load(FOLDER | dict(images_from="store"), str(tmp_path), 0)  # takes the place of the index
    assert digest(stored) == digest(files) and len(calls) == 3
    assert [path.name for path in tmp_path.glob("decoded/*/*.json")].count("index.json") == 0
    for name in ("train", "val", "test"):
        assert torch.equal(getattr(stored, name).inputs[:], getattr(files, name).inputs[:])
    assert digest(load(FOLDER, str(tmp_path), 0)) == digest(files) and len(calls) == 3
    save_image(tmp_path / "birds" / "train" / "land" / "1.png", seed=77)
    assert digest(load(FOLDER, str(tmp_path), 0)) != digest(files)
    (index,) = tmp_path.glob("decoded/*/index.json")
    index.write_text(index.read_text().replace("16", "17"))
    with pytest.raises(
        BadInput, match=r"index\.json: damaged .*; remove the folder .*, and the next run builds it again"
    ):
        load(FOLDER, str(tmp_path), 0)


def test_a_damaged_file_is_found_before_training_and_listed_by_verify(tmp_path, capsys):
    make_folder(tmp_path)
    path = tmp_path / "birds" / "val" / "water" / "2.png"
    path.write_bytes(path.read_bytes()[:150])
    flags = [f"--config.data.{key}={value}" for key, value in FOLDER.items() if key not in ("name", "augment")]
    command = ["--config=folder_erm", f"--config.data_dir={tmp_path}", f"--config.work_dir={tmp_path}", *flags]
    for argv in (["train", *command], ["data", "verify", *command], ["data", "describe", *command]):
        assert call(argv) == 2
        assert "val/water/2.png" in capsys.readouterr().err


@pytest.mark.parametrize("augment", [("pad_crop", "inception_crop"), ("inception_crop", "random_resized_crop")])
def test_a_random_crop_of_the_original_comes_first_and_alone(tmp_path, augment):
    make_folder(tmp_path)
    with pytest.raises(BadInput, match=r"^config\.data\.augment: \(.* must come first, and only once; put '"):
        load(FOLDER | dict(augment=augment), str(tmp_path), 0)
    load(FOLDER | dict(augment=augment, images_from="store"), str(tmp_path), 0)


def test_images_are_sent_to_another_process_without_their_pixels(images, tmp_path):
    pixels = np.arange(10 * 3 * 64 * 64, dtype=np.int64).astype(np.uint8).reshape(10, 3, 64, 64)
    pixels.tofile(tmp_path / "images.u8")
    stored = mapped_images(tmp_path / "images.u8", pixels.shape, np.zeros(10), torch.arange(10), CPU)
    content = pickle.dumps((stored, stored.subset(torch.tensor([3]))))
    assert len(content) < 2000
    both, one = pickle.loads(content)
    assert torch.equal(both[:], torch.from_numpy(pixels)) and torch.equal(one[:], both[3:4])
    assert torch.equal(pickle.loads(pickle.dumps(images))[:3], images[:3])
    in_memory = StoredImages(pixels, np.zeros(10), torch.arange(10), CPU)
    assert torch.equal(pickle.loads(pickle.dumps(in_memory))[:], both[:])
    content, elsewhere = pickle.dumps(images), pickle.dumps(replace(images, folder=Path("/nowhere")))
    (tmp_path / "images.u8").unlink()
    for lost in (pickle.dumps(stored), elsewhere):
        with pytest.raises(OSError, match="No such file"):
            pickle.loads(lost)


def test_a_list_of_many_files_shows_its_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store, "FILES_PER_CALL", 4)
    monkeypatch.setattr(store, "SECONDS_BETWEEN_LINES", 0.0)
    names = [save_image(tmp_path / f"{i}.png", seed=i).name for i in range(10)]
    stamps, problems = store.file_stamps(tmp_path, [*names, "absent.png"], str)
    assert [str(problem) for problem in problems] == ["10: absent.png: no such file"]
    assert stamps[:10, 0].tolist() == [(tmp_path / name).stat().st_size for name in names] and not stamps[10].any()
    assert f"{tmp_path}: looked at 4 of 11 files, 0 s left\n" in capsys.readouterr().err
    assert decode_pool.CHUNK  # decoding shows its own progress
