"""`jifen demo` as somebody runs it: a process of its own, in a terminal and without one."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from api.demo_folder import demo_folder
from data_contracts.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--enterprises", "200", "--seed", "4", "--requests", "8", "--institutions", "5", "--outlets", "12")
SCRIPT = "import sys; from api.cli import app; sys.argv[0] = 'jifen'; app()"
SECONDS = 300


class Terminal:
    """A program in a terminal of its own, whose output is read as it comes."""

    def __init__(self, home: Path, *words: str) -> None:
        ours, theirs = pty.openpty()
        self._file = ours
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *words], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
            start_new_session=True, env=surroundings(home),
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=30)
        os.close(self._file)

    def until(self, word: str) -> None:
        ends = time.monotonic() + SECONDS
        while word not in self.said:
            assert time.monotonic() < ends, self.said[-3000:]
            if select.select([self._file], [], [], 0.2)[0]:
                try:
                    self._read()
                except OSError:
                    raise AssertionError(f"it ended without {word!r}: {self.said[-3000:]}") from None

    def interrupt(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        ends = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < ends:
            if select.select([self._file], [], [], 0.2)[0]:
                try:
                    self._read()
                except OSError:
                    break
        return self.process.wait(timeout=30)

    def _read(self) -> None:
        """What it said, without the terminal's colours."""
        self.said += re.sub(r"\x1b\[[0-9;]*m", "", os.read(self._file, 65536).decode(errors="replace"))


def surroundings(home: Path) -> dict[str, str]:
    return {**os.environ, "JIFEN_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "120", "POLARS_MAX_THREADS": "2"}


def processes_with(home: Path) -> list[str]:
    """Every process that has the folder in its command line or its environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(home).encode() in told and int(entry.name) != os.getpid():
            found.append(told.split(b"\0", 1)[0].decode(errors="replace"))
    return found


def test_the_demonstration_goes_on_to_signed_loans_and_serves_until_ctrl_c(home: Path) -> None:
    with Terminal(home, "demo", *SMALL) as terminal:
        terminal.until("jifen invariants")
        said = terminal.said
        assert re.search(r"grabs sent \d+: won [1-9]", said)
        assert "different from the batch's: 0" in said
        assert "events left out of them: 0" in said
        assert re.search(r"合计 all +12 +[1-9]", said)
        assert re.search(r"requests: .*\b[1-9]\d* (active|signed)", said)
        assert re.search(r"I1 +At most one winner.* 0 ", said)

        # An engineer's own program gets a card, the enterprise accepts, and the signing is reported.
        assert (home / "demo" / "bank.pem").stat().st_mode & 0o777 == 0o600
        client = [sys.executable, str(ROOT / "examples" / "bank_client.py"), str(home / "demo" / "bank.json"), "--once"]
        done = subprocess.run(client, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        assert "signed" in done.stdout

        assert terminal.interrupt() == 0
        assert "the hall is closed" in terminal.said
    assert processes_with(home) == []


def test_ctrl_c_while_it_works_leaves_no_process_behind(home: Path) -> None:
    with Terminal(home, "demo", *SMALL) as terminal:
        terminal.until("3 训练 train")
        assert terminal.interrupt() != 0
    assert processes_with(home) == []


def test_a_second_demonstration_beside_the_first_takes_a_folder_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIFEN_HOME", str(home))
    with demo_folder(None, serves=True) as first:
        with demo_folder(None, serves=True) as second, demo_folder(None, serves=True) as third:
            assert [first, second, third] == [home / "demo", home / "demo-2", home / "demo-3"]
        with pytest.raises(UsageError, match="in use"), demo_folder(first, serves=True):
            pass
    with demo_folder(None, serves=True) as again:
        assert again == first


@pytest.mark.soak
def test_two_demonstrations_run_beside_each_other_and_end_well_without_a_terminal(home: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, "demo", *SMALL]
    both = [
        subprocess.Popen(words, env=surroundings(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, errors = process.communicate(timeout=2 * SECONDS)
        assert process.returncode == 0, errors
        assert re.search(r"grabs sent \d+: won [1-9]", out)
    assert processes_with(home) == []
