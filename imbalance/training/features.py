"""Compute features of the examples of a split: the inputs of the model's last layer, and further outputs of an objective."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.data import Split
from imbalance.data.images.augment import Augmentation, augment, draws
from imbalance.errors import BadInput, Diverged
from imbalance.methods.heads.probe import fit_head
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective
from imbalance.training.learner import Learner
from imbalance.training.oom_retry import with_smaller_batches
from imbalance.training.read_ahead import Crops, batch_reader, original_crop
from imbalance.training.state.finite import finite, listed_rows
from imbalance.utils.seeds import derived_seed


@torch.no_grad()
def features(learner: Learner, split: Split, view: int = 0, rows: slice = slice(None)) -> Tensor:
    """Return the (N, D) inputs of the model's last layer for the examples of a split, in evaluation mode.

    Args:
        view: 0 for inputs without augmentation; another number for inputs under the augmentations of training, whose
            random numbers are drawn from the seed of the run and this number. As in training, a random crop is cut out
            of the original image if images are decoded from their files.
        rows: row numbers of the examples, without a step; all by default.

    Raises:
        BadInput: `view` is not 0, and the data set has no augmentations.
        Diverged: a feature is not finite.
    """
    model = learner.evaluated_network.eval()
    body, (first, end, _) = cast(nn.Module, model.features), rows.indices(len(split))

    names: Sequence[Augmentation] = learner.dataset.augmentations if view else ()
    if view and not names:
        raise BadInput(
            "config.head.name: 'test_time' compares augmented views, and these data have no augmentations, so all views of an "
            "example are equal; use another head, or image files with names in config.data.augment"
        )
    seed, crops = derived_seed(learner.seed, "test view", view), None
    if crop := original_crop(split.inputs, names):
        indices = split.on_cpu["indices"]
        crops = Crops([seed], crop, indices, torch.zeros_like(indices))
        names = [name for name in names if name != crop]
    drawn = draws(split.indices, torch.zeros_like(split.indices), names, seed)

    def forward(size: int) -> Tensor:
        batches = [slice(start, min(end, start + size)) for start in range(first, end, size)]
        read, outputs = batch_reader(split.inputs, batches, crops), []
        for batch in batches:
            inputs = read(batch)
            if names:
                inputs = augment(cast(Tensor, inputs), names, [numbers[batch] for numbers in drawn])
            outputs.append(body(learner.normalise(inputs)))
        return torch.cat(outputs)

    with learner.accelerator.autocast():  # accelerate autocasts calls of the whole model only
        outputs, _ = with_smaller_batches(forward, learner.eval_batch_size)
    outputs = at_least_float32(outputs)
    if not finite([outputs]):
        bad = split.indices[first:end][~outputs.flatten(1).isfinite().all(1)].tolist()
        raise Diverged(
            f"non-finite features, although the weights are finite; examples (row numbers in the data): "
            f"{listed_rows(bad)}; check these examples, or use a smaller config.optim.lr"
        )
    return outputs


@torch.no_grad()
def extra_outputs(config: Experiment, learner: Learner, split: Split) -> dict[str, Tensor]:
    """Return the outputs of `Objective.extra_outputs` for a split; in a debug run, for its first batch only."""
    # If the objective saves none, the inputs need not be read
    if type(learner.objective).extra_outputs is Objective.extra_outputs:
        return {}
    model = learner.evaluated_network.eval()

    def forward(size: int) -> list[dict[str, Tensor]]:
        starts = range(0, len(split), size)
        batches = [slice(start, start + size) for start in (starts[:1] if config.debug else starts)]
        read = batch_reader(split.inputs, batches)
        return [
            learner.objective.extra_outputs(model, cast(Tensor, learner.normalise(read(batch)))) for batch in batches
        ]

    outputs, _ = with_smaller_batches(forward, learner.eval_batch_size)
    return {name: torch.cat([batch[name] for batch in outputs]).float() for name in outputs[0]}


def probed(learner: Learner) -> nn.Module:
    """Return the trained model with a new last layer, which is fitted to the classes that training left out.

    `Dataset.probe` has the examples of these classes.
    """
    probe, model = learner.dataset.probe, learner.evaluated_network
    assert probe is not None  # the caller has checked
    inputs = features(learner, probe.train)
    head = fit_head(inputs, probe.train.targets, learner.dataset.probe_strength)
    return nn.Sequential(cast(nn.Module, model.features), head)
