"""Where a run reports beside its own files: Weights & Biases, TensorBoard. Both are copies, and neither is needed.

accelerate's trackers are not used: they cannot go on with a run, and what they raise ends it.
"""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from imbalance.config.experiment import Experiment
from imbalance.errors import BadInput

WANDB_MODES = {"disabled": "disabled", "offline": "offline", "online": "online", "dryrun": "offline", "run": "online"}
MOST_CHARACTERS = 128  # of a group's name at wandb's server


class Tracker(Protocol):
    """What gets a run's metrics. Whatever its methods raise ends the tracker, not the run."""

    name: str

    def log(self, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl, with its "step"."""

    def summary(self, values: dict[str, Any]) -> None:
        """What summary.json says, of it numbers and texts."""

    def finish(self, failed: bool) -> None: ...


def uses_wandb(config: Experiment) -> bool:
    """Whether a run of `config` reports to wandb, which has one run a process."""
    return _wandb_mode(config) != "disabled"


def check(config: Experiment) -> None:
    """Raise `BadInput` where a tracker that is asked for cannot be had as it is asked for."""
    wandb_settings(config)
    if config.logger.mode == "tensorboard" and not find_spec("tensorboard"):
        raise BadInput(
            "config.logger.mode: 'tensorboard' given, which is not installed; "
            "pip install -c constraints.txt -e '.[tensorboard]'"
        )


class Wandb:
    """A wandb run, gone on with if it has an id already.

    No account, key or network is needed: online becomes offline, with a line that says so, rather than prompt, hang or
    fail. Nothing but config and metrics is sent. The seeds of a setting are a group.
    """

    name = "wandb"

    def __init__(
        self, settings: Any, config: Experiment, directory: Path, run_id: str | None, say: Callable[[str], None]
    ):
        import wandb

        first = directory.name == "first"  # the first of two stages, in the run directory of the second
        setting = (directory.parent if first else directory).parts[-3:-1]

        def init(mode: str):
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
        self.run.log(values, step=values["step"])

    def summary(self, values: dict[str, Any]) -> None:
        self.run.summary.update(values)

    def finish(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class TensorBoard:
    """Event files in <run directory>/tensorboard; `tensorboard --logdir=<work_dir>` shows all runs.

    What was written past the checkpoint that a run goes on from is hidden: the run writes it again.

    Args:
        after: the last step that stays.
    """

    name = "tensorboard"

    def __init__(self, config: Experiment, directory: Path, after: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=after + 1, flush_secs=10)
        if not after:
            # As Markdown, in which four spaces before a line mean code.
            text = json.dumps(config.to_dict(), indent=2).replace("\n", "\n    ")
            self.writer.add_text("config", f"    {text}", global_step=0)

    def log(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, int | float) and key != "step":
                self.writer.add_scalar(key, value, values["step"])
        self.writer.flush()  # what a kill must not take; and here a disk that is full raises

    def summary(self, values: dict[str, Any]) -> None:
        """Nothing: its numbers are those of an evaluation."""

    def finish(self, failed: bool) -> None:
        self.writer.close()


def _wandb_mode(config: Experiment) -> str:
    """WANDB_MODE, or else what the config says; "disabled" where that is about another tracker."""
    given = os.environ.get("WANDB_MODE") or config.logger.mode
    if given == "tensorboard" and not os.environ.get("WANDB_MODE"):
        return "disabled"
    if given not in WANDB_MODES:
        raise BadInput(f"WANDB_MODE: {given!r} given; it should be 'disabled', 'offline' or 'online'")
    return WANDB_MODES[given]


def wandb_settings(config: Experiment) -> Any:
    """What wandb is started with, None where it is disabled: nothing but config and metrics is sent, and it is quiet.

    Raises:
        BadInput: an environment variable of wandb's has a value that it does not take.
    """
    mode = _wandb_mode(config)
    if mode == "disabled":
        return None
    from pydantic import ValidationError

    try:
        import wandb

        wandb.Settings().update_from_env_vars(os.environ)  # as wandb.init does, in the middle of all else
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise BadInput(f"WANDB_{name}: {first['input']!r} given; {first['msg']}") from None
    return wandb.Settings(
        mode=mode, save_code=False, disable_git=True, console="off", silent=True, init_timeout=15,
        finish_timeout=30, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
