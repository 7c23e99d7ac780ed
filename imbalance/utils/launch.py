"""Read the numbers that a launcher such as torchrun puts into the environment."""

import os
import socket

from imbalance.errors import BadInput

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
# Variables with the number of processes, which torchrun, Intel MPI or MPICH, Open MPI and MVAPICH set.
PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_launch() -> None:
    """Raise `BadInput` if the variables that a launcher sets do not say how to reach the main process.

    Each of `NUMBERS` must hold a whole number. For several processes MASTER_ADDR must name a host.
    """
    for name in (*NUMBERS, *PROCESSES[1:]):
        if not os.environ.get(name, "0").isdecimal():
            raise BadInput(
                f"{name}: {os.environ[name]!r} given in the environment; a launcher sets it to a whole number; unset it, or "
                "start the command with torchrun"
            )
    # accelerate takes a process with a LOCAL_RANK for one of several.
    several = several_processes() + ["LOCAL_RANK"] * ("LOCAL_RANK" in os.environ)
    if not several:
        return
    instead = "for several, start the command with torchrun"
    address = os.environ.get("MASTER_ADDR")
    if address is None:
        raise BadInput(
            f"{several[0]}: {os.environ[several[0]]} given in the environment, as for several processes, but MASTER_ADDR is "
            f"not set; for one process, unset {', '.join(dict.fromkeys(('RANK', 'WORLD_SIZE', 'LOCAL_RANK', *several)))}; {instead}"
        )
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError) as error:  # torch would look the name up for half an hour, and end on no signal
        raise BadInput(
            f"MASTER_ADDR: {address!r} given in the environment, but no host has this name ({getattr(error, 'strerror', error)}); for "
            f"one process, unset {', '.join(several)}; {instead}"
        ) from None


def check_single_process(command: str) -> None:
    """Raise `BadInput` if a launcher started several processes, none of which knows of the others' work in `command`.

    Args:
        command: name of a command whose work a single process does, such as "compare".
    """
    if several := several_processes():
        hint = " and --processes_per_run=<number of processes>" if command == "sweep" else ""
        raise BadInput(
            f"imbalance {command}: {several[0]}={os.environ[several[0]]} in the environment, as under torchrun, but this command "
            f"is a single process; type it without a launcher{hint}, or unset {', '.join(several)}"
        )


def several_processes() -> list[str]:
    """Return the variables in the environment that say that a launcher started several processes."""
    return [name for name in PROCESSES if int(os.environ.get(name, "1")) > 1]
