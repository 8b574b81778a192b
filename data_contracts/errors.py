"""The tree of errors, parted by who is at fault.

    JifenError
    ├── ContractError     the data handed in breaks a contract (exit 3)
    ├── PolicyError       a policy or ruleset file is wrong (exit 3)
    ├── ArtefactError     a stored model is missing, changed or not fit to be served (exit 3)
    ├── ReplayError       a stored decision cannot be recomputed (exit 1)
    └── UsageError        the caller asked for something that does not exist (exit 2)

Each carries a stable `code`, a sentence, and `problems`: every broken rule at once, never just the first.
No message repeats the value of a personal field.
"""

from collections.abc import Sequence


class JifenError(Exception):
    """Something the world can do went wrong; `str()` is a sentence for a person."""

    code = "error"
    exit_code = 1

    def __init__(self, sentence: str, problems: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"  - {problem}" for problem in self.problems)])


class ContractError(JifenError):
    """The data handed in breaks a contract."""

    code = "contract-broken"
    exit_code = 3


class PolicyError(JifenError):
    """A policy or ruleset file is wrong."""

    code = "policy-wrong"
    exit_code = 3


class ArtefactError(JifenError):
    """A stored model is missing, changed or not fit to be served."""

    code = "artefact-refused"
    exit_code = 3


class ReplayError(JifenError):
    """A stored decision cannot be recomputed to the same bytes."""

    code = "replay-differs"
    exit_code = 1


class UsageError(JifenError):
    """The caller asked for something that does not exist."""

    code = "usage"
    exit_code = 2
