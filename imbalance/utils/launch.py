"""Read the numbers that a launcher such as torchrun puts into the environment."""

import os

from imbalance.errors import BadInput

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def check_launch() -> None:
    """Raise `BadInput` if an environment variable that a launcher sets holds anything but a whole number, or is missing."""
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise BadInput(
                f"{name}: {os.environ[name]!r} given in the environment; a launcher sets it to a whole number; unset it, or "
                "start the command with torchrun"
            )
    address = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and address:
        raise BadInput(
            f"WORLD_SIZE: {os.environ['WORLD_SIZE']} processes given in the environment, but {' and '.join(address)} not; for one "
            "process unset RANK, WORLD_SIZE and LOCAL_RANK, and for several start the command with torchrun"
        )
