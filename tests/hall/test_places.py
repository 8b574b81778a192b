"""Where the tests' servers lie, and what is swept there."""

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import DISK, PLACE_NAME, ROOM_BYTES, place
from tests.hall.conftest import FORGOTTEN_SECONDS, OURS, own_folder, sweep

ENVIRONMENT = Path("/proc/self/environ")
"""As it was when the process began, whatever it set since."""


def aged(folder: Path) -> Path:
    """The folder, made if it is not there, as one that nothing was made in for longer than a run takes."""
    folder.mkdir(exist_ok=True)
    long_ago = time.time() - 2 * FORGOTTEN_SECONDS
    os.utime(folder, (long_ago, long_ago))
    return folder


def test_what_a_killed_run_left_is_swept_in_every_place_and_what_is_young_or_used_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    left = [aged(memory / f"{OURS}home-a"), aged(disk / f"{OURS}0123456789ab")]
    young, strange = disk / f"{OURS}made-young", aged(disk / "somebody-elses")
    young.mkdir()
    monkeypatch.setenv(PLACE_NAME, str(memory))
    with own_folder("made") as used:
        aged(used)
        sweep(memory, disk)
        assert not any(one.exists() for one in left)
        assert used.exists()
        assert young.exists()
        assert strange.exists()
    assert not used.exists()


@contextmanager
def mounted(folder: Path, how: str) -> Generator[Path]:
    """The folder as memory that is mounted in this way; the test skips where we may not mount."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={2 * ROOM_BYTES},{how}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("we may mount nothing here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("how", "taken"), [("exec", True), ("noexec", False)])
def test_memory_where_nothing_may_be_executed_is_no_place(tmp_path: Path, how: str, *, taken: bool) -> None:
    with mounted(tmp_path / "memory", how) as memory:
        assert place(memory, DISK) == (memory if taken else DISK)


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="a run without workers")
@pytest.mark.skipif(not ENVIRONMENT.exists(), reason="a system that does not tell with what a process began")
def test_a_worker_is_told_the_place_by_its_run() -> None:
    told = ENVIRONMENT.read_bytes().split(b"\0")
    assert f"{PLACE_NAME}={os.environ[PLACE_NAME]}".encode() in told
