"""An embedded PostgreSQL: made, started, shared and stopped by the processes that use it, with nothing to install.

    HOME/
        password        of the owner, 0600
        port            kept over restarts, so that the pools of other processes connect again
        .users          flock: each process that uses the server holds it shared
        .lock           flock: held while the server is made, started or stopped
        programs/       copies of PostgreSQL's programs, only where root's are out of the server's reach
        cluster/        of the system user whom the server runs as
            data/       the database
            postgres.log

Kernel locks and not a list of process numbers say who uses the server: a killed process needs no cleaning up. The last
to leave stops it; a server that a killed process left behind is taken over by the next. It listens on 127.0.0.1 alone,
asks for a password, and runs in a session of its own, which the keyboard's Ctrl-C does not reach.
"""

import asyncio
import fcntl
import os
import pwd
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from api.probes import HOST, free_port, listens, postgres_runs
from api.programs import Programs, ServerError, found_programs
from data_contracts.errors import UsageError

OWNER = "jifen"
DATABASE = "jifen"
START_SECONDS = 60
"""What a start may take; after a crash the server first reads its journal again."""

_LOG_BYTES = 16 * 1024 * 1024
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "fsync": "on",
    "jit": "off",  # statements are short; compiling them costs more than it saves
    "log_timezone": "UTC",
    # A refused statement is the caller's to log; its text and detail may name firms.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True)
class Account:
    """The system user whom the server runs as when root starts it: PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


class Postgres:
    """A server that several processes share; a context manager, also of `async with` (blocking work in a thread).

    Args:
        home: its folder; made if it is not there.
        programs: folder of PostgreSQL's programs; None: see `found_programs`.
        settings: PostgreSQL's settings that differ from the usual ones.
    """

    def __init__(self, home: Path, programs: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.home = home.absolute()
        self.cluster = self.home / "cluster"
        self.data = self.cluster / "data"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._programs: Programs = found_programs(programs)
        self._account = _account(self.cluster) if os.geteuid() == 0 else None
        self._users: IO[str] | None = None

    def url(self, database: str = DATABASE) -> str:
        """Where the owner connects; holds the password."""
        password = (self.home / "password").read_text(encoding="ascii")
        return f"postgresql://{OWNER}:{password}@{HOST}:{self.port}/{database}"

    @property
    def port(self) -> int:
        """The server's port, or its last one; 0 before the first start."""
        try:
            return int((self.home / "port").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

    def pid(self) -> int | None:
        """Process number of the running server; None: none runs."""
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if postgres_runs(pid) else None

    def start(self) -> str:
        """Use the server, which is made and started as needed; called again it starts one that died.

        Returns:
            `url()`.

        Raises:
            UsageError: the home cannot be reached or written.
            ServerError: PostgreSQL failed; the sentence ends with what it said.
        """
        if self._users is None:
            self._prepare()
            self._users = _locked(self.home / ".users", fcntl.LOCK_SH)
        try:
            with _locked(self.home / ".lock", fcntl.LOCK_EX):
                self._make_reachable()
                if not (self.data / "PG_VERSION").exists():
                    self._make()
                self._refuse_other_major()
                if not self._answers():
                    self._launch()
        except BaseException:
            self.stop()
            raise
        return self.url()

    def restart(self) -> None:
        """Start a server that died while it was used, at its own port: those who use it know no other.

        Nothing is made, nobody's use ends, and a server that still reads its journal may go on: call it again.

        Raises:
            ServerError: its database is not there, or it does not start or answer.
            OSError: its folder is not there.
        """
        with _locked(self.home / ".lock", fcntl.LOCK_EX):
            if not (self.data / "PG_VERSION").exists():
                raise ServerError(f"There is no database in {self.data}.")
            if not self._answers():
                self._launch(may_move=False)

    def stop(self) -> bool:
        """Use the server no longer; the last user stops it.

        Returns:
            Whether the server is down; False: others use it.
        """
        if self._users is not None:
            self._users.close()
            self._users = None
        return self.stop_if_unused()

    def stop_if_unused(self) -> bool:
        """Stop a server that nobody uses, such as one that a killed process left behind; whether it is down.

        Raises:
            ServerError: it does not stop.
        """
        if not self.home.is_dir():
            return True
        with _locked(self.home / ".lock", fcntl.LOCK_EX):
            try:
                users = _locked(self.home / ".users", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            with users:
                if self.pid() is not None:
                    code, said = self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
                    if code and self.pid() is not None:
                        raise ServerError("The embedded PostgreSQL does not stop.", said.splitlines()[-5:])
            return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be stopped half-way, and what it started would be left running.
            await asyncio.wait([starting])
            if starting.exception() is None:
                await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _prepare(self) -> None:
        """Make the folders. A folder that was there keeps its mode: opening someone's home is not ours to do."""
        try:
            missing = [path for path in (self.home, *self.home.parents) if not path.exists()]
            there = missing[-1].parent if missing else self.home
            if self._account is not None and not self._may("-x", there):
                raise UsageError(
                    f"The database's folder {self.home} cannot be reached by the system user {self._account.name}, "
                    "whom PostgreSQL runs as when root starts it. Set JIFEN_HOME to a folder outside root's own, such "
                    "as /var/lib/jifen."
                )
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                if self._account is not None:
                    folder.chmod(0o711)
            self.cluster.mkdir(mode=0o700, exist_ok=True)
            if self._account is not None:
                os.chown(self.cluster, self._account.uid, self._account.gid)
        except OSError as error:
            raise UsageError(
                f"The database's folder {self.home} cannot be made ({error.strerror}: {error.filename}). "
                "Set JIFEN_HOME to a folder of yours."
            ) from error
        if not os.access(self.home, os.W_OK | os.X_OK) or not self._may("-w", self.cluster):
            raise UsageError(
                f"The database's folder {self.home} cannot be written. Set JIFEN_HOME to a folder of yours."
            )

    def _make_reachable(self) -> None:
        if self._account is not None and not self._may("-x", self._programs.folder / "postgres"):
            self._programs = self._programs.copied(self.home / "programs")

    def _may(self, right: str, path: Path) -> bool:
        """Whether the user whom the server runs as has the right (-x, -w) on a path."""
        return self._as_account(["test", right, str(path)], self.home.anchor).returncode == 0

    def _make(self) -> None:
        """Make the database aside and rename it when whole, so that a killed start leaves nothing under its name."""
        part = self.cluster / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        _write_private(self.home / "password", password)
        lent = self.cluster / "password.part"
        _write_private(lent, password, self._account)
        # A host's own locales differ from one to the next and change with its C library.
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"] if self._major() >= 17 else ["--locale=C.UTF-8"]
        secure = ["--auth=scram-sha-256", "--pwfile", lent, "--data-checksums"]
        try:
            self._done("initdb", "-D", part, "-U", OWNER, "-E", "UTF8", *locale, *secure)
            self._done("postgres", "--single", "-D", part, "postgres", said=f"create database {DATABASE}\n")
        finally:
            lent.unlink(missing_ok=True)
        part.rename(self.data)

    def _major(self) -> int:
        said = self._done("postgres", "-V")
        found = re.search(r"\d+", said)
        if found is None:
            raise ServerError(f"{self._programs.folder} is not PostgreSQL: it says {said!r}.")
        return int(found[0])

    def _refuse_other_major(self) -> None:
        written = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if written != str(self._major()):
            raise ServerError(
                f"The database in {self.data} was written by PostgreSQL {written}, and the programs in "
                f"{self._programs.folder} are of PostgreSQL {self._major()}. Move it with pg_upgrade, or set "
                "JIFEN_POSTGRES_BIN to the former programs."
            )

    def _answers(self) -> bool:
        """Whether the server runs and takes connections; waits while it reads its journal after a crash."""
        deadline = time.monotonic() + START_SECONDS
        while self.pid() is not None and time.monotonic() < deadline:
            try:
                lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
            except FileNotFoundError:  # it ended just now
                continue
            # The eighth line says when it takes connections, the fourth where.
            if len(lines) > 7 and lines[7].strip() == "ready" and listens(int(lines[3])):
                (self.home / "port").write_text(lines[3], encoding="ascii")
                return True
            time.sleep(0.05)
        if self.pid() is not None:
            raise ServerError(f"The embedded PostgreSQL, process {self.pid()}, runs but takes no connections.")
        return False

    def _launch(self, *, may_move: bool = True) -> None:
        # Left by a server that was killed. PostgreSQL removes it itself unless the process number is taken: by the
        # dead server's own zombie, or by a stranger. That no process of the old server is left, it sees elsewhere.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        log = self.cluster / "postgres.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(self.cluster / "postgres.log.1")
        port = self.port or free_port()
        deadline = time.monotonic() + START_SECONDS
        while True:
            before = log.stat().st_size if log.exists() else 0
            options = f"-p {port} " + " ".join(f"-c {name}={shlex.quote(to)}" for name, to in self._settings.items())
            wait = ["-w", "-t", str(START_SECONDS)]
            code, said = self._run("pg_ctl", "-D", self.data, *wait, "-l", log, "-o", options, "start")
            if code == 0:
                (self.home / "port").write_text(str(port), encoding="ascii")
                return
            with log.open("rb") as handle:
                handle.seek(before)
                written = handle.read().decode(errors="replace")
            if time.monotonic() > deadline:
                raise ServerError("The embedded PostgreSQL does not start.", [*written.splitlines()[-10:], str(log)])
            if "could not bind" in written and may_move:
                port = free_port()
            elif "still in use" in written:
                time.sleep(0.1)  # The killed server's last processes are about to end.
            else:
                last = [*said.splitlines()[-2:], *written.splitlines()[-10:], f"see {log}"]
                raise ServerError("The embedded PostgreSQL does not start.", last)

    def _done(self, program: str, *words: str | Path, said: str = "") -> str:
        code, answer = self._run(program, *words, said=said)
        if code:
            raise ServerError(f"{program} of {self._programs.folder} failed ({code}).", answer.splitlines()[-10:])
        return answer

    def _run(self, program: str, *words: str | Path, said: str = "") -> tuple[int, str]:
        """Exit code and all that it printed."""
        done = self._as_account([str(self._programs.folder / program), *map(str, words)], str(self.cluster), said)
        return done.returncode, done.stdout

    def _as_account(self, words: list[str], folder: str, said: str = "") -> subprocess.CompletedProcess[str]:
        who = self._account
        return subprocess.run(  # noqa: S603  (programs of ours, and no word of anybody else's)
            words,
            check=False,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "LC_ALL": "C", "TZ": "UTC"},
            input=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            user=None if who is None else who.uid,
            group=None if who is None else who.gid,
            extra_groups=None if who is None else [],
            # A Ctrl-C at the keyboard is for us; whether the server stops is decided by who else uses it.
            start_new_session=True,
        )


def _account(cluster: Path) -> Account:
    """The owner of the database if there is one, else `postgres`, else `nobody`; no user is ever made."""
    if cluster.exists() and cluster.stat().st_uid != 0:
        return Account(str(cluster.stat().st_uid), cluster.stat().st_uid, cluster.stat().st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerError("PostgreSQL refuses to run as root, and there is no system user postgres or nobody to run it as.")


def _locked(path: Path, how: int) -> IO[str]:
    """An open file that holds a kernel lock until it is closed; programs that are started do not inherit it.

    Raises:
        BlockingIOError: others hold it, and `how` says not to wait.
    """
    try:
        handle = path.open("a", encoding="ascii")
    except PermissionError as error:
        raise UsageError(f"{path} belongs to another user. Set JIFEN_HOME to a folder of yours.") from error
    try:
        fcntl.flock(handle, how)
    except BaseException:
        handle.close()
        raise
    return handle


def _write_private(path: Path, text: str, owner: Account | None = None) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        if owner is not None:
            os.chown(handle, owner.uid, owner.gid)
        file.write(text)
