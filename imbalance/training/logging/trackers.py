"""Trackers: copy the metrics of a run to Weights & Biases or TensorBoard. The run directory has all metrics anyway.

The trackers of accelerate are not used, because they cannot continue a run, and an error in them would end the run.
"""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput

Mode = Literal["disabled", "offline", "online"]
WANDB_MODES: dict[str, Mode] = {
    "disabled": "disabled",
    "offline": "offline",
    "online": "online",
    "dryrun": "offline",
    "run": "online",
}
MOST_CHARACTERS = 128  # longest name of a group that the server of Weights & Biases takes


class Tracker(Protocol):
    """Base class of trackers, which receive a run's metrics. An error in a method ends the tracker, not the run."""

    name: str

    def log(self, values: dict[str, Any]) -> None:
        """Receive one line of metrics.jsonl, as a dictionary with the key "step"."""

    def summary(self, values: dict[str, Any]) -> None:
        """Receive the numbers and texts of summary.json."""

    def finish(self, failed: bool) -> None:
        """Close the record of the run.

        Args:
            failed: whether the run ended with an error.
        """


def uses_wandb(config: Experiment) -> bool:
    """Return whether a run of `config` logs to wandb; a process can log only one run at a time to wandb."""
    return _wandb_mode(config) != "disabled"


def check(config: Experiment) -> None:
    """Raise `BadInput` if the tracker that the config or WANDB_MODE asks for cannot be started."""
    wandb_settings(config)
    if config.logger.mode == "tensorboard" and not find_spec("tensorboard"):
        raise BadInput(
            "config.logger.mode: 'tensorboard' given, which is not installed; type "
            "pip install -c constraints.txt -e '.[tensorboard]'"
        )


class Wandb:
    """Weights & Biases run, new or continued by its id. Runs that differ only in the seed are one wandb group.

    Without an account, a key or a network, the mode "online" becomes "offline", with a line in the log; nothing
    prompts, hangs or fails. Only config and metrics are sent.

    Args:
        settings: result of `wandb_settings`.
        run_id: id of the wandb run to continue; None for a new one.
        say: function that writes a line to the log.
    """

    name = "wandb"

    def __init__(
        self, settings: Any, config: Experiment, directory: Path, run_id: str | None, say: Callable[[str], None]
    ):
        import wandb

        first = directory.name == "first"  # the run directory of a first stage is inside that of the second
        setting = (directory.parent if first else directory).parts[-3:-1]

        def init(mode: Mode):
            return wandb.init(
                project=config.logger.project, dir=str(directory), mode=mode, id=run_id, resume="allow",
                name="/".join(directory.parts[-3:]), group="/".join(setting)[:MOST_CHARACTERS],
                job_type="first stage" if first else "train", settings=settings,
                config=config.to_dict() | {"run_directory": str(directory)},
            )  # fmt: skip

        mode = settings.mode
        if mode == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
            say("wandb: no API key (wandb login); logging offline instead")
            mode = "offline"
        try:
            self.run = init(mode)
        except wandb.Error as error:
            say(f"wandb: {str(error).splitlines()[0]}; logging offline instead")
            self.run = init("offline")
        self.id = self.run.id

    def log(self, values: dict[str, Any]) -> None:
        """Send one line of metrics.jsonl to wandb."""
        self.run.log(values, step=values["step"])

    def summary(self, values: dict[str, Any]) -> None:
        """Send the numbers and texts of summary.json to wandb."""
        self.run.summary.update(values)

    def finish(self, failed: bool) -> None:
        """End the wandb run; `failed` marks it as failed."""
        self.run.finish(exit_code=int(failed))


class TensorBoard:
    """Writer of event files to <run directory>/tensorboard; `tensorboard --logdir=<work_dir>` shows all runs.

    A resumed run hides the events after its checkpoint, because it writes them again.

    Args:
        after: last step whose events stay; 0 for a new run.
    """

    name = "tensorboard"

    def __init__(self, config: Experiment, directory: Path, after: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=after + 1, flush_secs=10)
        if not after:
            # TensorBoard shows Markdown, in which four spaces before a line mean code.
            text = json.dumps(config.to_dict(), indent=2).replace("\n", "\n    ")
            self.writer.add_text("config", f"    {text}", global_step=0)

    def log(self, values: dict[str, Any]) -> None:
        """Write the numbers of one line of metrics.jsonl to the event file."""
        for key, value in values.items():
            if isinstance(value, int | float) and key != "step":
                self.writer.add_scalar(key, value, values["step"])
        self.writer.flush()  # a kill then loses nothing, and a full disk raises its error here

    def summary(self, values: dict[str, Any]) -> None:
        """Do nothing, because `log` has received the same numbers after the last evaluation."""

    def finish(self, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()


def _wandb_mode(config: Experiment) -> Mode:
    """Return the mode of wandb: WANDB_MODE if it is set, else that of the config; "disabled" for TensorBoard."""
    given = os.environ.get("WANDB_MODE") or config.logger.mode
    if given == "tensorboard" and not os.environ.get("WANDB_MODE"):
        return "disabled"
    if given not in WANDB_MODES:
        raise BadInput(f"WANDB_MODE: {given!r} given; it must be 'disabled', 'offline' or 'online'")
    return WANDB_MODES[given]


def wandb_settings(config: Experiment) -> Any:
    """Return the wandb settings that send only config and metrics and print nothing; None if wandb is disabled.

    Raises:
        BadInput: wandb is not installed, or refuses the value of an environment variable WANDB_… or of
            config.logger.project.
    """
    mode = _wandb_mode(config)
    if mode == "disabled":
        return None
    if not find_spec("wandb"):
        key = "WANDB_MODE" if os.environ.get("WANDB_MODE") else "config.logger.mode"
        raise BadInput(
            f"{key}: {mode!r} given, which needs wandb, which is not installed; type pip install wandb, or use 'disabled'"
        )
    import wandb
    from pydantic import ValidationError

    # wandb.init reads the variables too, but too late for a good message.
    variables = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    checks: dict[str, tuple[str, Callable[[], Any]]] = {
        name: (value, lambda name=name, value=value: wandb.Settings().update_from_env_vars({name: value}))
        for name, value in variables.items()
    }
    project = config.logger.project
    checks["config.logger.project"] = project, lambda: wandb.Settings(project=project)
    for name, (value, check_value) in checks.items():
        try:
            check_value()
        except ValidationError as error:
            raise BadInput(
                f"{name}: {value!r} given, which wandb refuses: {error.errors()[0]['msg']}; type another value"
            ) from None
        except wandb.Error as error:
            raise BadInput(f"{name}: {value!r} given, which wandb refuses: {error}; type another value") from None
    return wandb.Settings(
        mode=mode, save_code=False, disable_git=True, console="off", silent=True, init_timeout=15,
        finish_timeout=30, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
