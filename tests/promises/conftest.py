"""Small real models on a made-up park and on real firms, trained once a session and shared by its processes."""

import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from data_contracts.checking import sources_of
from data_contracts.samples import AS_OF, park
from data_contracts.sources import Sources
from models.artefact import Facts, Model, Parts, load
from models.batch import Engine
from models.dataset import INPUTS, LABEL, comparisons, dataset
from models.development import data_hash, references
from models.registry import models_folder, register
from models.rulebooks import rulebook
from models.sources.cumcm2020c import OPENED_ON, frames_of
from models.validation import develop
from tests import make
from tests.promises.thorny import thorny
from tests.promises.worlds import Frames, World, decided, kept

ROOT_OF_CODE = Path(__file__).resolve().parents[2]
BAG = 7
PARK_FIRMS = 320
SHORT_FIRMS = 140
REAL_FIRMS = 45
REAL_MOST_INVOICES = 900


@dataclass(frozen=True)
class Home:
    """A home folder with one registered model."""

    folder: Path
    version: str

    def model(self) -> Model:
        """The model, loaded and verified."""
        return load(models_folder(self.folder) / self.version)


def trained(folder: Path, sources: Sources, as_of: date) -> Home:
    """A model with few repeats and a small bag; of several processes the first trains it, the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "version"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file():
            rows = dataset(sources)
            rivals = {"one_variable": comparisons()["one_variable"]}
            development = develop(
                rows.table, rows.defaulted, INPUTS, comparisons=rivals, seed=0, repeats=1, folds=2, bag=BAG
            )
            facts = Facts(as_of, LABEL, "12 months", data_hash(rows.table, rows.defaulted), ())
            parts = Parts(development, references(rows.table, INPUTS), facts)
            done.write_text(register(folder, parts, at=datetime(2026, 7, 1, tzinfo=UTC)))
    return Home(folder, done.read_text())


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A temporary folder that all processes of this test run see."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def park_home(shared_folder: Path) -> Home:
    """The model trained on the made-up park."""
    return trained(shared_folder / "park-model", make.checked_sources(park(PARK_FIRMS, 1).frames), AS_OF)


@pytest.fixture(scope="session")
def park_engine(park_home: Home) -> Engine:
    """That model under the shipped policy of the park."""
    return Engine(park_home.model(), rulebook("torch-points"))


def park_world(seed: int, firms: int) -> World:
    """A park to decide on, without outcomes: they are no facts."""
    frames = dict(park(firms, seed).frames)
    frames["loan_outcomes"] = frames["loan_outcomes"].clear()
    return World(frames, AS_OF)


@pytest.fixture(scope="session")
def plain_world() -> World:
    """Firms as the park makes them."""
    return park_world(2, SHORT_FIRMS)


@pytest.fixture(scope="session")
def thorny_world() -> World:
    """Firms of a park with invoices that break naive features."""
    return thorny(park_world(3, SHORT_FIRMS), 3)


@pytest.fixture(scope="session")
def real_sources(shared_data: Path) -> Sources:
    """The 425 real firms, exact duplicates left out."""
    return sources_of(frames_of(shared_data / "cumcm2020c"))[0]


@pytest.fixture(scope="session")
def real_engine(shared_folder: Path, real_sources: Sources) -> Engine:
    """The model trained on real firms, under the contest's policy."""
    return Engine(trained(shared_folder / "real-model", real_sources, OPENED_ON).model(), rulebook("cumcm2020c"))


@pytest.fixture(scope="session")
def all_real_world(real_sources: Sources) -> World:
    """Every real firm, without outcomes."""
    frames: Frames = {name: rows for name, rows in vars(real_sources).items() if name != "doubts"}
    frames["invoices"] = with_links(frames["invoices"])
    return World({**frames, "loan_outcomes": frames["loan_outcomes"].clear()}, OPENED_ON)


def with_links(invoices: pl.DataFrame, most: int = 3) -> pl.DataFrame:
    """The set names no sale that a red letter reverses: here some do, an earlier one to the same buyer, large enough.

    Every other red letter stays unlinked, as it came.
    """
    numbered = invoices.with_row_index("row")
    sold = numbered.filter(~pl.col("is_void"), direction="out")
    red = sold.filter(pl.col("net_fen") < 0).group_by("uscc", maintain_order=True).head(most)
    sales = sold.filter(pl.col("net_fen") > 0).select(
        "uscc", "counterparty_id", sold_on="issued_on", sold_fen="net_fen", named="invoice_no"
    )
    fits = (pl.col("sold_on") <= pl.col("issued_on")) & (pl.col("sold_fen") >= -pl.col("net_fen"))
    links = (
        red.join(sales, on=["uscc", "counterparty_id"])
        .filter(fits)
        .sort("row", "sold_on", "named")
        .unique("row", keep="first")
    )
    linked = numbered.join(links.select("row", "named"), on="row", how="left", maintain_order="left")
    return linked.with_columns(red_of=pl.coalesce("red_of", "named")).select(invoices.columns)


@pytest.fixture(scope="session")
def real_world(all_real_world: World) -> World:
    """Some real firms with not too many invoices each."""
    counts = all_real_world.frames["invoices"].group_by("uscc").len().filter(pl.col("len") <= REAL_MOST_INVOICES)
    return kept(all_real_world, counts["uscc"].sort().gather_every(max(1, counts.height // REAL_FIRMS)))


ROUND_FIRMS = 400


def soak_worlds(soak_length: int, seed: int) -> Iterator[tuple[int, World]]:
    """Worlds of ten firms for each of the length, every second one thorny, each with a seed of its own."""
    for round_ in range(max(1, 10 * soak_length // ROUND_FIRMS)):
        world = park_world(seed + round_, ROUND_FIRMS)
        yield seed + round_, world if round_ % 2 else thorny(world, seed + round_)


Before = Callable[[str], tuple[World, Engine, pl.DataFrame]]


@pytest.fixture(scope="session")
def before(request: pytest.FixtureRequest) -> Before:
    """A world by the name of its fixture, its engine, and its decisions before any edit."""
    found: dict[str, tuple[World, Engine, pl.DataFrame]] = {}

    def of(name: str) -> tuple[World, Engine, pl.DataFrame]:
        if name not in found:
            engine = request.getfixturevalue("real_engine" if name.startswith(("real", "all_real")) else "park_engine")
            world = request.getfixturevalue(name)
            found[name] = world, engine, decided(engine, world)
        return found[name]

    return of
