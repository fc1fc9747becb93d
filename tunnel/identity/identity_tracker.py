"""The state of one identity across Workload API events: what to do after each event, and what to log.

A problem is logged once when it begins, and once when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from tunnel.identity.credentials import SvidCredentials, X509Context, X509Svid
from tunnel.identity.events import Denied, Disconnected, FatalError, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Selection, describe_offers, join_names
from tunnel.time_format import format_time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do after an event: use new credentials, confirm or withdraw the current ones, or nothing."""

    credentials: SvidCredentials | None = None
    is_confirmed: bool = False
    is_withdrawn: bool = False


_NOTHING = Outcome()
_CONFIRMED = Outcome(is_confirmed=True)
_WITHDRAWN = Outcome(is_withdrawn=True)


def describe_timeout(endpoint: WorkloadEndpoint, limit: float, problem: str) -> str:
    """Return the error for a first identity that is missing after `limit` seconds; `problem` is the tracker's."""
    why = problem or "the Workload API has not answered"
    hint = "is the agent running, and does it have a registration entry for this process?"
    return f"no identity from {endpoint} within {limit:g}s ({hint}): {why}"


def _describe_overdue(svid: X509Svid) -> str:
    return f"SVID rotation overdue: spiffe_id={svid.spiffe_id} expires_at={format_time(svid.not_after)}"


def _describe_change(before: X509Context | None, now: X509Context) -> str:
    """Return what an update has changed, the most important part."""
    if before is None or before.svid is None or now.svid is None:
        return "identity"
    if (before.svid.hint, before.svid.chain) != (now.svid.hint, now.svid.chain):
        return "identity"
    return "revocation lists" if before.bundles == now.bundles and before.lists != now.lists else "trust bundles"


class IdentityTracker:
    """Turns events into outcomes and log lines."""

    def __init__(self, selection: Selection, log_problem: Callable[[str], None], log_info: Callable[[str], None]) -> None:
        self._selection = selection
        self._log_problem = log_problem
        self._log_info = log_info
        self._current: SpiffeId | None = None
        self._shown: X509Context | None = None  # the update that was logged last
        self._overdue: X509Svid | None = None  # the SVID whose rotation is overdue, until a newer one arrives
        self._warnings: set[str] = set()  # those logged so far: each one once per process
        self.problem = ""  # the current problem, "" if there is none
        self.generation = 0

    def take(self, event: WorkloadEvent) -> Outcome:
        """Return the outcome of one event; raises IdentityError if there will never be an identity."""
        match event:
            case Updated():
                return self._take_update(event)
            case Rejected():
                consequence = "keeping the previous identity" if self.generation else "waiting for a valid update"
                self._report(f"Workload API update rejected: {event.error.reason.value}: {event.error}", consequence)
                return _NOTHING
            case Overdue():
                self._overdue = event.svid
                self._report(_describe_overdue(event.svid), "opening a new stream to the Workload API")
                return _NOTHING
            case FatalError():
                raise event.error
            case Disconnected():
                return self._take_disconnect(event)
            case _:
                assert_never(event)

    def renumber(self) -> int:
        """Return the number of the next generation, for the same identity with other revocation lists."""
        self.generation += 1
        return self.generation

    def _take_disconnect(self, event: Disconnected) -> Outcome:
        status = f"{event.code}: {event.details}".rstrip(": ")
        if isinstance(event, Denied):
            self._report(f"Workload API issued no identity to this process ({status})")
            return _WITHDRAWN
        if event.code != "OK" or not self.generation:
            self._report(f"Workload API unavailable ({status})")
        return _NOTHING

    def _take_update(self, event: Updated) -> Outcome:
        context = event.context
        self._warn_about(context)
        svid = context.svid
        if svid is None:
            self._shown = None  # so that the same SVID is logged when it is back
            self._report(f"Workload API does not offer {self._selection}, only {describe_offers(context.offered)}")
            return _WITHDRAWN if self._current else _NOTHING
        is_same = not event.is_new and svid.spiffe_id == self._current
        if self._overdue is not None and svid.chain == self._overdue.chain:
            self.problem = _describe_overdue(svid)  # the agent answers, but with the same SVID as before
        else:
            self._overdue = None
            if self.problem:
                self._log_info("Workload API connection recovered")
                self.problem = ""
        if is_same:
            return _CONFIRMED
        self._current = svid.spiffe_id
        self.generation += 1
        changed, self._shown = _describe_change(self._shown, context), context
        domains = join_names(sorted(domain.name for domain in context.bundles.bundles))
        self._log_info(
            f"{changed} updated: spiffe_id={svid.spiffe_id} "
            f"generation={self.generation} expires_at={format_time(svid.not_after)} trust_domains={domains.replace(', ', ',')}"
        )
        return Outcome(SvidCredentials(svid, context.bundles, RevocationLists(context.lists)))

    def _warn_about(self, context: X509Context) -> None:
        for failure in context.skipped:
            self._warn(f"warning: SVID skipped: {failure}")
        for note in context.notes:
            self._warn(f"warning: {note}")
        if len(context.offered) > 1 and self._selection.is_open():
            self._warn(
                f"warning: {len(context.offered)} SVIDs offered and none selected by --spiffe-id or --spiffe-hint: "
                "using the first valid one, and the order of an agent's list is arbitrary"
            )

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.add(text)
            self._log_problem(escape(text))

    def _report(self, problem: str, consequence: str = "") -> None:
        if problem == self.problem:
            return
        self.problem = problem
        kept = f"keeping identity {self._current} for now, " if self._current else ""
        self._log_problem(escape(f"{problem}; {consequence or f'{kept}retrying'}"))
