"""Checks the revocation lists: whether the files can be loaded, and what is wrong with the lists of our trust anchors."""

from __future__ import annotations

from functools import partial

from tunnel.check.finding import Finding, Steps, ok, problem, warning
from tunnel.check.preflight import READ_LIMIT, Preflight, within
from tunnel.errors import IdentityError, identity_errors
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.keystore.revocation_lists import load_revocation
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import revocation_warnings
from tunnel.pkix.revocation import RevocationLists

LISTS = "revocation"


def examine_lists(preflight: Preflight, credentials: Credentials) -> Steps[Credentials | None]:
    """Return the credentials with all revocation lists, or None if a file is not usable."""
    if isinstance(credentials, SvidCredentials):  # the others have been read as one unit with their files
        try:
            in_files = within(READ_LIMIT, partial(_load, preflight))
        except (IdentityError, TimeoutError) as error:
            yield _describe_failure(error)
            return None
        credentials = replace(credentials, revocation=in_files.with_lists(credentials.revocation.lists))
    if credentials.revocation.is_checked:
        warnings = revocation_warnings(credentials, preflight.now)
        for text in warnings:
            yield warning(LISTS, text, "install a newer list, or use --crl-missing accept")
        if not warnings:
            count = len(credentials.revocation.lists)
            yield ok(LISTS, f"{count} list{'' if count == 1 else 's'}, valid for every authority that needs one")
    return credentials


def _load(preflight: Preflight) -> RevocationLists:
    with identity_errors("the revocation lists cannot be used"):
        return load_revocation(preflight.config.identity.revocation)


def _describe_failure(error: IdentityError | TimeoutError) -> Finding:
    if isinstance(error, IdentityError):
        return problem(LISTS, f"{error.reason.value}: {error}", "use files with complete revocation lists, in PEM or DER")
    return problem(LISTS, f"cannot read the files: {error}", "check whether one is a pipe, or on a remote file system")
