"""Private MariaDB server: own folder and socket, stopped with its owner process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from dataset_builders.environments.database import guard
from dataset_builders.environments.database.mariadb_client import connect, load_client
from dataset_builders.errors import EnvironmentFailureError, MissingExtraError

_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_MEMORY = "/dev/shm"
_LEAST_MEMORY = 4 * 2**30
_SECONDS_TO_START = 60.0
_SECONDS_TO_STOP = 15.0
_OPTIONS = (
    "--skip-networking",
    "--local-infile=0",
    "--skip-symbolic-links",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    "--max-connections=300",
    # Upper bound of a result, or of a value that a function returns.
    "--max-allowed-packet=1M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    # The databases are temporary: durability across a crash does not matter.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync",
    # One file per table, in its database's folder: an episode's disk use can be measured.
    "--enforce-storage-engine=InnoDB",
    "--innodb-file-per-table=1",
    "--innodb-temp-data-file-path=ibtmp1:12M:autoextend:max:256M",
    "--sync-frm=0",
)


def find_program(*names: str) -> str | None:
    """Return the path of the first installed program of several names, or None."""
    return next(filter(None, (shutil.which(name, path=_PLACES) for name in names)), None)


def missing_programs() -> str:
    """Return why a private server cannot run here, in one line; "" if it can."""
    if find_program("mariadbd") and find_program("mariadb-install-db"):
        return ""
    return (
        "mariadbd is not installed: apt install mariadb-server (no service needs to run), "
        "or name a running server (url)"
    )


class MariaDBServer:
    """A server on a Unix socket that only this user can reach; a context manager.

    It has no password, listens to no network and lives in a temporary folder. It ends
    with `stop`, and with this process however that ends, `kill -9` included: a small
    process beside it (`guard.py`) watches. Starting takes about 4 s and 100 MB of memory.

    Args:
        options: Additional options of mariadbd.

    Attributes:
        folder: Its temporary folder.
        socket: Path of its socket.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)
        # Short, because a socket's path is limited to 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="at-mariadb-", dir=_parent()))
        self.socket = self.folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the folder's content and start the server.

        Raises:
            MissingExtraError: MariaDB or its client is not installed.
            EnvironmentFailureError: It does not start; the message has its last output.
        """
        load_client()
        if hint := missing_programs():
            raise MissingExtraError(f"database: backend mariadb: {hint}")
        try:
            self._install()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def _install(self) -> None:
        for name in ("data", "files", "tmp"):
            (self.folder / name).mkdir()
        user = _server_user()
        if user != "root" and os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, user, user)
        program = find_program("mariadb-install-db")
        with self._log() as log:
            made = subprocess.run(
                [
                    str(program),
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--tmpdir={self.folder / 'tmp'}",
                    f"--user={user}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if made.returncode:
            raise self._failure(f"mariadb-install-db ended with {made.returncode}")

    def _launch(self) -> None:
        command = [
            str(find_program("mariadbd")),
            "--no-defaults",
            f"--user={_server_user()}",
            f"--datadir={self.folder / 'data'}",
            f"--tmpdir={self.folder / 'tmp'}",
            f"--secure-file-priv={self.folder / 'files'}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            *_OPTIONS,
            *self._options,
        ]
        with self._log() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(self.folder), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C should reach only the owner, which still has to drop databases.
                start_new_session=True,
            )
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._ready():
            if self._process.poll() is not None:
                raise self._failure(f"mariadbd ended with {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"mariadbd is not up after {_SECONDS_TO_START:g} s")
            time.sleep(0.05)

    def _ready(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            connect(unix_socket=str(self.socket), user="root", ssl_disabled=True).close()
        except load_client().err.OperationalError:
            return False
        return True

    def _log(self) -> IO[bytes]:
        return (self.folder / "log").open("ab")

    def _failure(self, what: str) -> EnvironmentFailureError:
        try:
            lines = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        words = " / ".join(lines[-3:])
        return EnvironmentFailureError(f"database: backend mariadb: {what}: {words}")

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        alive = self._process is not None and self._process.poll() is None
        return alive and self.socket.exists()

    def stop(self) -> None:
        """Stop the server and remove its folder; may be called more than once."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def size(self, database: str) -> int:
        """Return the size of a database's files in bytes."""
        total = 0
        for path in (self.folder / "data" / database).glob("*"):
            with suppress(FileNotFoundError):  # Dropped in the meantime.
                total += path.stat().st_size
        return total

    def __enter__(self) -> MariaDBServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _parent() -> str | None:
    """Return a parent folder in memory if there is enough: on disk every CREATE and DROP waits."""
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return _MEMORY if free >= _LEAST_MEMORY and os.access(_MEMORY, os.W_OK) else None


def _server_user() -> str:
    """Return the user that runs the server: a root server could read every file of the machine."""
    import pwd  # Not available on Windows, where this module must still be importable.

    names = {entry.pw_name for entry in pwd.getpwall()}
    if os.geteuid() == 0:
        return "mysql" if "mysql" in names else "root"
    return pwd.getpwuid(os.geteuid()).pw_name


_lock = threading.Lock()
_shared: dict[int, MariaDBServer] = {}


def shared_server() -> MariaDBServer:
    """Return this process's private server, stopped at exit and replaced if it died."""
    import atexit

    with _lock:
        # By pid, because a fork inherits the parent's.
        if (dead := _shared.get(os.getpid())) and not dead.running:
            dead.stop()
            del _shared[os.getpid()]
        if os.getpid() not in _shared:
            server = MariaDBServer()
            server.start()
            _shared[os.getpid()] = server
            atexit.register(_stop_own, os.getpid(), server)
        return _shared[os.getpid()]


def _stop_own(owner: int, server: MariaDBServer) -> None:
    if os.getpid() == owner:
        server.stop()
