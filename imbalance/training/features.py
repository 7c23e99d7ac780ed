"""What is kept of a network for what comes after it: what its last layer sees of a split, and a new last layer on that."""

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.data import Split
from imbalance.errors import Diverged
from imbalance.methods.heads.probe import fit_head
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective
from imbalance.training.learner import Learner
from imbalance.training.state.finite import finite, shortened


@torch.no_grad()
def features(config: Experiment, learner: Learner, split: Split) -> Tensor:
    """(N, D) what the model's last layer sees of a split, in evaluation mode."""
    model, size = learner.network.eval(), config.trainer.eval_batch_size
    batches = (slice(start, start + size) for start in range(0, len(split), size))
    with learner.accelerator.autocast():  # which is on the model as a whole
        found = torch.cat([model.features(learner.normalise(split.inputs[batch])) for batch in batches])
    found = at_least_float32(found)
    if not finite([found]):
        bad = split.indices[~found.flatten(1).isfinite().all(1)].tolist()
        raise Diverged(f"non-finite features, of finite weights; examples (source rows): {shortened(bad)}")
    return found


@torch.no_grad()
def extra_outputs(config: Experiment, learner: Learner, split: Split) -> dict[str, Tensor]:
    """(N, K) each: what the objective leaves of a split for a later run; of a debug run, of one batch."""
    if type(learner.objective).extra_outputs is Objective.extra_outputs:  # nothing, for which no image need be read
        return {}
    model, size = learner.network.eval(), config.trainer.eval_batch_size
    starts = range(0, len(split), size)
    batches = (slice(start, start + size) for start in (starts[:1] if config.debug else starts))
    parts = [learner.objective.extra_outputs(model, learner.normalise(split.inputs[batch])) for batch in batches]
    return {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}


def probed(config: Experiment, learner: Learner) -> nn.Module:
    """The model's features under a new head, fitted to classes that they were not trained for (`Dataset.probe`)."""
    probe, model = learner.dataset.probe, learner.network
    inputs = features(config, learner, probe.train)
    return nn.Sequential(model.features, fit_head(inputs, probe.train.targets, learner.dataset.probe_strength))
