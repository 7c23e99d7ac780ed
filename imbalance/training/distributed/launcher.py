"""Refuse settings that `accelerate launch` passes in the environment but the config decides."""

import os
import shlex
import sys
from pathlib import Path

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput

# Environment variables that switch on an engine, with the engine's name and what to do instead. Each engine would wrap the
# model, and thereby change the names of its saved weights, or is not supported at all.
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", "use config.trainer.shard=True to save memory"),
    "ACCELERATE_USE_FSDP": ("FSDP", "use config.trainer.shard=True"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "use config.trainer.shard=True to save memory"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("a parallelism config", "use config.trainer.shard=True to save memory"),
}
# Environment variables with a value that a key of `config.trainer` decides, and the values that request nothing.
VALUES = {
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", ("no",)),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("accumulation", ("no", "1", "auto")),
    "ACCELERATE_GRADIENT_CLIPPING": ("clip_norm", ("no", "auto", "none", "0", "0.0")),
}
# Environment variables that accelerate reads as true or false, and the texts that it takes.
FLAGS = ("ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY", "FORK_LAUNCHED")
TRUE, FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")
TPU = ("XLA_USE_BF16", "XLA_DOWNCAST_BF16", "TPU_PROCESS_ADDRESSES")


def check_settings(config: Experiment) -> None:
    """Check the settings of `accelerate launch`, from its flags or its config file, against `config.trainer`.

    Raises:
        BadInput: a setting differs from the config; the message names the key of the config to use.
    """
    for name in (*FLAGS, *ENGINES):
        if os.environ.get(name, "false").lower() not in TRUE + FALSE:
            raise BadInput(
                f"{name}: {os.environ[name]!r} given in the environment; accelerate takes only true or false; "
                "set it to one of them, or unset it"
            )
    for name, (engine, instead) in ENGINES.items():
        if os.environ.get(name, "").lower() in TRUE:
            raise BadInput(
                f"launch: accelerate is set to use {engine} ({name}={os.environ[name]}), but the config decides how a run is "
                f"distributed; launch without {engine} (or with torchrun), and {instead}"
            )
    if any(name in os.environ for name in TPU) or os.environ.get("PJRT_DEVICE") == "TPU":
        raise BadInput(
            "launch: accelerate is set to use TPUs, for which there is no support; launch without --tpu, on GPUs or a CPU, "
            "and for bfloat16 use config.trainer.mixed_precision=bf16"
        )
    # accelerate would wrap the model, and the names of the saved weights would begin with `_orig_mod.`.
    if (backend := os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")).lower() != "no":
        raise BadInput(
            f"launch: the dynamo backend is {backend!r}; the config decides how a run is compiled, so launch with "
            "--dynamo_backend no (or remove ACCELERATE_DYNAMO_BACKEND); to compile the run, add config.trainer.compile=default"
        )
    for name, (key, without) in VALUES.items():
        value, current = (os.environ.get(name) or "no").lower(), getattr(config.trainer, key)
        if value in without or is_equal(value, current):
            continue
        known = value != "fp8"
        raise BadInput(
            f"launch: accelerate is set to {name}={value}, but config.trainer.{key} is {current!r}; "
            + (f"use config.trainer.{key}={value}" if known else f"use config.trainer.{key}=bf16 or no")
            + f", and launch without that setting (or remove {name})"
        )


def is_equal(text: str, value: object) -> bool:
    """Return whether `text`, from an environment variable, means the same as `value`, from the config."""
    try:
        return float(text) == value if isinstance(value, int | float) else text == value
    except ValueError:
        return False


def is_told_to_use_cpu() -> bool:
    """Return whether the launcher was told to leave the GPUs unused, as by `accelerate launch --cpu`."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in TRUE


def expected_processes() -> int:
    """Return the number of processes that the launcher was told to start; 0 for several processes of unknown number.

    `accelerate launch --cpu --num_processes 2` starts one process, and does not tell this process the number.
    """
    one_of_many = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    return int(os.environ.get("WORLD_SIZE", 0 if one_of_many else 1))


def check_processes(started: int) -> None:
    """Raise `BadInput` with the command to type if `started` is not the number of processes that was asked for."""
    if started == (expected := expected_processes()):
        return
    program = ["-m", "imbalance"] if Path(sys.argv[0]).name == "__main__.py" else [sys.argv[0]]
    command = shlex.join(["torchrun", "--standalone", "--nproc_per_node", "N", *program, *sys.argv[1:]])
    raise BadInput(
        f"launch: {expected or 'several'} processes expected, but {started} started (accelerate launch --cpu starts only "
        f"one), or the processes cannot reach each other; for N processes type {command}"
    )
