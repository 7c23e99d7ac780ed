"""Open the storage of an Optuna study: a journal file, or a database.

A journal file is the default, since an operation on it is one appended line. Every storage here changes the state of a
trial atomically: if two workers try to take the same trial at the same time, only one of them gets it.
"""

import os
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from imbalance.errors import BadInput
from imbalance.utils.optional import optional

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

JOURNAL = "journal:"  # start of the URL of a journal file
SQLITE_SECONDS = 60  # time for which a process waits for another one that writes to the same SQLite file
OPENINGS = 4  # attempts to open a database, since two processes that create its tables at once can both fail


class StudyLocation(NamedTuple):
    """The name of a study and where it is stored: all that a worker on any machine needs to open it."""

    name: str
    work_dir: str
    storage: str  # "journal:<file>", or the URL of a database; "" for a file in the study's folder

    @property
    def folder(self) -> Path:
        return Path(self.work_dir) / "sweeps" / self.name

    @property
    def url(self) -> str:
        """Return the URL of the storage; if an older version kept this study in an SQLite file, that file's URL."""
        older = self.folder / "study.db"
        return self.storage or (f"sqlite:///{older}" if older.exists() else f"{JOURNAL}{self.folder / 'study.journal'}")

    @property
    def shown_url(self) -> str:
        """Return the URL of the storage for printing, without a password."""
        return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", self.url)


def import_optuna():
    install = "a study needs optuna, which is not installed; type pip install -c constraints.txt -e '.[sweep]'"
    with optional("optuna", message=install):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_storage(location: StudyLocation) -> "BaseStorage":
    """Open Optuna's storage, and create it if it does not exist.

    Raises:
        BadInput: the storage cannot be opened.
    """
    optuna, url = import_optuna(), location.url
    if re.fullmatch(r"sqlite(\+\w+)?:/{0,3}(:memory:)?", url):
        raise BadInput(
            f"--storage={url} is a database in the memory of this process, which the worker processes cannot read; name a file, "
            "such as --storage=sqlite:///study.db"
        )
    location.folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, OPENINGS + 1):
        try:
            if url.startswith(JOURNAL):
                return open_journal(Path(url.removeprefix(JOURNAL)))
            return optuna.storages.get_storage(open_database(url))
        except Exception as error:  # SQLAlchemy and each database's package raise errors of many kinds
            if attempt < OPENINGS and "exist" in str(error):  # a table that another process has just created
                time.sleep(random.random())
                continue
            missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else None
            reason = str(missing or error).splitlines()[0] if str(error) else type(error).__name__
            if missing:
                reason += f" (pip install {missing.name})"
            raise BadInput(
                f"--storage={location.shown_url} cannot be opened: {reason}; type journal:<file> or the URL of a database that SQLAlchemy "
                f"can open, such as --storage=sqlite:///study.db, or leave --storage out to keep the study in {location.folder}"
            ) from None
    raise AssertionError("the last attempt returns or raises")


def open_database(url: str):
    """Open the database at `url` as Optuna's storage.

    Transactions of SQLite lock the file when they begin, not when they first write.
    """
    from sqlalchemy import event

    is_sqlite = url.startswith("sqlite")
    arguments = {"connect_args": {"timeout": SQLITE_SECONDS}} if is_sqlite else {"pool_pre_ping": True}
    storage = import_optuna().storages.RDBStorage(url, engine_kwargs=arguments)
    if is_sqlite:
        # SQLite has no SELECT … FOR UPDATE. Two workers could read the same trial as waiting, and both take it.
        @event.listens_for(storage.engine, "begin")
        def begin(connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        @event.listens_for(storage.engine, "connect")
        def connect(connection, record) -> None:
            connection.isolation_level = None  # or else sqlite3 begins transactions of its own

        storage.engine.dispose()  # close the connections that were made before the listeners
    return storage


class JournalLock:
    """Lock of a journal file. The operating system releases the lock when the process ends, even if it is killed.

    Optuna's own lock outlives a killed process by 30 seconds.
    """

    def __init__(self, path: Path):
        self.path, self.lock = path, FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self.lock.acquire()
        cut_torn_line(self.path)
        return True

    def release(self) -> None:
        self.lock.release()


def open_journal(path: Path) -> "BaseStorage":
    """Open a journal file as Optuna's storage, and create it if it does not exist."""
    from optuna.storages import JournalStorage, journal

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    lock: Any = JournalLock(path)  # Optuna calls no other methods of a lock, but exports no base class for one
    lock.acquire()
    lock.release()
    return JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


def cut_torn_line(path: Path) -> None:
    """Remove the last line of a file if the line is incomplete, as a full disk or a power loss leaves it.

    Otherwise the next line would continue the incomplete line, and Optuna could read neither.
    """
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def open_study(location: StudyLocation, storage: "BaseStorage | None" = None) -> "Study":
    """Open the study, and create it if it does not exist.

    Args:
        storage: the opened storage; opened here if None.
    """
    optuna, storage = import_optuna(), storage or open_storage(location)
    try:
        return optuna.create_study(
            study_name=location.name,
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),  # a worker sets the sampler of each trial
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # Optuna reads damaged lines as they are, and can fail in any way
        raise BadInput(
            f"--storage={location.shown_url} is damaged ({type(error).__name__}: {error}); restore the file from a copy, or move "
            "it elsewhere and type the command again: finished runs are read from their run directories, not trained again"
        ) from None
