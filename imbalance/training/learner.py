"""From a config to all that a run learns with: every section built, in the order in which data flows."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imbalance.config.experiment import Experiment, first_run
from imbalance.config.schema import bind, build, look_up, required_arguments
from imbalance.config.tags import tags_of
from imbalance.data import Dataset, load, normaliser
from imbalance.data.identity import digest
from imbalance.data.texts.tokens import bucketed
from imbalance.errors import BadInput
from imbalance.methods.context import FirstRun, GroupAssignment, RunContext, read_first_run
from imbalance.methods.group_inference.registry import GROUPS, with_environments
from imbalance.methods.heads.registry import HEADS
from imbalance.methods.losses import LOSSES
from imbalance.methods.mixing import MIXINGS, Mix
from imbalance.methods.objectives.base import Objective, as_objective
from imbalance.methods.objectives.registry import OBJECTIVES
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.weights import WEIGHTS
from imbalance.models import MODELS, preparation_of
from imbalance.training.distributed.processes import from_main, share_batch_statistics
from imbalance.training.optim import OPTIMIZERS, SCHEDULES
from imbalance.utils.budget import MemoryBudget
from imbalance.utils.memory import available_memory
from imbalance.utils.seeds import derived_seed, generator


@dataclass
class Learner:
    """All that a run learns with, on its device. What depends on the epoch is a function of it, and keeps no state."""

    accelerator: Accelerator
    dataset: Dataset
    data: dict[str, Any]  # its digest, on the main process
    context: RunContext
    sampler: Callable[[int], Tensor]  # the rows of train that an epoch draws, in order, on the CPU
    weights: Callable[[int], Tensor]  # (N,), of all of train
    mixing: Callable[[int, Tensor], Mix | None]  # see `make_mixing`
    loss: nn.Module
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float | Tensor  # `config.optim.lr`; of a stack of models, one each
    schedule: Callable[[float], float]
    normalise: Callable[[Tensor], Tensor]  # a batch as the data set has it → the model's input
    seed: int
    group_metrics: Mapping[str, float]  # metrics of how groups were found; empty where they are those of the data
    micro_batches: int  # that a batch is computed in, one after the other

    @property
    def network(self) -> nn.Module:
        """The model without what exchanges its gradients: with the same weights, and for one process alone.

        `accelerator.unwrap_model` would import torch's compiler to see whether the model is compiled.
        """
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model


def load_dataset(config: Experiment) -> Dataset:
    """What `config.data` and the seed say, on the CPU."""
    return load(config.data, config.data_dir, config.seed, preparation_of(config.model))


@dataclass(frozen=True)
class Source:
    """The data as the runs of one seed read them, which those that are trained at once share.

    dataset: on the CPU, with the groups that a method has found, and without what another holds out.
    on_device: the same, where it is trained on.
    """

    dataset: Dataset
    on_device: Dataset
    identity: dict[str, Any]
    found: GroupAssignment | None
    first: FirstRun | None


def make_source(
    config: Experiment, accelerator: Accelerator, directory: Path, dataset: Dataset | None = None
) -> Source:
    """See `make_learner`."""
    device, dtype = accelerator.device, getattr(torch, config.trainer.dtype)
    dataset = dataset or load_dataset(config)
    identity = digest(dataset) if accelerator.is_main_process else {}
    first = from_main(accelerator, lambda: read_first_run(directory / "first")) if first_run(config) else None
    in_data = dict(dataset=dataset, seed=config.seed, first=first)
    found = from_main(accelerator, lambda: build(GROUPS, config.groups, **in_data))
    if found:
        dataset = with_environments(dataset, found.environments)
    if of_section := tags_of(look_up(HEADS, config.head.name)).held_out:
        dataset = dataset.hold_out(of_section(config.head), config.seed)
    on_device = dataset.to(device, dtype, config.trainer.images_on_device)
    return Source(dataset, on_device, identity, found, first)


def make_learner(
    config: Experiment, accelerator: Accelerator, directory: Path, dataset: Dataset | None = None
) -> Learner:
    """Build every section of the config.

    Args:
        directory: of the run, which holds the first run of a two-stage method.
        dataset: what `load_dataset` returns, where it has been called for another run.
    """
    return learner_on(make_source(config, accelerator, directory, dataset), config, accelerator)


def learner_on(source: Source, config: Experiment, accelerator: Accelerator) -> Learner:
    """`make_learner` of data that are there."""
    device, dtype, dataset = accelerator.device, getattr(torch, config.trainer.dtype), source.dataset
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    seen = dataset.for_methods
    given = RunContext(
        seen.train.targets,
        seen.train.groups,
        seen.num_classes,
        seen.num_groups,
        seen.class_counts(seen.train),
        seen.group_counts(seen.train),
        labels=partial(seen.labels, seen.train),
        seed=config.seed,
        epochs=config.trainer.epochs,
        sampler=config.sampler,
        first=source.first,
    )
    of_train = vars(given)

    draw = bind(SAMPLERS, config.sampler, **of_train)
    lengths = dataset.train.inputs.lengths if dataset.bucket else None
    annealed = "epoch" in inspect.signature(draw).parameters

    def sampler(epoch: int) -> Tensor:
        chooser = generator(config.seed, "sampler", epoch)
        order = draw(generator=chooser, **(dict(epoch=epoch) if annealed else {}))
        if not dataset.bucket:
            return order
        chooser = generator(config.seed, "buckets", epoch)
        return bucketed(order, lengths, config.trainer.batch_size, dataset.bucket, chooser)

    weigh = bind(WEIGHTS, config.weights, **of_train)
    scheduled = "epoch" in inspect.signature(weigh).parameters
    constant = None if scheduled else weigh().to(device, dtype)

    def weights(epoch: int) -> Tensor:
        return weigh(epoch=epoch).to(device, dtype) if scheduled else constant

    loss = build(LOSSES, config.loss, **of_train).to(device, dtype)  # its buffers once, rather than in every step
    objective = as_objective(build(OBJECTIVES, config.objective, **of_train)).to(device)

    check_inputs(config, dataset)
    torch.manual_seed(config.seed)
    shape = dict(input_shape=dataset.input_shape, vocabulary=dataset.vocabulary, num_classes=dataset.num_classes)
    make = partial(build, MODELS, config.model, architecture=None, **shape)
    with MemoryBudget("config.model", available_memory()):
        model = objective.network(make)
    check_lengths(model, dataset)
    model = share_batch_statistics(model, accelerator).to(device, dtype, memory_format=layout)
    if config.trainer.compile != "no":
        check_graphs(config, dataset, accelerator)
        compile_graphs(model, objective, config.trainer.compile)
    optim = {key: value for key, value in config.optim.items() if key != "schedule"}
    optimizer = build(OPTIMIZERS, optim, parameters=model.parameters(), head_parameters=parameters_of_heads(model))
    schedule = bind(SCHEDULES, config.optim.schedule, epochs=config.trainer.epochs)
    # Not the optimiser: accelerate's wrapper costs more than a small model's step. And not the model where there is
    # nothing to prepare, which accelerate imports half of torch to find out.
    if accelerator.num_processes > 1 or config.trainer.mixed_precision != "no":
        model = accelerator.prepare(model)
    # From here on random numbers (dropout) differ between processes.
    torch.manual_seed(derived_seed(config.seed, "steps", accelerator.process_index))
    return Learner(
        accelerator,
        source.on_device,
        source.identity,
        given,
        sampler,
        weights,
        make_mixing(config, given, device, dtype),
        loss,
        objective,
        model,
        optimizer,
        config.optim.lr,
        schedule,
        normaliser(dataset, device, dtype, layout),
        config.seed,
        source.found.metrics if source.found else {},
        config.trainer.accumulation,
    )


def parameters_of_heads(model: nn.Module) -> list[nn.Parameter]:
    """Those of the last layer, and of that of a second network, which some methods train; none where no layer is `head`."""
    features = getattr(model, "features", None)
    networks = [model, *(part for part in model.children() if part is not features)]
    return [parameter for one in networks if hasattr(one, "head") for parameter in one.head.parameters()]


def check_graphs(config: Experiment, dataset: Dataset, accelerator: Accelerator) -> None:
    """Raise `BadInput` for CUDA graphs of what they are not for."""
    if config.trainer.compile == "reduce-overhead" and (dataset.vocabulary or accelerator.num_processes > 1):
        why = "batches of texts have many lengths" if dataset.vocabulary else "several processes exchange gradients"
        raise BadInput(
            f"config.trainer.compile: 'reduce-overhead' given; {why}, which CUDA graphs cannot; use 'default'"
        )


def compile_graphs(model: nn.Module, objective: Objective, mode: str) -> None:
    """Have torch compile what a step computes: the terms, model and loss included, as one graph, the value as another.

    And the model by itself, as it is evaluated. Each is compiled a second time at the first batch of another size, for
    every size from there on.

    With "reduce-overhead" a GPU is given a step's kernels at once, recorded as CUDA graphs: what a small model gains by.
    A recording is of one size, so each size is compiled for itself (an epoch has two); and what one returns lies where
    the next step's will, so the loop copies what it keeps. Evaluation has no such graphs: its outputs are kept.
    """
    model.compile()
    how = dict(mode=mode, dynamic=False) if mode == "reduce-overhead" else dict(mode=mode)
    objective.terms, objective.value = torch.compile(objective.terms, **how), torch.compile(objective.value, **how)


def check_inputs(config: Experiment, dataset: Dataset) -> None:
    """Raise `BadInput` where the model, or what mixes its inputs, is not for what the data set has."""
    for_texts, texts = "vocabulary" in required_arguments(look_up(MODELS, config.model.name)), dataset.vocabulary > 0
    if for_texts != texts and config.model.name != "pretrained":  # which is whatever its run was
        others = [
            name
            for name, model in MODELS.items()
            if ("vocabulary" in required_arguments(model)) == texts and name != "pretrained"
        ]
        raise BadInput(
            f"config.model.name: {config.model.name!r} takes {'texts' if for_texts else 'no texts'}, and this data set has "
            f"{'texts' if texts else 'none'}; for it there are {', '.join(others)}"
        )
    if texts and config.mix.name != "none":
        raise BadInput(f"config.mix.name: {config.mix.name!r} given; texts cannot be mixed, use 'none'")


def check_lengths(model: nn.Module, dataset: Dataset) -> None:
    """Raise `BadInput` for texts that are longer than what the model has places for."""
    positions = [module.positions for module in model.modules() if hasattr(module, "positions")]
    if positions and dataset.vocabulary:
        longest = max(int(getattr(dataset, name).inputs.lengths.max()) for name in ("train", "val", "test"))
        if longest > min(positions):
            raise BadInput(
                f"config.data.max_tokens: texts have up to {longest} tokens; config.model.pretrained has {min(positions)} places"
            )


def make_mixing(
    config: Experiment, given: RunContext, device: torch.device, dtype: torch.dtype
) -> Callable[[int, Tensor], Mix | None]:
    """From an epoch and its order, what is mixed with what; partners are places in the order, on the CPU.

    They come from the same batch. None where `config.mix` says so.
    """

    def mixing(epoch: int, order: Tensor) -> Mix | None:
        if config.mix.name == "none":
            return None
        chooser = generator(config.seed, "mixing", epoch)
        mixes = []
        for start, batch in enumerate(order.split(config.trainer.batch_size)):
            of_batch = dict(targets=given.targets[batch], groups=given.groups[batch], generator=chooser)
            mix = build(MIXINGS, config.mix, **vars(given) | of_batch)
            mixes.append(mix._replace(partners=start * config.trainer.batch_size + mix.partners))
        partners, shares, target_shares = (None if part[0] is None else torch.cat(part) for part in zip(*mixes))
        shares = shares.to(device, dtype)
        return Mix(partners, shares, shares if target_shares is None else target_shares.to(device, dtype))

    return mixing
