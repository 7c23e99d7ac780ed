"""Read the numbers that a launcher such as torchrun puts into the environment."""

import os

from imbalance.errors import BadInput

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def check_launch() -> None:
    """Raise `BadInput` if a variable that a launcher sets holds no whole number, or the address of the main process is missing."""
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise BadInput(
                f"{name}: {os.environ[name]!r} given in the environment; a launcher sets it to a whole number; unset it, or "
                "start the command with torchrun"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" not in os.environ:
        raise BadInput(
            f"WORLD_SIZE: {os.environ['WORLD_SIZE']} processes given in the environment, but no MASTER_ADDR; for one process "
            "unset RANK, WORLD_SIZE and LOCAL_RANK, and for several start the command with torchrun"
        )
