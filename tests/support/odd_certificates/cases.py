"""The table of odd certificates and chains, with the expected verdict of each mode and role, and of Go's verifier.

A verdict is OK, REFUSED (for any reason), or the reason. `client` and `spiffe` repeat `server` if they are not given. `go` is
the verdict of Go's verifier for server, client and SPIFFE peer where it is not the same as ours; `why` explains the difference,
and docs/certificates.md lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.odd_certificates.factory import Chain, Names
from tunnel.errors import Denial

OK, REFUSED = "ok", "refused"
ROLES = ("server", "client", "spiffe")
Verdict = str | Denial
Build = Callable[[Names], Chain]


@dataclass(frozen=True, slots=True)
class Case:
    """One chain and what each mode must say of it; `server` is the role of the proxy in file mode."""

    name: str
    build: Build
    server: Verdict
    client: Verdict
    spiffe: Verdict
    go: tuple[bool, bool, bool]
    why: str = ""

    def chain(self) -> Chain:
        """The certificates, under names of the case's own."""
        return self.build(Names(self.name))


class Table:
    """The cases in the order in which they are added."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def add(
        self,
        name: str,
        build: Build,
        server: Verdict = OK,
        *,
        client: Verdict | None = None,
        spiffe: Verdict | None = None,
        go: bool | tuple[bool, bool, bool] | None = None,
        why: str = "",
    ) -> None:
        """Add one case; `go` is given if Go's verdict differs from ours, and then `why` is given too."""
        ours = (server, client or server, spiffe or server)
        same = tuple(verdict == OK for verdict in ours)
        theirs = same if go is None else (go,) * 3 if isinstance(go, bool) else go
        assert (theirs == same) == (not why), f"{name}: a difference needs a reason, and only a difference"
        self.cases.append(Case(name, build, *ours, theirs, why))

    def sweep(self, name: str, change: dict[str, Any], verdicts: Sequence[Any], **fields: Any) -> None:
        """Add a case for a change of the leaf, of the intermediate and of the root; None leaves one out.

        A verdict is a value, or a dictionary of the arguments of `add`.
        """
        for position, verdict in zip(("leaf", "middle", "root"), verdicts, strict=True):
            if verdict is None:
                continue
            told = dict(verdict) if isinstance(verdict, dict) else {"server": verdict}
            self.add(f"{name} in {position}", three(**{position: change}), **(fields | told))


def three(
    leaf: dict[str, Any] | None = None, middle: dict[str, Any] | None = None, root: dict[str, Any] | None = None
) -> Build:
    """The usual chain of three with changes."""

    def build(names: Names) -> Chain:
        top = names.root(**(root or {}))
        between = names.middle(top, **(middle or {}))
        return Chain((top,), (names.leaf(between, **(leaf or {})), between))

    return build


def two(leaf: dict[str, Any] | None = None, root: dict[str, Any] | None = None) -> Build:
    """A leaf below its anchor, with changes."""

    def build(names: Names) -> Chain:
        top = names.root(**(root or {}))
        return Chain((top,), (names.leaf(top, **(leaf or {})),))

    return build
