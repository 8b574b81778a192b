"""Reading policies and the data they decide with: shipped ones by name, a lender's or zone's own by file."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from data_contracts.errors import PolicyError, UsageError
from scoring.policy import parse_policy
from scoring.rulebook import Rulebook, parse_rulebook

SIZE_CLASSES = "sme-size.2017-12-28"
_POLICIES = "policies"
_RULESETS = "rulesets"
_SIZES = "size_classes"


def _shipped(folder: str) -> dict[str, Traversable]:
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in files("scoring").joinpath(folder).iterdir()
        if entry.name.endswith(".yaml")
    }


def policy_text(policy: str) -> tuple[str, Path | None]:
    """The text of a policy, and the folder it lies in if it is a file of the caller's.

    Args:
        policy: a shipped name (`torch-points`: its latest date; `torch-points.2026-11-01`: that one), or a file.

    Raises:
        UsageError: neither, or no file that can be read; names what is shipped.
        PolicyError: the file is not UTF-8 text.
    """
    path = Path(policy)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return _read(path), path.parent
    shipped = _shipped(_POLICIES)
    dated = sorted(name for name in shipped if name == policy or name.rpartition(".")[0] == policy)
    if not dated:
        raise UsageError(f"no policy file or shipped policy {policy!r}", [f"shipped: {', '.join(sorted(shipped))}"])
    return shipped[dated[-1]].read_text(encoding="utf-8"), None


def rulebook(policy: str) -> Rulebook:
    """A policy with its ruleset and size classes, parsed.

    A ruleset is looked for beside a policy file first (`NAME.yaml`), then among the shipped ones: a zone adds its own
    scale by a file.

    Raises:
        UsageError: no such policy.
        PolicyError: a text is wrong; all its problems at once.
    """
    text, folder = policy_text(policy)
    return rulebook_of(text, folder)


def rulebook_of(text: str, folder: Path | None = None) -> Rulebook:
    """The same from the text of a policy."""
    return parse_rulebook(text, ruleset_text(text, folder), size_text())


def ruleset_text(policy: str, folder: Path | None = None) -> str | None:
    """The text of the ruleset that the text of a policy names; None if it names none."""
    name = parse_policy(policy).ruleset
    if name is None:
        return None
    if folder is not None and (folder / f"{name}.yaml").is_file():
        return _read(folder / f"{name}.yaml")
    shipped = _shipped(_RULESETS)
    if name not in shipped:
        raise PolicyError(
            f"there is no ruleset {name!r}",
            [f"put it beside the policy as {name}.yaml, or use a shipped one: {', '.join(sorted(shipped))}"],
        )
    return shipped[name].read_text(encoding="utf-8")


def size_text() -> str:
    """The text of the shipped size classes."""
    return _shipped(_SIZES)[SIZE_CLASSES].read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read", [error.strerror or type(error).__name__]) from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path.name} is not UTF-8 text", [f"byte {error.start} does not fit"]) from error
