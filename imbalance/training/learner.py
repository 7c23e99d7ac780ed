"""Learner: the data set, the methods and the model that a config names, built for a run."""

import inspect
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from imbalance.config.experiment import Experiment, first_run, takes_full_batches
from imbalance.config.schema import bind, build, config_messages, look_up
from imbalance.config.tags import tags_of
from imbalance.data import LISTINGS, Dataset, load, normaliser
from imbalance.data.identity import digest
from imbalance.data.texts.tokens import Tokens, bucketed
from imbalance.errors import BadInput
from imbalance.methods.batch import Inputs
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
from imbalance.models.adapters import ADAPTERS
from imbalance.models.artifact import prepared_as_in_run
from imbalance.models.depth import layers_above
from imbalance.training.checks import (
    check_attributes,
    check_graphs,
    check_inputs,
    check_last_layer_alone,
    check_lengths,
    check_micro_batches,
    check_prior,
)
from imbalance.training.distributed.processes import from_main, on_every_process, share_batch_statistics
from imbalance.training.distributed.sharding import check_sharding, checkpoint_activations, shard, skeleton_of
from imbalance.training.ema import average_weights
from imbalance.training.optim import OPTIMIZERS
from imbalance.training.own_code import (
    check_outputs,
    check_parts,
    check_returned,
    check_rows,
    check_views_and_columns,
    check_weights,
    own_errors,
)
from imbalance.training.schedules import SCHEDULES
from imbalance.training.state.registry import Stateful
from imbalance.utils.budget import MemoryBudget
from imbalance.utils.memory import available_memory
from imbalance.utils.seeds import derived_seed, generator


@dataclass
class Learner:
    """Data set, methods, model and optimiser of a run, on its device.

    Epoch-dependent parts (sampler, weights, mixing, schedule) are stateless functions of the epoch.

    data: digest of the data set; empty on processes other than the main one.
    sampler: function from an epoch to the row numbers of train that the epoch draws, in order, on the CPU.
    weights: function from an epoch to the (N,) importance weights of all examples of train.
    mixing: function from an epoch and the row numbers that it draws to the `Mix` of these examples; see `make_mixing`.
    rate: learning rate, `config.optim.lr`; for stacked models, a tensor with the learning rate of each.
    schedule: function from an epoch, which may be a fraction, to the factor on the learning rate.
    normalise: function from a batch of the data set to the input of the model.
    group_metrics: metrics of the group inference, by name; empty without group inference.
    ema: network with averaged weights; None if `config.trainer.ema_decay` is 0.
    skeleton: copy of a sharded model without its parameters, into which they are gathered at the end; None without sharding.
    micro_batches: number of micro-batches into which a batch is split.
    smallest_batch: fewest examples that the model can be trained on at a time; see `smallest_trainable_batch`.
    eval_batch_size: number of examples in a batch of an evaluation.
    records_graphs: whether CUDA graphs compute the steps, so that a step overwrites the tensors of the step before.
    """

    accelerator: Accelerator
    dataset: Dataset
    data: dict[str, Any]
    context: RunContext
    sampler: Callable[[int], Tensor]
    weights: Callable[[int], Tensor]
    mixing: Callable[[int, Tensor], Mix | None]
    loss: nn.Module
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float | Tensor
    schedule: Callable[[float], float]
    normalise: Callable[[Inputs], Inputs]
    seed: int
    group_metrics: Mapping[str, float]
    micro_batches: int
    smallest_batch: int
    eval_batch_size: int
    records_graphs: bool
    ema: nn.Module | None
    skeleton: nn.Module | None

    @property
    def network(self) -> nn.Module:
        """Return the model without the DistributedDataParallel around it; the weights are the same tensors.

        `accelerator.unwrap_model` is not used, because it imports torch's compiler.
        """
        return unwrap(self.model)

    @property
    def evaluated_part(self) -> str:
        """Return the name, in `parts`, of the network that is evaluated and saved as the result: "model" or "ema"."""
        return "ema" if self.ema else "model"

    @property
    def evaluated_network(self) -> nn.Module:
        """Return the network that is evaluated, selected and saved as the result."""
        return cast(nn.Module, self.parts[self.evaluated_part])

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return every stateful part that a step changes, by its name in checkpoints (`training.state.registry`)."""
        parts = {
            "model": self.network,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,  # scales fp16 gradients
            "objective": self.objective,
            "ema": self.ema,
        }
        return {name: part for name, part in parts.items() if part is not None}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel, or `model` itself if it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def load_dataset(config: Experiment, accelerator: Accelerator | None = None) -> Dataset:
    """Load the data set of `config.data` with the seed of the config, on the CPU.

    Only the main process lists image files and checks each of them; it sends the data set to all other processes. A
    process on a machine that lacks a folder of the main process loads the data set itself.

    Args:
        accelerator: the accelerator of the run; None to load in this process alone.
    """

    def load_here() -> Dataset:
        return load(config.data, config.data_dir, config.seed, preparation_of(config.model))

    if accelerator is None or accelerator.num_processes == 1 or config.data.name not in LISTINGS:
        return load_here()
    dataset = None

    def load_for_all() -> bytes:
        nonlocal dataset
        dataset = load_here()
        return pickle.dumps(dataset)

    content = from_main(accelerator, load_for_all)
    if dataset is None:
        with suppress(OSError):  # this machine lacks a folder of the main process
            dataset = cast(Dataset, pickle.loads(content))
    return dataset or load_here()


@dataclass(frozen=True)
class Source:
    """Loaded data set, with groups inferred if the config asks for it; stacked runs with the same seed share one `Source`.

    dataset: data set on the CPU, with the inferred groups as groups, and without held-out examples.
    on_device: the same data set on the device of the run.
    identity: digest of the data set before groups were inferred; empty on processes other than the main one.
    assignment: inferred groups; None without group inference.
    first: results of the first run of a two-stage method; None without such a method.
    """

    dataset: Dataset
    on_device: Dataset
    identity: dict[str, Any]
    assignment: GroupAssignment | None
    first: FirstRun | None


def make_source(
    config: Experiment,
    accelerator: Accelerator,
    directory: Path,
    dataset: Dataset | None = None,
    first: FirstRun | None = None,
) -> Source:
    """Load the data set, and infer groups and hold out examples if the config asks for that.

    Args:
        directory: run directory, which holds the first run of a two-stage method.
        dataset: data set, if the caller has loaded it already.
        first: results of the first run, if they are not in the run directory.
    """
    device, dtype = accelerator.device, getattr(torch, config.trainer.dtype)
    dataset = prepared_as_in_run(config.model, dataset or load_dataset(config, accelerator))
    identity = digest(dataset) if accelerator.is_main_process else {}
    data_of: Callable[..., Dataset] | None = tags_of(look_up(OBJECTIVES, config.objective.name)).data
    dataset = data_of(dataset, config.objective, config.seed) if data_of else dataset
    if first is None and first_run(config):
        first = on_every_process(accelerator, lambda: read_first_run(directory / "first"))
    available = dict(dataset=dataset, seed=config.seed, first=first)
    assignment: GroupAssignment | None = from_main(accelerator, lambda: build(GROUPS, config.groups, **available))
    needed = "a GroupAssignment, or None for the groups of the data"
    check_returned(config, "groups", assignment, (GroupAssignment, type(None)), needed)
    if assignment:
        dataset = with_environments(dataset, assignment.environments)
    if held_out_fraction := tags_of(look_up(HEADS, config.head.name)).held_out:
        dataset = dataset.hold_out(held_out_fraction(config.head), config.seed)
    on_device = dataset.to(device, dtype, config.trainer.images_on_device)
    return Source(dataset, on_device, identity, assignment, first)


def make_learner(
    config: Experiment,
    accelerator: Accelerator,
    directory: Path,
    dataset: Dataset | None = None,
    first: FirstRun | None = None,
) -> Learner:
    """Load the data set, and build the methods, the model and the optimiser that the config names.

    Args:
        directory: run directory, which holds the first run of a two-stage method.
        dataset: data set, if the caller has loaded it already.
        first: results of the first run, if they are not in the run directory.
    """
    return learner_on(make_source(config, accelerator, directory, dataset, first), config, accelerator)


def learner_on(source: Source, config: Experiment, accelerator: Accelerator) -> Learner:
    """Build the learner of a config for a loaded data set."""
    device, dtype, dataset = accelerator.device, getattr(torch, config.trainer.dtype), source.dataset
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    methods_dataset = dataset.for_methods
    context = RunContext(
        methods_dataset.train.targets,
        methods_dataset.train.groups,
        methods_dataset.num_classes,
        methods_dataset.num_groups,
        methods_dataset.class_counts(methods_dataset.train),
        methods_dataset.group_counts(methods_dataset.train),
        labels=partial(methods_dataset.labels, methods_dataset.train),
        input_shape=dataset.input_shape,
        seed=config.seed,
        epochs=config.trainer.epochs,
        sampler=config.sampler,
        first=source.first,
        powers=source.assignment.powers if source.assignment else None,
    )
    available = vars(context)

    full_batches = takes_full_batches(config)
    sampler = (
        (lambda epoch: torch.arange(len(dataset.train))) if full_batches else make_sampler(config, context, dataset)
    )
    weights = make_weights(config, context, device, dtype)
    loss: nn.Module = build(LOSSES, config.loss, **available)
    check_returned(config, "loss", loss, nn.Module, "an nn.Module that is called as loss(logits, targets, groups)")
    loss = loss.to(device, dtype)  # move the buffers once, rather than in every step
    with config_messages("objective"):
        reduction = build(OBJECTIVES, config.objective, loss=loss, **available)
    needed = "an Objective, or a function of losses, weights and groups"
    check_returned(config, "objective", reduction, Callable, needed)
    objective = as_objective(reduction).to(device)
    check_views_and_columns(config, objective)
    check_attributes(config, context)

    if full_batches and not getattr(loss, "is_convex", False):
        raise BadInput(
            f"config.loss.name: {config.loss.name!r} given, which is not convex with these values, or does not say so by an "
            f"attribute is_convex=True; config.optim.name={config.optim.name!r} needs a convex loss; use 'cross_entropy'"
        )
    check_prior(config, context, weights, loss)
    check_inputs(config, dataset)
    torch.manual_seed(config.seed)
    shape = dict(input_shape=dataset.input_shape, vocabulary=dataset.vocabulary, num_classes=dataset.num_classes)

    def make_model() -> nn.Module:
        network: nn.Module = build(MODELS, config.model, architecture=None, **shape)
        needed = "an nn.Module with the parts `features` and `head`, as `imbalance.models.with_head` builds"
        check_returned(config, "model", network, nn.Module, needed)
        check_parts(config, "model", network, needed)
        network = build(ADAPTERS, config.adapter, network=network)
        check_returned(config, "adapter", network, nn.Module, needed)
        check_parts(config, "adapter", network, needed)
        return network

    with MemoryBudget("config.model", available_memory()):
        model = objective.network(make_model)
    check_lengths(model, dataset)
    model = share_batch_statistics(model, accelerator)
    model = model.to(device, dtype, memory_format=layout)  # pyright: ignore[reportCallIssue] (torch's stub lacks it)
    normalise = cast(Callable[[Inputs], Inputs], normaliser(dataset, device, dtype, layout))
    inputs = source.on_device.train.inputs
    first_input = normalise(inputs.index_select(0, torch.zeros(1, dtype=torch.long, device=inputs.device)))
    smallest_batch = smallest_trainable_batch(model, first_input, accelerator)
    check_micro_batches(config, smallest_batch)
    check_outputs(config, source.on_device, model, loss, objective, normalise)
    if config.trainer.compile != "no":
        check_graphs(config, dataset, accelerator)
        compile_graphs(model, objective, config.trainer.compile)
    if full_batches:
        check_last_layer_alone(config, model, dataset, accelerator)
    check_sharding(config, model)
    is_sharded = config.trainer.shard and accelerator.num_processes > 1
    skeleton = skeleton_of(model) if is_sharded else None
    if config.trainer.activation_checkpointing:
        checkpoint_activations(model)
    if is_sharded:
        shard(model, accelerator)
    optim = {key: value for key, value in config.optim.items() if key != "schedule"}
    optimizer: torch.optim.Optimizer = build(
        OPTIMIZERS,
        optim,
        **available,
        parameters=model.parameters(),
        head_parameters=head_parameters(model),
        layers_above=lambda: layers_above(model),
    )
    check_returned(config, "optim", optimizer, torch.optim.Optimizer, "an optimiser of torch")
    for group in optimizer.param_groups if is_sharded else ():
        group["fused"] = False  # torch has no fused SGD for sharded parameters
    # accelerate does not prepare the optimizer, because its wrapper costs more than a small model's step. It prepares
    # the model only for several processes or mixed precision, because preparing it imports half of torch.
    if accelerator.num_processes > 1 or config.trainer.mixed_precision != "no":
        # A sharded model exchanges gradients itself, so it must not be wrapped
        model = accelerator.prepare_model(model, evaluation_mode=is_sharded)
    # From here on the random numbers of dropout must differ between processes, which have different examples.
    torch.manual_seed(derived_seed(config.seed, "steps", accelerator.process_index))
    return Learner(
        accelerator,
        source.on_device,
        source.identity,
        context,
        sampler if smallest_batch == 1 else without_single_examples(sampler, config.trainer.batch_size),
        weights,
        make_mixing(config, context, device, dtype),
        loss,
        objective,
        model,
        optimizer,
        config.optim.get("lr", 1.0),
        make_schedule(config),
        normalise,
        config.seed,
        source.assignment.metrics if source.assignment else {},
        config.trainer.accumulation,
        smallest_batch,
        config.trainer.eval_batch_size,
        config.trainer.compile == "reduce-overhead",
        average_weights(unwrap(model), optimizer, ema_decay) if (ema_decay := config.trainer.ema_decay) else None,
        skeleton,
    )


def make_sampler(config: Experiment, context: RunContext, dataset: Dataset) -> Callable[[int], Tensor]:
    """Return a function from an epoch to the row numbers of train that the epoch draws, in order, on the CPU."""
    draw: Callable[..., Tensor] = bind(SAMPLERS, config.sampler, **vars(context))
    parameters = inspect.signature(draw).parameters
    inputs = dataset.train.inputs

    def sampler(epoch: int) -> Tensor:
        provided = dict(epoch=epoch, generator=generator(config.seed, "sampler", epoch))
        with own_errors(config, "sampler"):
            order = draw(**{name: value for name, value in provided.items() if name in parameters})
        check_rows(config, order, len(dataset.train))
        if not dataset.bucket or not isinstance(inputs, Tokens):
            return order
        chooser = generator(config.seed, "buckets", epoch)
        return bucketed(order, inputs.lengths, config.trainer.batch_size, dataset.bucket, chooser)

    return sampler


def smallest_trainable_batch(model: nn.Module, example: Inputs, accelerator: Accelerator) -> int:
    """Return 2 if the model cannot be trained on a batch of one example, else 1.

    Batch normalisation needs two values of each feature: from two examples, or from one with several positions. Several
    processes share the statistics of their batch normalisation, so this limit is for their global batch.

    Args:
        example: inputs of the model for one example.
    """
    if accelerator.num_processes > 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return 1
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.no_grad():
            model.train().forward(example)  # not `model(example)`, which torch would compile for this size
    except Exception:  # a model that raises for another reason than the size raises again in its first step
        return 2
    finally:
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers):
                buffer.copy_(before)
    return 1


def without_single_examples(sampler: Callable[[int], Tensor], batch_size: int) -> Callable[[int], Tensor]:
    """Return a sampler that leaves out the last example of an epoch if that example would be a batch alone."""

    def whole_batches(epoch: int) -> Tensor:
        order = sampler(epoch)
        return order[:-1] if len(order) > 1 and len(order) % batch_size == 1 else order

    return whole_batches


def make_weights(
    config: Experiment, context: RunContext, device: torch.device, dtype: torch.dtype
) -> Callable[[int], Tensor]:
    """Return a function from an epoch to the (N,) importance weights of all examples of train.

    Weights that do not depend on the epoch are computed once.
    """
    weigh: Callable[..., Tensor] = bind(WEIGHTS, config.weights, **vars(context))

    def checked(**values: int) -> Tensor:
        with own_errors(config, "weights"), config_messages("weights"):
            weights = weigh(**values)
        check_weights(config, weights, len(context.targets))
        return weights.to(device, dtype)

    if "epoch" in inspect.signature(weigh).parameters:
        return lambda epoch: checked(epoch=epoch)
    constant = checked()
    return lambda epoch: constant


def make_schedule(config: Experiment) -> Callable[[float], float]:
    """Return a function from an epoch, which may be a fraction, to the factor on the learning rate."""
    schedule: Callable[..., float] = bind(SCHEDULES, config.optim.schedule, epochs=config.trainer.epochs)
    with own_errors(config, "optim.schedule"):
        first = schedule(0.0)
    check_returned(config, "optim.schedule", first, (float, int), "a number, the factor on the learning rate")
    return schedule


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the last layer of the model, and of the second network if the method trains two networks.

    The last layer is the attribute `head`; the list is empty if no network has this attribute.
    """
    features = getattr(model, "features", None)
    networks = [model, *(part for part in model.children() if part is not features)]
    heads = (cast(nn.Module, network.head) for network in networks if hasattr(network, "head"))
    return [parameter for head in heads for parameter in head.parameters()]


def compile_graphs(model: nn.Module, objective: Objective, mode: str) -> None:
    """Let torch compile the two parts of a step: `objective.terms`, which calls model and loss, and `objective.value`.

    The model is also compiled alone, for evaluation. Each graph is compiled again at the first batch of another size,
    and this second graph takes batches of all sizes.

    In the mode "reduce-overhead" a GPU receives all kernels of a step at once, recorded as CUDA graphs, which speeds up
    small models. A recording takes one batch size, so each of the two batch sizes in an epoch is compiled. CUDA graphs
    reuse their output buffers in the next step, so the loop clones what it keeps. Evaluation uses no CUDA graphs,
    because it keeps its outputs.
    """
    model.compile()
    dynamic = False if mode == "reduce-overhead" else None
    objective.terms = torch.compile(objective.terms, mode=mode, dynamic=dynamic)
    objective.value = torch.compile(objective.value, mode=mode, dynamic=dynamic)


def make_mixing(
    config: Experiment, context: RunContext, device: torch.device, dtype: torch.dtype
) -> Callable[[int, Tensor], Mix | None]:
    """Return a function from an epoch and the row numbers that it draws to the `Mix` of the drawn examples.

    The function returns None if the config has no mixing. An example is mixed with a partner of its own batch.
    `partners` holds the position of each partner among all examples that the epoch draws, and is on the CPU.
    """

    def mixing(epoch: int, order: Tensor) -> Mix | None:
        if config.mix.name == "none":
            return None
        chooser = generator(config.seed, "mixing", epoch)
        mixes: list[Mix] = []
        for start, batch in enumerate(order.split(config.trainer.batch_size)):
            labels = dict(targets=context.targets[batch], groups=context.groups[batch], generator=chooser)
            mix: Mix = build(MIXINGS, config.mix, **vars(context) | labels)
            check_returned(config, "mix", mix, Mix, "a Mix of the batch")
            mixes.append(mix._replace(partners=start * config.trainer.batch_size + mix.partners))
        partners = torch.cat([mix.partners for mix in mixes])
        shares = target_shares = torch.cat([mix.shares for mix in mixes]).to(device, dtype)
        if own_target_shares := [mix.target_shares for mix in mixes if mix.target_shares is not None]:
            target_shares = torch.cat(own_target_shares).to(device, dtype)
        boxes = [mix.boxes for mix in mixes if mix.boxes is not None]
        boxes = torch.cat(boxes).to(device) if boxes else None
        return Mix(partners, shares, target_shares, boxes, mixes[0].first_box_view)

    return mixing
