"""What an event of the Workload API means for the identity that we use. Trouble is logged once, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunnel.identity.credentials import SvidCredentials, X509Context, X509Svid
from tunnel.identity.workload import Denied, Disconnected, Event, FatalError, Overdue, Rejected, Updated
from tunnel.log import escape
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Selection, describe_offers, list_some
from tunnel.time_format import format_time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do after an event: use new credentials, know the old ones confirmed or withdrawn, or nothing."""

    credentials: SvidCredentials | None = None
    is_confirmed: bool = False
    is_withdrawn: bool = False


_NOTHING = Outcome()
_CONFIRMED = Outcome(is_confirmed=True)
_WITHDRAWN = Outcome(is_withdrawn=True)


def describe_wait(endpoint: WorkloadEndpoint, limit: float, complaint: str) -> str:
    """What to tell an operator whose first identity has not come within `limit` seconds; `complaint` is the follower's."""
    why = complaint or "the Workload API has not answered"
    return f"no identity from {endpoint} within {limit:g}s (does the agent run, and has it an entry for this process?): {why}"


def _describe_overdue(svid: X509Svid) -> str:
    return f"rotation of {svid.spiffe_id} is overdue: its SVID ends at {format_time(svid.not_after)}, and no newer one has come"


class IdentityTracker:
    """Turns events into outcomes and lines of the log."""

    def __init__(self, selection: Selection, say: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self._selection = selection
        self._say = say  # what is amiss
        self._tell = tell  # what goes well
        self._current: SpiffeId | None = None
        self._overdue: X509Svid | None = None  # whose rotation is overdue, until there is a newer one
        self._remarks: set[str] = set()  # said once for the life of the process
        self.complaint = ""  # the trouble we are in, "" when all is well
        self.generation = 0

    def take(self, event: Event) -> Outcome:
        """The outcome of one event; raises IdentityError when there will never be an identity."""
        if isinstance(event, Updated):
            return self._take_update(event)
        if isinstance(event, Rejected):
            kept = "keeping the previous one" if self.generation else "waiting for a good one"
            self._complain(f"Workload API update rejected: {event.error.reason.value}: {event.error}", kept)
            return _NOTHING
        if isinstance(event, Overdue):
            self._overdue = event.svid
            self._complain(_describe_overdue(event.svid), "opening a new stream to the Workload API")
            return _NOTHING
        if isinstance(event, FatalError):
            raise event.error
        return self._take_loss(event)

    def _take_loss(self, event: Disconnected) -> Outcome:
        text = f"{event.code}: {event.details}".rstrip(": ")
        if isinstance(event, Denied):
            self._complain(f"Workload API gives this process no identity ({text})")
            return _WITHDRAWN
        if event.code != "OK" or not self.generation:
            self._complain(f"Workload API is not available ({text})")
        return _NOTHING

    def _take_update(self, event: Updated) -> Outcome:
        context = event.context
        self._remark_on(context)
        svid = context.svid
        if svid is None:
            self._complain(f"the Workload API does not offer {self._selection}, only {describe_offers(context.offered)}")
            return _WITHDRAWN if self._current else _NOTHING
        is_same = not event.is_new and svid.spiffe_id == self._current
        if self._overdue is not None and svid.chain == self._overdue.chain:
            self.complaint = _describe_overdue(svid)  # the agent answers, and still with what should have been renewed
        else:
            self._overdue = None
            if self.complaint:
                self._tell("Workload API connection recovered")
                self.complaint = ""
        if is_same:
            return _CONFIRMED
        self._current = svid.spiffe_id
        self.generation += 1
        domains = list_some(sorted(domain.name for domain in context.bundles.bundles))
        self._tell(
            f"identity {svid.spiffe_id} generation {self.generation} valid until "
            f"{format_time(svid.not_after)}, trust domains {domains}"
        )
        return Outcome(SvidCredentials(svid, context.bundles))

    def _remark_on(self, context: X509Context) -> None:
        for failure in context.left_out:
            self._remark(f"warning: an identity is left out: {failure}")
        for note in context.notes:
            self._remark(f"warning: {note}")
        if context.crl_count:
            self._remark("warning: the Workload API sends revocation lists (crl), which are not used")
        if len(context.offered) > 1 and self._selection.is_open():
            self._remark(
                f"warning: {len(context.offered)} identities are offered and none is chosen by --spiffe-id or --spiffe-hint: "
                "the first good one is used, and an agent's order is arbitrary"
            )

    def _remark(self, text: str) -> None:
        if text not in self._remarks:
            self._remarks.add(text)
            self._say(escape(text))

    def _complain(self, trouble: str, consequence: str = "") -> None:
        if trouble == self.complaint:
            return
        self.complaint = trouble
        kept = f"identity {self._current} stays in use for now, " if self._current else ""
        self._say(escape(f"{trouble}; {consequence or f'{kept}trying again'}"))
