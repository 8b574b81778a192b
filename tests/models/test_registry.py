import json
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest

from data_contracts.errors import ArtefactError, UsageError
from models.registry import (
    _append,
    _locked,
    champion,
    champion_version,
    history,
    listed,
    models_folder,
    promote,
    register,
    shown,
)
from models.verdict import PHRASES, Verdict
from tests.models.trained import development, parts, sample

AT = datetime(2026, 2, 1, 9, tzinfo=UTC)
MINUTES = " / ".join(phrases[0] for phrases in PHRASES.values())
"""Quotes the words of every verdict, so that a test need not know the small model's."""


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_registered_model_is_a_challenger_and_nothing_is_served(home: Path) -> None:
    version = register(home, parts(), at=AT)
    (entry,) = listed(home)
    assert (entry.version, entry.status, entry.registered_at) == (version, "challenger", AT)
    assert entry.manifest.sentence == development().sentence
    assert champion(home) is None


def test_an_empty_home_has_no_models(home: Path) -> None:
    assert listed(home) == history(home) == ()
    assert champion_version(home) is None


def test_a_promotion_makes_the_champion_and_retires_the_one_before(home: Path) -> None:
    first, second = register(home, parts(), at=AT), register(home, parts(as_of=date(2026, 3, 1)), at=AT)
    promote(home, first, MINUTES, at=AT)
    act = promote(home, second, f"  {MINUTES} §2 ", at=AT)
    assert act.minutes == f"{MINUTES} §2"
    assert [entry.status for entry in listed(home)] == ["retired", "champion"]
    served = champion(home)
    assert served is not None
    assert served.version == second
    table, _ = sample()
    assert served.log_odds(table)[0] == development().pipeline.log_odds(table)[0]
    assert [one.minutes for one in history(home) if (one.act, one.version) == ("promote", first)] == [MINUTES]
    promote(home, first, MINUTES, at=AT)
    assert champion_version(home) == first


def test_a_model_registered_twice_is_one_model(home: Path) -> None:
    assert register(home, parts(), at=AT) == register(home, parts(), at=AT)
    assert len(listed(home)) == 1


@pytest.mark.parametrize("minutes", ["", "  \n"])
def test_a_promotion_without_minutes_is_refused(home: Path, minutes: str) -> None:
    version = register(home, parts(), at=AT)
    with pytest.raises(UsageError, match="minutes"):
        promote(home, version, minutes, at=AT)
    assert champion_version(home) is None


@pytest.mark.parametrize("verdict", [Verdict.DOES_NOT_BEAT, Verdict.CANNOT_TELL, Verdict.NOT_COMPARED])
@pytest.mark.parametrize("place", [0, 1])
def test_minutes_must_quote_that_the_model_did_not_beat_the_rule(home: Path, verdict: Verdict, place: int) -> None:
    version = register(home, parts(of=replace(development(), verdict=verdict)), at=AT)
    with pytest.raises(UsageError) as refused:
        promote(home, version, "committee 2026-02-01: a fine model that beats all", at=AT)
    assert PHRASES[verdict][0] in str(refused.value)
    assert development().sentence in str(refused.value)
    promote(home, version, f"2026-02-01: we know that it\n {PHRASES[verdict][place].upper()} the rule", at=AT)
    assert champion_version(home) == version


def test_a_model_that_beats_the_rule_needs_no_such_words(home: Path) -> None:
    version = register(home, parts(of=replace(development(), verdict=Verdict.BEATS)), at=AT)
    promote(home, version, "2026-02-01 §1", at=AT)
    assert champion_version(home) == version


@pytest.mark.parametrize("area", [0.31, 0.5])
def test_a_model_no_better_than_a_coin_is_promoted_by_no_words(home: Path, area: float) -> None:
    trained = development()
    own = trained.figures[0]
    guessing = replace(own, metrics={**own.metrics, "auc": replace(own.metrics["auc"], mean=area)})
    version = register(home, parts(of=replace(trained, figures=(guessing, *trained.figures[1:]))), at=AT)
    with pytest.raises(UsageError, match=f"AUC in cross-validation is {area:.3f}, no better than a coin"):
        promote(home, version, MINUTES, at=AT)
    assert champion_version(home) is None


def test_a_model_without_a_certificate_cannot_be_promoted(home: Path) -> None:
    trained = development()
    bad = replace(trained, bag=(replace(trained.bag[0], weight=-0.1),))
    version = register(home, parts(of=bad), at=AT)
    with pytest.raises(ArtefactError, match="bag member 1"):
        promote(home, version, MINUTES, at=AT)
    assert champion_version(home) is None


def test_a_changed_model_cannot_be_promoted_nor_served(home: Path) -> None:
    version = register(home, parts(), at=AT)
    promote(home, version, MINUTES, at=AT)
    (models_folder(home) / version / "training.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"training\.json was changed"):
        champion(home)
    other = register(home, parts(as_of=date(2026, 3, 1)), at=AT)
    (models_folder(home) / other / "bag.json").unlink()
    with pytest.raises(ArtefactError, match=r"bag\.json is missing"):
        promote(home, other, MINUTES, at=AT)


def test_an_unknown_version_is_refused_with_those_there_are(home: Path) -> None:
    version = register(home, parts(), at=AT)
    for act in (lambda: promote(home, "20200101-0", MINUTES, at=AT), lambda: shown(home, "20200101-0")):
        with pytest.raises(UsageError, match=version):
            act()


def test_the_champion_is_not_promoted_again(home: Path) -> None:
    version = register(home, parts(), at=AT)
    promote(home, version, MINUTES, at=AT)
    with pytest.raises(UsageError, match="already"):
        promote(home, version, MINUTES, at=AT)


def test_a_time_without_a_zone_is_a_mistake_of_the_caller(home: Path) -> None:
    with pytest.raises(ValueError, match="zone"):
        register(home, parts(), at=datetime(2026, 2, 1))  # noqa: DTZ001


def with_three_lines(home: Path) -> list[str]:
    first = register(home, parts(), at=AT)
    register(home, parts(as_of=date(2026, 3, 1)), at=AT)
    promote(home, first, MINUTES, at=AT)
    return (home / "registry.jsonl").read_text().splitlines()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_edited_line_is_noticed(home: Path, number: int) -> None:
    lines = with_three_lines(home)
    edited = json.loads(lines[number]) | {"minutes": "2026-01-01 approved by all"}
    lines[number] = json.dumps(edited, ensure_ascii=False, sort_keys=True)
    (home / "registry.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtefactError, match=f"line {number + 1} does not fit"):
        history(home)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_line_edited_with_its_own_hash_made_to_fit_is_noticed(home: Path, number: int) -> None:
    lines = with_three_lines(home)
    edited = json.loads(lines[number]) | {"minutes": "2026-01-01 approved by all"}
    del edited["hash"]
    own = sha256(json.dumps(edited, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    lines[number] = json.dumps(edited | {"hash": own}, ensure_ascii=False, sort_keys=True)
    (home / "registry.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtefactError, match="changed after it was written"):
        history(home)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_line_taken_out_is_noticed(home: Path, number: int) -> None:
    lines = with_three_lines(home)
    del lines[number]
    (home / "registry.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtefactError, match="changed after it was written"):
        champion(home)


def test_a_swapped_or_repeated_line_is_noticed(home: Path) -> None:
    lines = with_three_lines(home)
    for order in ([1, 0, 2], [0, 1, 2, 2], [0, 0, 1, 2]):
        (home / "registry.jsonl").write_text("".join(lines[place] + "\n" for place in order))
        with pytest.raises(ArtefactError, match="does not fit"):
            history(home)


@pytest.mark.parametrize("content", ["", "x", "3", f"9 {'0' * 64}", f"1 {'0' * 64}"])
def test_an_edited_head_is_noticed(home: Path, content: str) -> None:
    with_three_lines(home)
    (home / "registry.head").write_text(content)
    with pytest.raises(ArtefactError, match="changed after it was written"):
        history(home)


def test_a_removed_head_is_noticed(home: Path) -> None:
    with_three_lines(home)
    (home / "registry.head").unlink()
    with pytest.raises(ArtefactError, match="head"):
        history(home)


def test_a_line_cut_off_half_way_does_not_count_and_the_next_act_takes_its_place(home: Path) -> None:
    first = register(home, parts(), at=AT)
    with (home / "registry.jsonl").open("a") as log:
        log.write('{"act": "promote", "at": "2026-02')
    assert [act.act for act in history(home)] == ["register"]
    promote(home, first, MINUTES, at=AT)
    assert [act.act for act in history(home)] == ["register", "promote"]


def test_a_line_whose_head_was_not_written_yet_counts(home: Path) -> None:
    first = register(home, parts(), at=AT)
    head = (home / "registry.head").read_text()
    promote(home, first, MINUTES, at=AT)
    (home / "registry.head").write_text(head)
    assert champion_version(home) == first
    register(home, parts(as_of=date(2026, 3, 1)), at=AT)
    assert len(history(home)) == 3


def test_promotions_at_once_all_stand_in_one_unbroken_chain(home: Path) -> None:
    # The lock belongs to an opened file, so threads keep each other out just as processes do.
    versions = [register(home, parts(as_of=date(2026, 3, day)), at=AT) for day in range(1, 6)]
    gate = Barrier(len(versions))

    def promoted(version: str) -> str:
        gate.wait(60)
        return promote(home, version, MINUTES, at=AT).version

    with ThreadPoolExecutor(len(versions)) as pool:
        assert list(pool.map(promoted, versions)) == versions
    acts = [act.version for act in history(home) if act.act == "promote"]
    assert sorted(acts) == versions
    assert champion_version(home) == acts[-1]


def test_a_promotion_waits_for_the_one_that_is_being_written(home: Path) -> None:
    first, second = (register(home, parts(as_of=date(2026, 3, day)), at=AT) for day in (1, 2))
    with ThreadPoolExecutor(1) as pool:
        with _locked(home):
            waiting = pool.submit(promote, home, second, MINUTES, at=AT)
            _append(home, "promote", first, minutes=MINUTES, at=AT)
            assert not wait([waiting], timeout=3).done
        assert waiting.result(60).number == 4
