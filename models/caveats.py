"""What must be said aloud beside figures, in Chinese and English, one sentence a line.

Of a label that is no 12-month default, of columns that no certificate covers, of a day that the model should not have
known, and of facts that did not count because their rows are in quarantine.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from data_contracts.checking import SEPARATOR
from data_contracts.sources import Sources
from models.artefact import Manifest
from models.dataset import told_of_lately
from models.sources.folder import Folder

MOST_NAMED = 20
QUARTER_DAYS = 92


def undated_defaults(undated: int, defaults: int, months: int) -> tuple[str, ...]:
    """What is to be said of defaults of which nobody knows whether they fell within the horizon."""
    if not undated:
        return ()
    said = (
        f"{undated:,} of {defaults:,} defaults carry no date of their own; this is no {months}-month PD. "
        f"{defaults:,}笔违约中{undated:,}笔没有日期,此处并非{months}个月违约概率。"
    )
    return (said,)


def unpromised_columns(names: Sequence[str]) -> tuple[str, ...]:
    """What is to be said of columns from outside the catalogue, of which neither day nor direction is known."""
    if not names:
        return ()
    said = (
        f"{', '.join(names)}: from outside the catalogue, without the day on which it was known and without a promised "
        "direction; the certificate says nothing of it, so what is better may lower a limit, what is withheld may "
        f"raise it, and it may hold what was learned later. {'、'.join(names)}:目录之外的列,"
        "未注明知悉日期,方向未经承诺,单调性证书不涵盖。"
    )
    return (said,)


def of_model(manifest: Manifest, as_of: date | None = None) -> tuple[str, ...]:
    """Of a stored model: what its manifest says of the label, and whether the day looked from is before its own."""
    return (*manifest.caveats, *before_training(manifest, as_of))


def before_training(manifest: Manifest, as_of: date | None) -> tuple[str, ...]:
    """A model scored on a day before its facts or its outcomes were known was trained with what nobody knew then."""
    if as_of is None:
        return ()
    said: list[str] = []
    if as_of < date.fromisoformat(manifest.as_of):
        said.append(
            f"the day looked from, {as_of}, is before the model's own training day {manifest.as_of}: it was trained "
            f"with what was not known then. 基准日{as_of}早于模型训练日{manifest.as_of},模型使用了当时未知的信息。"
        )
    labels = manifest.labels_known_on
    if labels is not None and as_of < date.fromisoformat(labels):
        said.append(
            f"the day looked from, {as_of}, is before {labels}, when the last outcome that the model learned from was "
            f"known: its figures on that day are too good. 基准日{as_of}早于训练所用最后一笔贷款结果的知悉日{labels},"
            "当日的表现被高估。"
        )
    return tuple(said)


def of_default_day(sources: Sources, day: date) -> tuple[str, ...]:
    """A day that nobody named and of which hardly a fact is near: one mistyped date may have moved the whole park."""
    near, firms = told_of_lately(sources, day, QUARTER_DAYS)
    if 2 * near >= firms:
        return ()
    said = (
        f"the day looked from, {day}, follows the latest fact known, but of {near:,} of {firms:,} enterprises only a "
        f"fact became known in the quarter before it: a date may be mistyped; name the day by --as-of. "
        f"基准日{day}取自最晚获知的事实,但此前一季度内仅{near:,}/{firms:,}家企业有新获知的事实,请核对日期或用--as-of指定。"
    )
    return (said,)


def of_quarantine(found: Folder, folder: object) -> tuple[str, ...]:
    """How many rows did not count, in which sources, and the enterprises that fell out with them; none: nothing."""
    counts = {name: report.quarantined for name, report in found.reports.items() if report.quarantined}
    if not counts:
        return ()
    lost = without_registry(found)
    named = ", ".join(lost[:MOST_NAMED]) + (f" and {len(lost) - MOST_NAMED:,} more" if len(lost) > MOST_NAMED else "")
    repeated = sum(report.duplicates for report in found.reports.values())
    only = f"; {repeated:,} only repeat another row" if repeated else ""
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    said = (
        f"{sum(counts.values()):,} rows in quarantine ({rows}{only}), "
        f"{len(lost):,} enterprises without a usable registry row{': ' if lost else ''}{named}; "
        f"every rule broken: jifen data check {folder}"
    )
    return (said,)


def without_registry(found: Folder) -> Sequence[str]:
    """Credit codes that stand in quarantined rows of `enterprises` and in no good one, sorted."""
    held = found.quarantined.get("enterprises")
    if held is None:
        return []
    codes = held["uscc"].drop_nulls().unique()
    return codes.filter(~codes.is_in(found.sources.enterprises["uscc"].unique().implode())).sort().to_list()


def why_without_registry(found: Folder, uscc: str) -> list[str]:
    """Row and broken rules of each quarantined registry row of an enterprise."""
    held = found.quarantined.get("enterprises")
    if held is None:
        return []
    file = found.reports["enterprises"].file
    rows = held.filter(pl.col("uscc") == uscc).select("row", "rules")
    return [f"{file} row {row}: {rules.replace(SEPARATOR, ', ')}" for row, rules in rows.iter_rows()]


def quarantined_of(found: Folder, uscc: str) -> tuple[str, ...]:
    """How many rows of one enterprise did not count, by source; none: nothing."""
    counts = {name: rows.filter(pl.col("uscc") == uscc).height for name, rows in found.quarantined.items()}
    named = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return (f"rows of this enterprise in quarantine, which did not count 隔离的记录未计入: {named}",) if named else ()
