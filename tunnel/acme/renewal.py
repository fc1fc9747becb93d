"""The certificate of one domain: obtained at start and renewed before it expires.

All calls block, and log from the calling thread: they run on a thread, one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from cryptography.hazmat.primitives.asymmetric import ec

from tunnel.acme.material import renew_due_at
from tunnel.acme.responder import open_responder
from tunnel.acme.storage import Storage
from tunnel.backoff import doubled_delay
from tunnel.config.acme import AcmeConfig
from tunnel.errors import ConfigError, IdentityError, hide_secrets, identity_errors
from tunnel.keystore.material import KeyMaterial
from tunnel.time_format import format_time
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.context import Presented

ATTEMPTS = 5  # at the start, before it is given up
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 120.0  # seconds between attempts, doubling
_LONGEST_RENEWAL_DELAY = 3600.0  # while there is time: authorities count failures by the hour
_WAIT_PART = 20  # a delay is at most this part of the time until expiry

Issue = Callable[[AcmeConfig, ec.EllipticCurvePrivateKey, Callable[[KeyMaterial], AbstractContextManager[None]]], KeyMaterial]
OpenPort = Callable[[AcmeChallenges, int], AbstractContextManager[None]]


class CertificateRenewer:
    """Obtains the certificate of one domain, and renews it when a third of its lifetime is left."""

    def __init__(
        self,
        config: AcmeConfig,
        challenges: AcmeChallenges,
        log: Callable[[str], None],
        *,
        issue: Issue,
        open_port: OpenPort = open_responder,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._challenges = challenges
        self._log = log
        self._issue = issue
        self._open_port = open_port
        self._clock = clock
        self._sleep = sleep
        self._storage = Storage(config)
        self._held: KeyMaterial | None = None
        self._failures = 0  # since the last certificate

    def obtain(self) -> KeyMaterial:
        """The stored certificate if it is valid, else a new one; raises IdentityError after the last attempt."""
        self._held = self._load_stored() or self._request_with_retries()
        return self._held

    def renew_if_due(self) -> KeyMaterial | None:
        """A new certificate if renewal is due, else None; raises IdentityError, and the certificate in use is kept."""
        assert self._held is not None, "obtain first"
        if self._clock() < renew_due_at(self._held.chain).timestamp():
            return None
        try:
            self._held = self._request()
        except IdentityError:
            self._failures += 1
            raise
        self._failures = 0
        return self._held

    def seconds_to_next_check(self) -> float:
        """Seconds until the next `renew_if_due`; bounded, because the wall clock may be set."""
        assert self._held is not None, "obtain first"
        now = self._clock()
        if self._failures:
            left = self._held.chain[0].not_after.timestamp() - now
            cap = min(max(left / _WAIT_PART, _LONGEST_DELAY), _LONGEST_RENEWAL_DELAY)
            return doubled_delay(_FIRST_DELAY, self._failures, cap)
        until_due = renew_due_at(self._held.chain).timestamp() - now
        # The minimum is for certificates that are due for renewal from the start.
        return min(max(until_due, _FIRST_DELAY), self._config.check_interval)

    def _load_stored(self) -> KeyMaterial | None:
        """The certificate of an earlier run unless it has expired; one that is due is used while it is renewed."""
        try:
            with identity_errors("stored certificate cannot be used"):
                stored = self._storage.load()
        except IdentityError as error:
            self._log(f"ACME: {error}: requesting a new one")
            return None
        if stored is None or self._clock() >= stored.chain[0].not_after.timestamp():
            return None
        self._log(f"ACME: using the stored certificate for {self._config.domain} {_describe_dates(stored)}")
        return stored

    def _request_with_retries(self) -> KeyMaterial:
        self._storage.account_key()  # a directory that cannot be written to is an error at once
        for attempt in range(1, ATTEMPTS):
            try:
                return self._request()
            except IdentityError as error:
                delay = doubled_delay(_FIRST_DELAY, attempt, _LONGEST_DELAY)
                self._log(f"ACME: attempt {attempt} of {ATTEMPTS}: {error} retry_in={delay:g}s")
                self._sleep(delay)
        return self._request()

    def _request(self) -> KeyMaterial:
        config = self._config
        self._log(f"ACME: requesting a certificate for {config.domain} from {hide_secrets(config.directory_url)}")
        with identity_errors("no certificate from the ACME server"):  # the library can raise anything
            fresh = self._issue(config, self._storage.account_key(), self._answer_challenge)
        self._log(f"ACME: got a certificate for {config.domain} {_describe_dates(fresh)}")
        try:
            self._storage.save(fresh)
        except IdentityError as error:  # it is used all the same
            self._log(f"ACME: {error}: a restart will request a new certificate")
        return fresh

    @contextmanager
    def _answer_challenge(self, certificate: KeyMaterial) -> Iterator[None]:
        """Answer the challenge where the tunnel listens, and on the challenge port if no other socket listens there."""
        with ExitStack() as stack:
            stack.enter_context(
                self._challenges.present(self._config.domain, Presented(certificate.chain, certificate.private_key))
            )
            try:
                stack.enter_context(self._open_port(self._challenges, self._config.challenge_port))
            except IdentityError:
                if self._held is None:  # the tunnel does not listen yet, so the port is needed
                    raise
            yield


def open_renewer(config: AcmeConfig, challenges: AcmeChallenges, log: Callable[[str], None]) -> CertificateRenewer:
    """A renewer that uses the library `acme`; raises ConfigError if it is not installed."""
    try:
        from tunnel.acme.client import issue
    except ImportError as error:
        raise ConfigError(
            f"--auto-acme-cert needs the optional library acme ({error}): install tunnel with its extra, spiffe-tunnel[acme]"
        ) from error
    return CertificateRenewer(config, challenges, log, issue=issue)


def _describe_dates(material: KeyMaterial) -> str:
    return f"not_after={format_time(material.chain[0].not_after)} renewal_due={format_time(renew_due_at(material.chain))}"
