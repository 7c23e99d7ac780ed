"""XRM: cross-risk minimisation, which infers groups from the mistakes of two networks trained on halves of train."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Positive, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRICS, Tags, tagged
from imbalance.data import Dataset
from imbalance.data.images.augment import uniforms
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.methods.objectives.base import Objective, Pair, group_means
from imbalance.utils.seeds import derived_seed, generator

FLIP_RATE = "train/flip_rate"


class CrossRisk(Objective):
    """Train two networks, each on half of train; each network's confident predictions replace labels of the other half.

    Pezeshki, Bouchacourt, Ibrahim, Ballas, Vincent and Lopez-Paz, "Discovering Environments with XRM", ICML 2024,
    algorithm 1, as in the authors' code (github.com/facebookresearch/XRM). Each example is assigned at random to one
    network, which trains on it. A step minimises the sum over classes of the mean weighted loss of the examples that
    have the class as label at that step. Afterwards the label of each example in the batch may become the class that
    the other network predicts. The probability of this is (p − 1/K) · K / (K − 1), where p is the probability that the
    other network predicts for this class.

    The metric `train/flip_rate` is the share of training labels that have been replaced by another class. The authors
    choose the hyperparameters with the highest flip rate. Metrics of predictions are those of the first network. The
    objective reads no groups. It is for the first run of `config.groups.name="xrm"`; its networks are not meant to be
    used as classifiers.
    """

    tags = Tags(batched=False, measures=(FLIP_RATE,))  # it has a state for every example, so it cannot be stacked
    columns = ("rows", "losses_per_label", "held_out")
    in_first_half: Tensor
    targets: Tensor
    labels: Tensor
    steps: Tensor

    def __init__(self, targets: Tensor, num_classes: int, seed: int):
        super().__init__()
        self.num_classes, self.seed = num_classes, derived_seed(seed, "flips")
        in_first_half = torch.rand(len(targets), generator=generator(seed, "halves")) < 0.5
        # True for an example that the first network trains on.
        self.register_buffer("in_first_half", in_first_half, persistent=False)
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("labels", targets.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Pair(make(), twin=make())

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        first, twin = model(batch.inputs)
        in_first_half = self.in_first_half[batch.rows][:, None]
        held_in, held_out = first.where(in_first_half, twin), twin.where(in_first_half, first)
        every_label = torch.arange(self.num_classes, device=batch.targets.device)[:, None].expand(-1, len(batch.rows))
        return {
            "losses": batch.losses(loss, held_in),
            "logits": held_in,
            # With micro-batches these columns are computed twice, and `forward` changes labels between the two
            # computations. So compute the loss for every label, and let `forward` choose one.
            "losses_per_label": torch.stack(
                [batch._replace(targets=t).losses(loss, held_in) for t in every_label], dim=1
            ),
            "held_out": held_out.detach(),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        rows: Tensor,
        losses_per_label: Tensor,
        held_out: Tensor,
    ) -> Tensor:
        labels = self.labels[rows]
        label_losses = weights * losses_per_label.gather(1, labels[:, None]).squeeze(1)
        if self.training:
            confidence, guesses = held_out.double().softmax(1).max(1)
            chances = (confidence - 1 / self.num_classes) * self.num_classes / (self.num_classes - 1)
            flips = uniforms(self.seed, rows, self.steps.expand(len(rows)), 1).squeeze(1) < chances
            self.labels[rows] = torch.where(flips, guesses, labels)
            self.steps += 1
        means, _ = group_means(label_losses, labels, self.num_classes)
        return means.sum()

    def metrics(self) -> dict[str, float]:
        return {FLIP_RATE: (self.labels != self.targets).double().mean().item()}

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        return {"twin": cast(nn.Module, model.twin)(inputs)}  # a submodule of `Pair`


def xrm_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the run that `xrm` trains first, the training of the two networks, as a dictionary."""
    values = cross_entropy_baseline(config, config.groups.first_epochs)
    values["optim"]["lr"] = config.groups.lr
    return values | {"objective": {"name": "xrm"}, "score": FLIP_RATE}


def cross_mistakes(logits: Tensor, twin: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) environments: 1 if at least one of the two networks predicts an example wrongly, else 0.

    Args:
        logits: (N, K) of the first network.
        twin: (N, K) logits of the second network.
    """
    return ((logits.argmax(1) != targets) | (twin.argmax(1) != targets)).long()


@tagged(first_run=xrm_first_run, measures=(*INFERRED_GROUP_METRICS, FLIP_RATE))
def xrm(dataset: Dataset, first: FirstRun, *, first_epochs: Repeats, lr: Positive) -> GroupAssignment:
    """Infer two environments (mistakes of two networks; all other examples), and cross them with the classes.

    Pezeshki et al., "Discovering Environments with XRM", ICML 2024. A first run trains the two networks (`CrossRisk`)
    with the model, batches and optimiser of this run, and with the learning rate `lr`. An example of train, val or test
    is in environment 1 if at least one network predicts another class than its label. The environments of test are used
    for metrics only. The authors train group DRO with these groups, or sample by group, and select epochs by the
    accuracy of the worst inferred group of val. The metric `train/flip_rate` is that of the first run. As in the
    authors' code, the flip rate is set to 0 if all examples of a class in train or val are in one environment, so that
    such a run is not chosen. The inference reads no groups.

    Args:
        first_epochs: the number of epochs of the two networks. The paper trains 5,001 steps on Waterbirds and 1,001 on
            colored MNIST.
        lr: the learning rate of the two networks. The paper draws learning rates log-uniformly from 1e-5 to 1e-3, and
            chooses the one with the highest flip rate.
    """
    splits = {name: getattr(dataset, name).targets for name in ("train", "val", "test")}
    environments = {
        name: cross_mistakes(first.logits(name, targets), first.logits(name, targets, "twin"), targets)
        for name, targets in splits.items()
    }
    divided = all(
        len((2 * splits[name] + environments[name]).unique()) == 2 * len(splits[name].unique())
        for name in ("train", "val")
    )
    return GroupAssignment(environments, {FLIP_RATE: first.metrics[FLIP_RATE] if divided else 0.0})
