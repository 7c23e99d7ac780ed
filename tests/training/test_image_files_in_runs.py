"""Runs that decode each batch from the image files: alike by any number of workers and processes, and resumed to the bit."""

import itertools
import json
import multiprocessing.forkserver
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from examples import settings
from helpers.data_files import make_folder
from helpers.jobs import Job, at_call, worst_difference
from helpers.server import SERVER
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data.images import store
from imbalance.data.images.augment import AUGMENTATIONS, draw_ids, flip, uniforms
from imbalance.data.images.decode import Recipe, decode
from imbalance.data.images.image_files import ImageFiles, view_pixels, worker_loader
from imbalance.data.splits import Split
from imbalance.errors import BadInput, Interrupted
from imbalance.report.page.examples import render_example
from imbalance.training import loop
from imbalance.training.distributed.processes import start_accelerator
from imbalance.training.features import features
from imbalance.training.learner import Learner, make_learner
from imbalance.training.stacked.train import in_common
from imbalance.training.step import draw_epoch
from imbalance.utils.seeds import derived_seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with 24 training images, 8 of val and 8 of test."""
    assert SERVER
    multiprocessing.forkserver.ensure_running()  # with the modules that helpers/server.py names
    root = tmp_path_factory.mktemp("images")
    make_folder(root, parts=("train",), n=12)
    make_folder(root, parts=("val", "test"))
    return root


@pytest.fixture
def birds(folder, tmp_path) -> ConfigDict:
    """Return a config for these images, with six steps in two epochs."""
    config = load(ROOT / "configs" / "folder_erm.py")
    config.data_dir, config.work_dir = str(folder), str(tmp_path / "runs")
    config.data.update(
        folder="birds", val_fraction=0.0, test_fraction=0.0, resize=20, size=16, images_from="files",
        augment=("inception_crop", "flip", "color_jitter"),
    )  # fmt: skip
    config.model = create(name="mlp", hidden=(8,))
    config.trainer.update(
        epochs=2, batch_size=8, eval_batch_size=4, eval_every=1, channels_last=False, mixed_precision="no"
    )
    config.callbacks.update(select="last", checkpoint_minutes=5.0)
    return config


def learner_of(config: ConfigDict, directory: Path) -> Learner:
    config = validate(config)
    return make_learner(config, start_accelerator(config), directory)


def results(directory: Path) -> list[bytes]:
    """Return the numbers, the selected weights and the test logits of a run."""
    logits = np.load(directory / "predictions" / "test.npz")["logits"]
    weights = torch.load(directory / "checkpoints" / "selected.pt", weights_only=True)
    parts = [(directory / "metrics.jsonl").read_bytes(), logits.tobytes()]
    return [*parts, *(tensor.numpy().tobytes() for tensor in weights.values())]


def test_a_run_and_its_resumed_half_are_the_same_with_any_number_of_workers(birds, tmp_path, monkeypatch):
    """The run is stopped in the middle of the second epoch, and goes on with another number of workers."""
    alone = []
    for workers in ("0", "1", "4"):
        monkeypatch.setenv("IMBALANCE_WORKERS", workers)
        loop.train(birds, tmp_path / workers)
        alone.append(results(tmp_path / workers))
    assert alone[0] == alone[1] == alone[2]
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(birds, tmp_path / "twice")
    monkeypatch.setenv("IMBALANCE_WORKERS", "1")
    loop.train(birds, tmp_path / "twice")
    assert results(tmp_path / "twice") == alone[0]


def die_at(step: int, note: Path) -> None:
    """Kill this process at the call number `step` of `take_step`, after writing the number of its worker to `note`."""
    calls, take_step = itertools.count(1), loop.take_step

    def patched(*args):
        if next(calls) == step:
            (worker,) = worker_loader(1, False).loader._iterator._workers
            note.write_text(str(worker.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(*args)

    loop.take_step = patched


def test_a_killed_run_leaves_no_worker_and_resumes_to_the_bit(birds, tmp_path):
    """Each step is saved, and the process is killed without a chance to end its worker."""
    birds.callbacks.checkpoint_minutes = 1e-9
    birds.work_dir = str(tmp_path / "killed")
    job = Job(birds, target=partial(die_at, 5, tmp_path / "worker"), IMBALANCE_WORKERS="1")
    assert job.wait() == [-signal.SIGKILL], job.stderr()
    process, deadline = Path("/proc", (tmp_path / "worker").read_text()), time.monotonic() + 20
    while process.exists() and "Z (zombie)" not in (process / "status").read_text():
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.01)
    assert not (job.directory / "summary.json").exists()
    loop.train(birds, job.directory)
    loop.train(birds, tmp_path / "whole")
    assert results(job.directory) == results(tmp_path / "whole")


def count_stamps(notes: Path) -> None:
    """Append the rank of this process to `notes` whenever it looks at the image files."""
    file_stamps = store.file_stamps

    def patched(*args):
        with notes.open("a") as file:
            file.write(f"{os.environ['RANK']}\n")
        return file_stamps(*args)

    store.file_stamps = patched


@pytest.mark.parametrize("images_from", ["files", "store"])
def test_an_example_on_a_page_has_the_name_of_its_file(birds, tmp_path, images_from):
    """The file of this name has the class and the pixels of the example."""
    birds.data.update(images_from=images_from, augment=("flip",))
    split = learner_of(birds, tmp_path / "run").dataset.test
    recipe = Recipe("RGB", (("convert", 0), ("shorter", 20), ("crop", 16)))
    for row in range(len(split)):
        shown = render_example(split, row, {})
        path = Path(birds.data_dir) / "birds" / shown["file"]
        assert path.parts[-3:-1] == ("test", ("land", "water")[split.targets[row]])
        assert (decode(path, recipe) == split.inputs[row : row + 1][0].numpy()).all()


@pytest.mark.parametrize("images_from", ["files", "store"])
def test_two_processes_are_one_and_only_the_first_looks_at_the_files(birds, tmp_path, images_from):
    birds.data.images_from = images_from
    birds.trainer.dtype, birds.trainer.accumulation = "float64", 2
    loop.train(birds, tmp_path / "one")
    job = Job(birds, world=2, target=partial(count_stamps, tmp_path / "notes"), IMBALANCE_WORKERS="1")
    assert job.wait() == [0, 0], job.stderr() + job.stderr(1)
    assert worst_difference(tmp_path / "one", job.directory) < 1e-9
    assert (tmp_path / "notes").read_text() == "0\n"


def test_a_file_that_goes_missing_is_one_line_and_the_same_command_resumes(
    birds, tmp_path, monkeypatch, folder, capsys
):
    monkeypatch.setenv("IMBALANCE_WORKERS", "1")
    loop.train(birds, tmp_path / "whole")
    birds.callbacks.checkpoint_minutes = 1e-9
    (tmp_path / "config.json").write_text(json.dumps(birds.to_dict()))
    command = ["train", f"--config={tmp_path / 'config.json'}"]
    image = folder / "birds" / "train" / "land" / "3.png"
    with monkeypatch.context() as patch:
        at_call(patch, loop, "draw_epoch", 2, lambda: image.rename(tmp_path / "3.png"))
        assert call(command) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{image}: no such file; the image could be read when the run began; put it back")
    (tmp_path / "3.png").rename(image)
    assert call(command) == 0
    run = json.loads(capsys.readouterr().out.splitlines()[-1])["run_directory"]
    assert results(Path(run)) == results(tmp_path / "whole")


def read_alone(learner: Learner, split: Split, row: int, draw_id: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the input of one example, cropped out of its file and then flipped, without the reader."""
    crop, flipped = (
        uniforms(derived_seed(seed, name), split.indices[row : row + 1], draw_id, AUGMENTATIONS[name].count)
        for name in ("inception_crop", "flip")
    )
    images = split.inputs
    path = images.folder / images.paths[images.rows[row]]
    (pixels,) = view_pixels(path, images.recipe, 0.08, crop)
    return learner.normalise(flip(torch.from_numpy(pixels.copy())[None], flipped))


def test_the_views_of_a_head_are_crops_of_the_original_as_in_training(birds, tmp_path):
    """As in the authors' code of SADE, whose RandomResizedCrop gets the file's image at test time, too."""
    birds.data.augment = ("flip", "inception_crop")
    learner = learner_of(birds, tmp_path)
    test, body = learner.dataset.test, learner.evaluated_network.eval().features
    views = [features(learner, test, view) for view in (0, 1, 2)]
    for view in (1, 2):
        seed = derived_seed(learner.seed, "test view", view)
        inputs = [read_alone(learner, test, row, torch.zeros(1, dtype=torch.int64), seed) for row in range(len(test))]
        torch.testing.assert_close(views[view], body(torch.cat(inputs)).detach())
    torch.testing.assert_close(features(learner, test, 1, slice(3, 6)), views[1][3:6])
    assert not any(torch.allclose(views[i], views[j]) for i, j in ((0, 1), (1, 2)))


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_every_view_and_partner_is_the_crop_of_its_own_example(birds, tmp_path, mix):
    """Of the second epoch, of one process and of the second of two, and cut into micro-batches."""
    birds.data.augment = ("flip", "inception_crop")
    if mix == "mixup":
        birds.mix = create(name="mixup", alpha=1.0)
    else:
        birds.objective = create(name="supcon", **settings("objective", "supcon"))
    learner = learner_of(birds, tmp_path)
    epoch, order, train = draw_epoch(learner, 1), learner.sampler(1), learner.dataset.train
    images, views = train.inputs, learner.objective.views
    assert isinstance(images, ImageFiles) and views == (1 if mix == "mixup" else 2)
    ids, seeds = draw_ids(1, order), [0, derived_seed(0, "view", 1)][:views]

    def alone(position: int, view: int) -> torch.Tensor:
        return read_alone(learner, train, int(order[position]), ids[position : position + 1], seeds[view])

    positions = torch.arange(len(order))
    for batch_slice in (slice(8, 16), slice(8, 12), slice(17, 24, 2), slice(0, 24)):
        for view, batch in enumerate(epoch.images(batch_slice)):
            assert torch.equal(batch, torch.cat([alone(i, view) for i in positions[batch_slice].tolist()]))
        if epoch.mixed:
            (batch,) = epoch.mixed[1](batch_slice)
            partners = learner.mixing(1, order).partners[batch_slice].tolist()
            assert torch.equal(batch, torch.cat([alone(i, 0) for i in partners]))


def test_random_crops_of_the_files_do_not_move_to_the_device(birds, tmp_path):
    birds.trainer.images_on_device = True
    with pytest.raises(
        BadInput, match=r"^config\.trainer\.images_on_device: True given, but config\.data\.images_from='files'"
    ):
        loop.train(birds, tmp_path / "cropped")
    birds.data.augment = ("flip",)
    loop.train(birds, tmp_path / "whole")
    birds.trainer.images_on_device = False
    loop.train(birds, tmp_path / "files")
    birds.data.images_from = "store"
    loop.train(birds, tmp_path / "store")  # without a random crop the pixels are those of the store
    assert results(tmp_path / "whole") == results(tmp_path / "files") == results(tmp_path / "store")


def test_runs_with_random_crops_of_their_own_are_not_stacked(birds):
    birds.data.images_from, birds.data.augment = "store", ()
    assert in_common(validate(birds))
    birds.data.images_from = "files"
    assert in_common(validate(birds)) is None
