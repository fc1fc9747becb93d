"""The certificate of one domain, had at the start and kept fresh.

Knows when to ask for a certificate, how often to try and what stays in use meanwhile; must not know the protocol ACME. Its
calls block, so they belong into a thread, one at a time. What it has to say it says there, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from cryptography.hazmat.primitives.asymmetric import ec

from tunnel.acme.material import renew_due_at
from tunnel.acme.responder import open_responder
from tunnel.acme.storage import Storage
from tunnel.config.acme import AcmeConfig
from tunnel.errors import ConfigError, IdentityError, hide_secrets, identity_errors
from tunnel.keystore.material import KeyMaterial
from tunnel.time_format import format_time
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.context import Presented

ATTEMPTS = 5  # at the start, before it is given up
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 120.0  # seconds between attempts, doubling
_LONGEST_RENEWAL_DELAY = 3600.0  # while there is time: authorities count failures by the hour
_WAIT_LIMIT = 20  # one part of so many of the time that is left is a delay that does no harm

Issue = Callable[[AcmeConfig, ec.EllipticCurvePrivateKey, Callable[[KeyMaterial], AbstractContextManager[None]]], KeyMaterial]
OpenPort = Callable[[AcmeChallenges, int], AbstractContextManager[None]]


class CertificateRenewer:
    """Has a certificate after `obtain`, and a newer one after a `renew_if_due` that found the time come."""

    def __init__(
        self,
        config: AcmeConfig,
        challenges: AcmeChallenges,
        say: Callable[[str], None],
        *,
        issue: Issue,
        open_port: OpenPort = open_responder,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._challenges = challenges
        self._say = say
        self._issue = issue
        self._open_port = open_port
        self._clock = clock
        self._sleep = sleep
        self._storage = Storage(config)
        self._held: KeyMaterial | None = None
        self._failures = 0  # since the last certificate

    def obtain(self) -> KeyMaterial:
        """The certificate that was kept, if it may be used now, else a new one; raises IdentityError after some attempts."""
        self._held = self._kept() or self._ask_patiently()
        return self._held

    def renew_if_due(self) -> KeyMaterial | None:
        """A newer certificate if it is time for one; raises IdentityError, and then the old one is as good as it was."""
        assert self._held is not None, "obtain first"
        if self._clock() < renew_due_at(self._held.chain).timestamp():
            return None
        try:
            self._held = self._ask()
        except IdentityError:
            self._failures += 1
            raise
        self._failures = 0
        return self._held

    def seconds_to_next_look(self) -> float:
        """How long to wait before `renew_if_due`; never for ever, since the clock on the wall may jump."""
        assert self._held is not None, "obtain first"
        now = self._clock()
        if self._failures:
            left = self._held.chain[0].not_after.timestamp() - now
            cap = min(max(left / _WAIT_LIMIT, _LONGEST_DELAY), _LONGEST_RENEWAL_DELAY)
            return _delay(self._failures, cap)
        until_due = renew_due_at(self._held.chain).timestamp() - now
        # The floor is for an authority whose certificates are due from the first day on.
        return min(max(until_due, _FIRST_DELAY), self._config.check_interval)

    def _kept(self) -> KeyMaterial | None:
        """What an earlier run has left, until it ends: if it is due, it serves while it is renewed."""
        try:
            with identity_errors("the certificate that was kept cannot be used"):
                kept = self._storage.load()
        except IdentityError as error:
            self._say(f"ACME: {error}: a new certificate will take its place")
            return None
        if kept is None or self._clock() >= kept.chain[0].not_after.timestamp():
            return None
        self._say(f"ACME: using the certificate for {self._config.domain} from before, {_span(kept)}")
        return kept

    def _ask_patiently(self) -> KeyMaterial:
        for attempt in range(1, ATTEMPTS):
            try:
                return self._ask()
            except IdentityError as error:
                delay = _delay(attempt, _LONGEST_DELAY)
                self._say(f"ACME: attempt {attempt} of {ATTEMPTS}: {error}; the next one in {delay:g}s")
                self._sleep(delay)
        return self._ask()

    def _ask(self) -> KeyMaterial:
        config = self._config
        self._say(f"ACME: asking {hide_secrets(config.directory_url)} for a certificate for {config.domain}")
        with identity_errors("no certificate from the ACME server"):  # the library raises what it likes on an odd answer
            fresh = self._issue(config, self._storage.account_key(), self._answering)
        self._say(f"ACME: got a certificate for {config.domain}, {_span(fresh)}")
        try:
            self._storage.save(fresh)
        except IdentityError as error:  # it serves all the same, and must not be asked for again while it does
            self._say(f"ACME: {error}: it will have to be asked for again after a restart")
        return fresh

    @contextmanager
    def _answering(self, certificate: KeyMaterial) -> Iterator[None]:
        """Probes are answered where the tunnel listens, and on the challenge's port when nobody listens there."""
        with ExitStack() as stack:
            stack.enter_context(
                self._challenges.present(self._config.domain, Presented(certificate.chain, certificate.private_key))
            )
            try:
                stack.enter_context(self._open_port(self._challenges, self._config.challenge_port))
            except IdentityError:
                if self._held is None:  # the tunnel does not listen yet, so there is no other place
                    raise
            yield


def open_renewer(config: AcmeConfig, challenges: AcmeChallenges, say: Callable[[str], None]) -> CertificateRenewer:
    """A keeper that asks the real authority; raises ConfigError when the library for it is not installed."""
    try:
        from tunnel.acme.client import issue
    except ImportError as error:
        raise ConfigError(
            f"--auto-acme-cert needs the optional library acme ({error}): install tunnel with its extra, spiffe-tunnel[acme]"
        ) from error
    return CertificateRenewer(config, challenges, say, issue=issue)


def _delay(failures: int, cap: float) -> float:
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), cap)


def _span(material: KeyMaterial) -> str:
    return f"good until {format_time(material.chain[0].not_after)}, due at {format_time(renew_due_at(material.chain))}"
