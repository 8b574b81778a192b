"""What this machine says of processes and ports."""

import re
import socket
import subprocess
from pathlib import Path

HOST = "127.0.0.1"
"""Where an embedded server listens, and nowhere else."""


def postgres_runs(pid: int) -> bool:
    """Whether a process is a living PostgreSQL.

    A zombie still takes signals, and stays one in a container whose first process waits for nobody; and after a
    restart of the machine the number may be a stranger's.
    """
    try:
        name, state = re.findall(r"\((.*)\) (\S)", Path(f"/proc/{pid}/stat").read_text(errors="replace"))[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended between opening and reading
        if Path("/proc/self").exists():
            return False
        words = ["/bin/ps", "-o", "stat=,comm=", "-p", str(pid)]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout  # noqa: S603
        state, _, name = said.strip().partition(" ")
    return name.strip().endswith("postgres") and not state.startswith("Z")


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port that nothing used a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
