"""The exposure ledger as plain arithmetic, step by step as money moves; written without a look at the SQL."""

from dataclasses import dataclass, field


@dataclass
class Line:
    """A facility: undrawn, drawn, drawn beyond the line, and repaid before any drawdown was known."""

    bank: int
    ceiling: int
    revolving: bool
    binds: bool
    undrawn: int
    drawn: int = 0
    beyond: int = 0
    credit: int = 0
    moved: list[tuple[str, int]] = field(default_factory=list)

    def draw(self, amount: int) -> None:
        """Money went out. What was repaid ahead covers it, on a term loan the part within the line first."""
        covered = min(amount, self.credit)
        self.credit -= covered
        if self.revolving:
            taken = within = min(amount - covered, self.undrawn)
        else:
            taken = min(amount, self.undrawn)
            within = max(taken - covered, 0)
        self.undrawn -= taken
        self.drawn += within
        self.beyond += amount - covered - within

    def repay(self, amount: int) -> None:
        """Money came back, for what is beyond the line first; what nothing is owed for waits for a drawdown."""
        above = min(amount, self.beyond)
        within = min(amount - above, self.drawn)
        self.beyond -= above
        self.drawn -= within
        self.credit += amount - above - within
        if self.revolving:
            self.undrawn += within

    def replayed(self) -> "Line":
        """The same facility if the movements had been known as they are now."""
        anew = Line(self.bank, self.ceiling, self.revolving, self.binds, self.ceiling, moved=self.moved)
        for kind, amount in self.moved:
            anew.draw(amount) if kind == "drawdown" else anew.repay(amount)
        return anew


@dataclass
class Ledger:
    """An enterprise's exposure."""

    limit: int
    target: int | None = None
    schemes: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def counted(self) -> int:
        """What the limit must hold."""
        bound = sum(one.undrawn + one.drawn for one in self.lines.values() if one.binds)
        return bound + sum(self.pending.values())

    def available(self, scheme: str) -> int:
        """What may still be reserved under a scheme: its own quote, all else counted."""
        apart = sum(one.beyond + (0 if one.binds else one.undrawn + one.drawn) for one in self.lines.values())
        whole = self.limit if self.target is None else self.target
        return max(min(whole, self.schemes.get(scheme, 0)) - self.counted() - apart, 0)

    def set_limit(self, scheme: str, amount: int) -> None:
        """A new quote; the greatest of the schemes is the limit of all."""
        self.schemes[scheme] = amount
        self.target = max(self.schemes.values())
        self.settle()

    def settle(self) -> None:
        """A waiting limit takes force as soon as the amounts fit."""
        if self.target is not None and self.counted() <= self.target:
            self.limit, self.target = self.target, None

    def balances(self) -> tuple[int, ...]:
        """limit, pending, committed, drawn, over limit, unbound committed, unbound drawn."""
        lines = self.lines.values()
        return (
            self.limit,
            sum(self.pending.values()),
            sum(one.undrawn for one in lines if one.binds),
            sum(one.drawn for one in lines if one.binds),
            sum(one.beyond for one in lines),
            sum(one.undrawn for one in lines if not one.binds),
            sum(one.drawn for one in lines if not one.binds),
        )
