"""The risk officer's commands. A command parses, calls one function, prints.

What a command needs is imported when it runs, so that `jifen --help` answers at once instead of loading the numerical
libraries first.
"""

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import UsageError

officer = typer.Typer(no_args_is_help=True)
data = typer.Typer(no_args_is_help=True, help="Source files: sample, import, check, describe.")
models = typer.Typer(no_args_is_help=True, help="The registry of trained models.")
policy = typer.Typer(no_args_is_help=True, help="Policies: check, show.")
officer.add_typer(data, name="data")
officer.add_typer(models, name="models")
officer.add_typer(policy, name="policy")

DEFAULT_POLICY = "torch-points"
FIRST_DAY, LAST_DAY = date(1990, 1, 1), date(2199, 12, 31)
MOST_SEED = 2**31 - 1

Folder = Annotated[Path, typer.Argument(help="Folder of source files, one per contract, parquet or CSV.")]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        formats=["%Y-%m-%d"],
        help="The day looked from; by default the day after the latest fact known, "
        "outcomes and an applicant's word about what others deliver aside.",
    ),
]
Model = Annotated[str | None, typer.Option("--model", help="Version of a registered model; by default the champion.")]
Policy = Annotated[str, typer.Option("--policy", help="A shipped policy (torch-points, cumcm2020c) or a file.")]


def home() -> Path:
    """Where what programs write is kept: JIFEN_HOME, or `var` in the current folder."""
    return Path(os.environ.get("JIFEN_HOME") or "var")


def _day(moment: datetime | None) -> date | None:
    if moment is None:
        return None
    if not FIRST_DAY <= moment.date() <= LAST_DAY:
        raise UsageError(f"--as-of must lie between {FIRST_DAY} and {LAST_DAY}")
    return moment.date()


@data.command("sample")
def data_sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it is not there.")],
    enterprises: Annotated[int, typer.Option("--enterprises", min=1, max=20_000, help="How many firms.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="The same seed gives the same park.")] = 1,
    dirty_share: Annotated[
        float, typer.Option("--dirty-share", min=0, max=0.01, help="Share of rows of each kind of dirt.")
    ] = 0.0,
    form: Annotated[str, typer.Option("--format", help="parquet or csv.")] = "parquet",
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace source files that are no made-up park as well.")
    ] = False,
) -> None:
    """Write a made-up park as source files, and the true PDs of its loans as truth.parquet.

    Everything in it is invented: it tests software and says nothing about real firms.

    Example: jifen data sample park --enterprises 600 --seed 1
    """
    from models.park import write_park

    written = write_park(folder, enterprises, seed, dirty_share=dirty_share, form=form, force=force)
    typer.echo(
        f"{folder}: {written['enterprises']:,} rows of enterprises, {written['invoices']:,} invoices, seed {seed}"
    )


@data.command("import")
def data_import(
    kind: Annotated[str, typer.Argument(help="The data set: cumcm2020c.")],
    src: Annotated[Path, typer.Argument(help="Folder of the prepared data set.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write source files to; not the data set's own.")],
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace source files that are no import of the set as well; source files that the set does not have "
            "are refused in any case.",
        ),
    ] = False,
) -> None:
    """Convert a real data set to source files.

    cumcm2020c: VAT invoices of 425 Chinese SMEs (CUMCM 2020 problem C). Its defaults carry no dates: the importer
    assumes that each loan was opened on 2020-02-22, the day after the last invoice, for 12 months, and was watched
    until 2021-02-22. Credit codes are made up. The bank's rating and the number of the firm never reach a feature.
    Marks are written for the invoices only, the one thing the set delivers whole.

    Example: jifen data import cumcm2020c SRC real
    """
    from models.sources.importing import import_folder

    for name, rows in import_folder(kind, src, folder, force=force).items():
        typer.echo(f"{name}: {rows:,} rows")


@data.command("check")
def data_check(
    folder: Folder,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report as JSON as well.")] = None,
) -> None:
    """Check every source file; bad rows go to DIR/quarantine with every rule they broke.

    Exit 0 if every file could be read (rows in quarantine are counted, not an error), 3 if one could not; the others
    are checked all the same.

    Example: jifen data check park --report report.json
    """
    from models import progress, views
    from models.outputs import output_problems
    from models.sources.folder import examine, require_own_quarantine, write_quarantine
    from models.sources.writing import replacing

    require_own_quarantine(folder)
    if report is not None and (problems := output_problems({report: "report"})):
        raise UsageError("the report cannot be written there", problems)
    with progress.working("reading and checking") as told:
        examined = examine(folder, on_progress=told)
    found = examined.found
    written = write_quarantine(folder, found, unread=examined.unread)
    progress.console().print(views.check_table(found))
    for warning in found.warnings:
        typer.echo(f"warning: {warning}")
    for file in written:
        typer.echo(f"quarantine: {file}")
    if written:
        typer.echo("what each code means: jifen data describe")
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        with replacing(report) as beside:
            beside.write_text(views.check_json(examined), encoding="utf-8")
    if examined.fault is not None:
        raise examined.fault


@data.command("describe")
def data_describe(
    *,
    features: Annotated[bool, typer.Option("--features", help="Print the feature catalogue instead.")] = False,
) -> None:
    """Print every column of every source file: type, null, what is allowed, meaning; and the codes of the quarantine.

    Example: jifen data describe
    Example: jifen data describe --features
    """
    from models import progress, views
    from models.sources.folder import describe, quarantine_codes

    console = progress.console()
    if features:
        console.print(views.feature_table())
        return
    console.print(views.contract_table(describe()))
    console.print(views.codes_table(quarantine_codes()))


@officer.command("train")
def train_command(
    folder: Folder,
    as_of: AsOf = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="The same seed and facts give the same model.")
    ] = 0,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=1,
            max=100,
            help="Repeats of cross-validation; by default by the number of loans. Under 5 none can beat a rule.",
        ),
    ] = None,
    extra_column: Annotated[
        list[str] | None,
        typer.Option(
            "--extra-column", help="A column of DIR/extra.parquet or .csv to try; refused if it looks like a leak."
        ),
    ] = None,
    allow_leak: Annotated[
        list[str] | None, typer.Option("--allow-leak", help="Let this extra column in although it looks like a leak.")
    ] = None,
) -> None:
    """Train, calibrate and judge a model on the loans of a folder; registers a challenger.

    Features are taken as of each loan's own opening day; --as-of looks from an earlier day instead.

    Example: jifen train park --seed 1
    """
    from models import progress, views
    from models.caveats import of_quarantine
    from models.development import Extra, train
    from models.extra import read_extra
    from models.sources.folder import read_folder

    with progress.working("reading and checking") as told:
        found = read_folder(folder, on_progress=told)
    columns = read_extra(folder, extra_column or [])
    with progress.steps() as (on_days, on_progress):
        trained = train(
            found.sources,
            home(),
            at=datetime.now(UTC),
            as_of=_day(as_of),
            seed=seed,
            extra=None if columns is None else Extra(columns, frozenset(allow_leak or [])),
            repeats=trials,
            on_days=on_days,
            on_progress=on_progress,
        )
    progress.console().print(views.development_view(trained))
    for caveat in of_quarantine(found, folder):
        typer.echo(f"注意 note: {caveat}")
    typer.echo(f"challenger {trained.version}")


@models.command("list")
def models_list() -> None:
    """List the registered models.

    Example: jifen models list
    """
    from models import progress, views
    from models.registry import listed

    progress.console().print(views.models_table(listed(home())))


@models.command("show")
def models_show(version: Annotated[str, typer.Argument(help="Version of a registered model.")]) -> None:
    """Print all that a stored model says of itself, as JSON.

    Example: jifen models show 20260701-0123456789ab
    """
    from models.registry import shown

    typer.echo(shown(home(), version).manifest.model_dump_json(indent=1))


@models.command("promote")
def models_promote(
    version: Annotated[str, typer.Argument(help="Version of a registered model.")],
    minutes: Annotated[
        str,
        typer.Option(
            "--minutes",
            help="Where the approval is written down; quotes the verdict on a model that does not beat a simple rule.",
        ),
    ],
    allow_unpromised: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-unpromised",
            help="Let a model in that was trained with this extra column; the hall cannot quote with it.",
        ),
    ] = None,
) -> None:
    """Make a challenger the champion; its certificate is computed anew first.

    Example: jifen models promote 20260701-0123456789ab --minutes "2026-07-02 §1: does not beat the log of sales alone"
    """
    from models.registry import promote, shown

    act = promote(home(), version, minutes, at=datetime.now(UTC), unpromised=allow_unpromised or [])
    typer.echo(f"champion {act.version}")
    if names := shown(home(), version).manifest.unpromised:
        typer.echo(f"warning: the hall refuses every limit quote while it is champion: it needs {', '.join(names)}")


@models.command("champion")
def models_champion() -> None:
    """Print the version of the champion.

    Example: jifen models champion
    """
    from models.registry import champion_version

    version = champion_version(home())
    if version is None:
        raise UsageError("there is no champion yet", ["jifen train DIR", "jifen models promote VERSION --minutes TEXT"])
    typer.echo(version)


@officer.command("score")
def score_command(
    folder: Folder,
    out: Annotated[
        Path, typer.Option("--out", help="The limits file (parquet); features.parquet and NAME.run.json go beside it.")
    ],
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the limits as CSV for people as well.")] = None,
    xlsx: Annotated[
        Path | None, typer.Option("--xlsx", help="Write the limits as a workbook for people as well.")
    ] = None,
    *,
    as_of: AsOf = None,
    model: Model = None,
    policy_name: Policy = DEFAULT_POLICY,
) -> None:
    """Compute the reference limit of every enterprise of a folder.

    Example: jifen score park --out limits.parquet --csv limits.csv
    """
    from models import progress, views
    from models.explanation import KNOWN_FIGURES, REFERENCE_ONLY
    from models.scoring_run import score_folder

    with progress.working("scoring") as told:
        scored = score_folder(
            folder,
            out,
            home(),
            csv=csv,
            xlsx=xlsx,
            as_of=_day(as_of),
            model=model,
            policy=policy_name,
            on_progress=told,
        )
    console = progress.console()
    console.print(views.summary_table(scored.limits))
    console.print(views.why_zero_table(scored.limits))
    console.print(views.calibration_table(scored.calibration))
    if scored.stability is not None:
        typer.echo(scored.stability)
    for sentence in (*KNOWN_FIGURES, *REFERENCE_ONLY, *(f"注意 note: {caveat}" for caveat in scored.caveats)):
        typer.echo(sentence)
    day = scored.limits["as_of"][0]
    typer.echo(f"{scored.limits.height:,} decisions as of {day} in {out}; explain one: jifen explain {folder} CODE")


@officer.command("explain")
def explain_command(
    folder: Folder,
    uscc: Annotated[str, typer.Argument(help="Credit code of the enterprise.")],
    as_of: AsOf = None,
    model: Model = None,
    policy_name: Policy = DEFAULT_POLICY,
) -> None:
    """Print one enterprise: the decision, how it came about, the reasons in CNY and the facts.

    Example: jifen explain park 913502110000000094
    """
    from models import progress
    from models.explanation import explanation
    from models.scoring_run import explain_one

    with progress.working("scoring") as told:
        found = explain_one(folder, uscc, home(), as_of=_day(as_of), model=model, policy=policy_name, on_progress=told)
    progress.console().print(explanation(found))


@policy.command("check")
def policy_check(file: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped one.")]) -> None:
    """Parse a policy and say everything that is wrong with it; exit 3 if anything is, 2 if there is no such file.

    Example: jifen policy check my-policy.yaml
    """
    from models.rulebooks import rulebook

    typer.echo(f"{rulebook(file).version}: nothing is wrong with it")


@policy.command("show")
def policy_show(name: Annotated[str, typer.Argument(help="Shipped policy or file.")] = DEFAULT_POLICY) -> None:
    """Print all that decides under a policy, each number and rule with its source.

    Example: jifen policy show torch-points
    """
    from models import progress, views
    from models.rulebooks import rulebook

    book = rulebook(name)
    progress.console().print(views.policy_view(book.policy, book.version))
