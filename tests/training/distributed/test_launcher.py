"""What `accelerate launch` is told, by flags or a config file, is done or refused with the key of the config to use."""

import os
import sys

import pytest
import yaml
from accelerate.commands import launch
from accelerate.utils import launch as launch_utils

from imbalance.config.experiment import validate
from imbalance.errors import BadInput
from imbalance.training.distributed.launcher import check_processes, check_settings
from imbalance.training.distributed.processes import start_accelerator


@pytest.fixture
def environment_of(tmp_path, monkeypatch):
    """A function that sets the environment of the processes that `accelerate launch` would start, and starts none.

    accelerate itself reads the config file and the flags, and makes the environment.
    """

    def launched(settings: dict, *flags: str) -> None:
        path = tmp_path / "accelerate.yaml"
        path.write_text(yaml.safe_dump({"num_processes": 2, "num_machines": 1} | settings))
        parser = launch.launch_command_parser()
        args, *_ = launch._validate_launch_command(
            parser.parse_args(["--config_file", str(path), "--main_process_port", "0", *flags, "main.py"])
        )
        if args.use_deepspeed:
            args.deepspeed_fields_from_accelerate_config = ""
            env = launch_utils.prepare_deepspeed_cmd_env(args)[1]
        elif args.tpu:
            env = launch_utils.prepare_tpu(args, dict(os.environ))[1]
        elif args.multi_gpu or args.use_fsdp or args.use_megatron_lm:
            env = launch_utils.prepare_multi_gpu_env(args)
        else:
            env = launch_utils.prepare_simple_launcher_cmd_env(args)[1]
        for name in [name for name in env if name.startswith(("ACCELERATE", "XLA", "FSDP"))]:
            monkeypatch.setenv(name, env[name])

    # Only a machine with a GPU or a TPU takes these settings, and `accelerate launch` itself needs DeepSpeed.
    monkeypatch.setattr(launch, "is_bf16_available", lambda *_: True, raising=False)
    for module in (launch, launch_utils):
        monkeypatch.setattr(module, "is_torch_xla_available", lambda **_: True, raising=False)
        monkeypatch.setattr(module, "is_deepspeed_available", lambda: True, raising=False)
    return launched


FSDP = {"distributed_type": "FSDP"}
DEEPSPEED = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2, "gradient_accumulation_steps": 4}}
REFUSED = {
    "precision": ({"mixed_precision": "bf16"}, (), "trainer.mixed_precision=bf16"),
    "precision by a flag": ({}, ("--mixed_precision", "bf16"), "trainer.mixed_precision=bf16"),
    "dynamo": ({"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, (), "trainer.compile=default"),
    "FSDP 1": (FSDP | {"fsdp_config": {"fsdp_version": 1}}, (), "trainer.shard=True"),
    "FSDP 2": (FSDP | {"fsdp_config": {"fsdp_version": 2}}, (), "trainer.shard=True"),
    "DeepSpeed": (DEEPSPEED, (), "trainer.shard=True"),
    "TPU": ({"distributed_type": "XLA", "mixed_precision": "bf16"}, (), "trainer.mixed_precision=bf16"),
}


@pytest.mark.parametrize(("settings", "flags", "key"), REFUSED.values(), ids=list(REFUSED))
def test_a_setting_of_accelerate_is_refused_with_the_key_to_use(config, environment_of, settings, flags, key):
    environment_of({"distributed_type": "MULTI_GPU"} | settings, *flags)
    with pytest.raises(BadInput, match=rf"^launch: .*config\.{key}\b") as refused:
        start_accelerator(validate(config))
    assert "\n" not in str(refused.value)


def test_what_the_config_says_too_is_done(config, environment_of):
    environment_of({"distributed_type": "MULTI_GPU", "mixed_precision": "bf16"})
    config.trainer.mixed_precision = "bf16"
    check_settings(validate(config))
    environment_of({"distributed_type": "MULTI_GPU"})
    check_settings(validate(config))


@pytest.mark.parametrize(
    ("name", "value", "key", "same"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "accumulation", 4),
        ("ACCELERATE_GRADIENT_CLIPPING", "0.5", "clip_norm", 0.5),
    ],
)
def test_a_number_of_accelerate_is_that_of_the_config_or_refused(config, monkeypatch, name, value, key, same):
    """These reach the processes with DeepSpeed, or from the user's own environment."""
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=rf"config\.trainer\.{key}={value}"):
        check_settings(validate(config))
    config.trainer[key] = same
    check_settings(validate(config))


@pytest.mark.parametrize("name", ["ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"])
def test_other_engines_are_refused(config, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(BadInput, match=rf"^launch: .*{name}=true.*trainer\.shard"):
        check_settings(validate(config))


def test_fp8_is_answered_with_what_there_is(config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(BadInput, match=r"trainer\.mixed_precision=bf16 or no"):
        check_settings(validate(config))


@pytest.mark.parametrize("backend", ["INDUCTOR", "eager", ""])
def test_a_launcher_that_would_compile_is_refused_because_the_saved_weights_would_get_other_names(
    config, monkeypatch, backend
):
    """`accelerate launch --dynamo_backend inductor` sets this variable."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", backend)
    with pytest.raises(
        BadInput, match=rf"^launch: the dynamo backend is '{backend}'.*config\.trainer\.compile=default$"
    ):
        start_accelerator(validate(config))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    start_accelerator(validate(config))


def test_a_launcher_that_is_told_to_use_the_cpu_leaves_the_gpus_unused(config, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert start_accelerator(validate(config)).device.type == "cpu"
    config.trainer.mixed_precision = "fp16"
    with pytest.raises(BadInput, match="a CPU does not compute in float16"):
        start_accelerator(validate(config))


def test_a_program_started_as_a_module_is_named_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(sys, "argv", ["/x/imbalance/__main__.py", "train", "--config=digits_poly"])
    with pytest.raises(BadInput, match=r"--nproc_per_node N -m imbalance train --config=digits_poly$"):
        check_processes(1)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "ACCELERATE_DEBUG_MODE"])
def test_a_flag_that_accelerate_cannot_read_is_refused(config, monkeypatch, name):
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(
        BadInput, match=f"{name}: 'maybe' given in the environment; accelerate takes only true or false"
    ):
        check_settings(validate(config))
