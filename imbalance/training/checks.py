"""Check that the config, the data set and the model of a run fit together."""

from collections.abc import Callable
from typing import cast

from accelerate import Accelerator
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.metric_names import check_labels
from imbalance.config.schema import look_up, required_arguments
from imbalance.data import Dataset
from imbalance.errors import BadInput
from imbalance.methods.attributes import check_combinations
from imbalance.methods.context import RunContext
from imbalance.methods.heads.registry import HEADS
from imbalance.methods.mixing import check_lisa_groups
from imbalance.methods.objectives.base import ENVIRONMENTS_BY_ATTRIBUTE
from imbalance.methods.prior import training_prior
from imbalance.models import MODELS


def check_last_layer_alone(config: Experiment, model: nn.Module, dataset: Dataset, accelerator: Accelerator) -> None:
    """Raise `BadInput` unless one process trains only a linear last layer, whose inputs are the same in every epoch."""
    head = getattr(model, "head", None)
    own = set(map(id, head.parameters())) if type(head) is nn.Linear else set()
    name = f"config.optim.name: {config.optim.name!r} given"
    if not own or any(parameter.requires_grad and id(parameter) not in own for parameter in model.parameters()):
        raise BadInput(
            f"{name}, which trains a linear last layer alone, but config.model.name={config.model.name!r} trains other layers; "
            "use model.name='linear', or a pretrained network with frozen=True; or optim.name='sgd'"
        )
    if dataset.augmentations:
        raise BadInput(f"{name}, which needs inputs that stay the same; use config.data.augment=()")
    if accelerator.num_processes > 1:
        raise BadInput(f"{name}, which trains in one process; start the run without torchrun or accelerate launch")


def check_micro_batches(config: Experiment, smallest_batch: int) -> None:
    """Raise `BadInput` if splitting a batch gives a micro-batch of fewer than `smallest_batch` examples."""
    size, parts = config.trainer.batch_size, config.trainer.accumulation
    if size >= smallest_batch * parts:
        return
    if size >= smallest_batch:
        key, given, rule = "accumulation", parts, f"at most {size // smallest_batch}"
    else:
        key, given, rule = "batch_size", size, f"at least {smallest_batch}"
    raise BadInput(
        f"config.trainer.{key}: {given} given; it must be {rule}, as the batch normalisation of the model needs "
        f"{smallest_batch} examples at a time"
    )


def check_data(config: Experiment, dataset: Dataset) -> None:
    """Check the data set against the config.

    Raises:
        BadInput: a metric in the config names a class or group that the data set lacks, or there are fewer training
            examples than `config.trainer.accumulation`.
    """
    for key, name in (("score", config.score), ("callbacks.monitor", config.callbacks.monitor)):
        evaluated = dataset.eval_dataset
        names = evaluated.class_names, evaluated.group_names, evaluated.evaluation_names
        check_labels(key, name, *names, has_parity=evaluated.crossed_groups is not None)
    if config.trainer.accumulation > len(dataset.train):
        raise BadInput(
            f"config.trainer.accumulation: {config.trainer.accumulation} given; it must be at most {len(dataset.train)}, "
            "the number of training examples, as every micro-batch needs an example"
        )


def check_attributes(config: Experiment, context: RunContext) -> None:
    """Raise `BadInput` if the objective or the mixing needs attributes, and the groups of train are not class × attribute."""
    targets, groups, num_classes, num_groups = context.targets, context.groups, context.num_classes, context.num_groups
    if config.objective.get("environments") == "attribute":
        check_combinations(ENVIRONMENTS_BY_ATTRIBUTE, targets, groups, num_groups // num_classes, "use 'group'")
    if config.mix.name == "lisa":
        check_lisa_groups(targets, groups, num_classes, num_groups)


def check_prior(config: Experiment, context: RunContext, weights: Callable[[int], Tensor], loss: nn.Module) -> None:
    """Raise `BadInput` if the head needs the effective prior of training, and training by this config has no such prior."""
    if config.debug or "training_prior" not in required_arguments(look_up(HEADS, config.head.name)):
        return
    if isinstance(reason := training_prior(config, context, weights, loss), str):
        raise BadInput(
            f"config.head.name: {config.head.name!r} given, which needs the effective prior of training, and there is none: "
            f"{reason}; use another head, such as 'temperature'"
        )


def check_graphs(config: Experiment, dataset: Dataset, accelerator: Accelerator) -> None:
    """Raise `BadInput` if the config asks for CUDA graphs, but the data are texts or there are several processes."""
    if config.trainer.compile == "reduce-overhead" and (dataset.vocabulary or accelerator.num_processes > 1):
        why = (
            "batches of many lengths, as texts have"
            if dataset.vocabulary
            else "the exchange of gradients by several processes"
        )
        raise BadInput(
            f"config.trainer.compile: 'reduce-overhead' given; CUDA graphs cannot record {why}; use 'default'"
        )


def check_inputs(config: Experiment, dataset: Dataset) -> None:
    """Raise `BadInput` if the model or the mixing cannot take the inputs of the data set."""
    for_texts, texts = "vocabulary" in required_arguments(look_up(MODELS, config.model.name)), dataset.vocabulary > 0
    if for_texts != texts and config.model.name != "pretrained":  # a pretrained model may take images or texts
        others = [
            name
            for name, model in MODELS.items()
            if ("vocabulary" in required_arguments(model)) == texts and name != "pretrained"
        ]
        raise BadInput(
            f"config.model.name: {config.model.name!r} takes {'texts' if for_texts else 'no texts'}, but this data set has "
            f"{'texts' if texts else 'none'}; use one of {', '.join(others)}"
        )
    if texts and config.mix.name != "none":
        raise BadInput(f"config.mix.name: {config.mix.name!r} given; texts cannot be mixed, use 'none'")


def check_lengths(model: nn.Module, dataset: Dataset) -> None:
    """Raise `BadInput` if a text has more tokens than the model has positions."""
    positions = [cast(int, module.positions) for module in model.modules() if hasattr(module, "positions")]
    if positions and dataset.vocabulary:
        longest = max(int(getattr(dataset, name).inputs.lengths.max()) for name in ("train", "val", "test"))
        if longest > min(positions):
            raise BadInput(
                f"config.data.max_tokens: texts have up to {longest} tokens, and config.model.pretrained has {min(positions)} "
                f"positions; use config.data.max_tokens={min(positions)}"
            )
