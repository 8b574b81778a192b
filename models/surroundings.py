"""What a result may depend on besides code and data: package versions and the class of the processor."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("lightgbm", "numpy", "polars", "scipy")
"""Packages whose arithmetic a model's last bits may depend on."""
_FLAGS = ("avx2", "avx512f", "fma", "asimd", "sve")


def packages() -> dict[str, str]:
    """Version of Python and of each package that computes."""
    return dict(_packages())


@cache
def _packages() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@cache
def code_version() -> str:
    """Version of this program; `source` where it runs without being installed."""
    try:
        return version("jifen")
    except PackageNotFoundError:
        return "source"


@cache
def processor() -> str:
    """Machine type and the vector instructions that numerical libraries choose their loops by, such as x86_64+avx2+fma.

    Elsewhere than on Linux the machine type alone is known.
    """
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags.update(words.split())
    except OSError:
        pass
    return "+".join([platform.machine(), *(flag for flag in _FLAGS if flag in flags)])
