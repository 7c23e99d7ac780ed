"""Losses and samplers in the training loops of other projects: the programs of the documentation, and what they train."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.pages import blocks, page

from imbalance.methods.standalone import EpochSampler
from imbalance.utils.torchvision_import import import_torchvision


@pytest.fixture
def epochs(monkeypatch) -> list[int]:
    """Return the epochs in which an `EpochSampler` is read, in order."""
    read, iterate = [], EpochSampler.__iter__

    def noting(self):
        read.append(self.epoch)
        return iterate(self)

    monkeypatch.setattr(EpochSampler, "__iter__", noting)
    return read


@pytest.fixture(scope="module")
def trainer_page(tmp_path_factory) -> dict:
    """Return the names after the first program of the page on the Trainer."""
    pytest.importorskip("transformers", "4.46")
    import_torchvision()
    names, folder = {}, tmp_path_factory.mktemp("trainer")
    code = blocks(page("how-to/hugging-face.md"), "python")[0]
    exec(code.replace('"runs/trainer"', f"{str(folder)!r}, disable_tqdm=True, dataloader_pin_memory=False"), names)
    return names


def test_the_trainer_learns_the_rare_group(trainer_page):
    """The attribute misleads in a tenth of the examples, whose groups have the weights of the others."""
    groups, weights = trainer_page["groups"], trainer_page["weights"]
    sums = [weights[groups == group].sum() for group in range(4)]
    torch.testing.assert_close(torch.stack(sums), torch.full((4,), len(groups) / 4))
    torch.testing.assert_close(trainer_page["weight_of_group"][groups], weights)
    assert trainer_page["trainer"].evaluate()["eval_worst_group_accuracy"] > 0.9


def test_accumulated_batches_are_one_batch(trainer_page):
    transformers, config = trainer_page["transformers"], trainer_page["config"]
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    arguments = partial(transformers.TrainingArguments, trainer_page["trainer"].args.output_dir, max_steps=2, optim="sgd",
                        learning_rate=0.1, remove_unused_columns=False, label_names=["labels"], save_strategy="no",
                        report_to="none", disable_tqdm=True, dataloader_pin_memory=False)  # fmt: skip
    weights = []
    for size, parts in ((16, 1), (4, 4)):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        transformers.Trainer(
            model,
            arguments(per_device_train_batch_size=size, gradient_accumulation_steps=parts),
            data_collator=trainer_page["collate"],
            train_dataset=trainer_page["examples"],
            compute_loss_func=trainer_page["weighted_loss"],
        ).train()
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_the_trainer_draws_new_rows_in_every_epoch(trainer_page, epochs):
    exec(blocks(page("how-to/hugging-face.md"), "python")[1], trainer_page)
    assert list(dict.fromkeys(epochs)) == [0, 1, 2, 3]
    drawn = np.bincount(trainer_page["groups"][trainer_page["sampler"].rows().numpy()])
    assert drawn.min() > 0.7 * drawn.max()
    assert trainer_page["trainer"].evaluate()["eval_worst_group_accuracy"] > 0.9


def test_lightning_learns_and_sets_the_epoch(epochs):
    import_torchvision()  # torchmetrics imports it
    pytest.importorskip("lightning")
    names = {}
    exec(blocks(page("how-to/lightning.md"), "python")[0], names)
    assert epochs == [0, 1, 2, 3, 4]
    targets, predicted = names["targets"], names["classifier"].network(names["inputs"]).argmax(1)
    assert min((predicted[targets == label] == label).float().mean() for label in (0, 1)) > 0.8
