"""Loading of revocation lists from files, in PEM or DER. Blocks on file access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunnel.config.model import Revocation
from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.keystore.files import prefix_errors, read_file
from tunnel.keystore.pem import decode, describe, parse_blocks
from tunnel.pkix.crl import RevocationList, parse_revocation_list
from tunnel.pkix.der import split_sequences
from tunnel.pkix.revocation import MAX_LISTS, RevocationLists


def load_revocation(config: Revocation) -> RevocationLists:
    """Load the configured lists; with files, every issuer needs a list. Raises IdentityError that names the file."""
    return RevocationLists(load_lists(config.files), config.is_required, is_complete=bool(config.files))


def load_lists(paths: Sequence[str]) -> tuple[RevocationList, ...]:
    """Load the lists of all files, at least one of each; raises IdentityError that names the file."""
    lists: dict[RevocationList, None] = {}
    for path in paths:
        blob = read_file(path)
        with prefix_errors(path):
            for one in _read_lists(blob):
                lists[one] = None
                if len(lists) > MAX_LISTS:
                    raise IdentityError(IdentityFault.OVER_LIMIT, f"more than {MAX_LISTS} revocation lists")
    return tuple(lists)


def _read_lists(blob: bytes) -> Iterator[RevocationList]:
    """Yield every list of a file; raises IdentityError for one that cannot be used."""
    is_der = blob[:1] == b"\x30" and blob[1:2] > b"\x80"  # a list has more than 127 bytes, and PEM is ASCII
    for place, encoded in _split_der(blob) if is_der else _split_pem(blob):
        try:
            found = parse_revocation_list(encoded)
        except WireError as error:
            raise IdentityError(IdentityFault.BAD_REVOCATION_LIST, f"{place}: {error}") from error
        if found.problem:
            seen = f"{place}: the revocation list of {found.issuer.describe()!a} cannot be used: {found.problem}"
            raise IdentityError(IdentityFault.BAD_REVOCATION_LIST, seen)
        yield found


def _split_der(blob: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        yield from ((f"list {number}", encoded) for number, encoded in enumerate(split_sequences(blob), 1))
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_REVOCATION_LIST, f"not revocation lists: {error}") from error


def _split_pem(blob: bytes) -> Iterator[tuple[str, bytes]]:
    blocks = parse_blocks(blob)
    lists = [block for block in blocks if block.is_revocation_list]
    if not lists:
        raise IdentityError(IdentityFault.BAD_REVOCATION_LIST, f"no X509 CRL block: {describe(blocks)}")
    for block in lists:
        try:
            yield f"line {block.line}", decode(block)
        except WireError:
            seen = f"line {block.line}: damaged or truncated revocation list{block.hint}"
            raise IdentityError(IdentityFault.BAD_REVOCATION_LIST, seen) from None
