"""The files of one update: their names, modes and content.

Each trust domain's bundle has its own file. Never pool them: a bundle is the authority of one trust domain only (SPIFFE
Federation, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tunnel.atomic_file import NamedFile
from tunnel.config.svid_model import Output
from tunnel.identity.credentials import SvidCredentials, X509Svid
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.time_format import format_time

_LONGEST_NAME = 255  # bytes of a file's name


@dataclass(frozen=True, slots=True)
class UpdateFiles:
    """The files of one update, and the identity in them."""

    spiffe_id: SpiffeId
    hint: str
    serial: str
    not_after: datetime
    trust_domains: tuple[TrustDomain, ...]  # of the bundles, our own first
    files: tuple[NamedFile, ...]
    combined: NamedFile | None = None
    notes: tuple[str, ...] = ()  # warnings on what was omitted


def build_update_files(credentials: SvidCredentials, output: Output, now: datetime) -> UpdateFiles:
    """Return the files that `output` configures, of a verified update; `now` decides which authorities have expired."""
    svid, names = credentials.svid, output.names
    own = svid.spiffe_id.trust_domain
    chain = encode_certificates(svid.chain)
    key = _encode_key(svid)
    presented, moved = (svid.chain[:1], svid.chain[1:]) if output.has_intermediates_in_bundle else (svid.chain, ())
    files = [
        NamedFile(names.cert, encode_certificates(presented), output.cert_mode),
        NamedFile(names.key, key, output.key_mode),
    ]
    notes = []
    domains = []
    for domain in sorted(credentials.bundles.bundles, key=lambda domain: (domain != own, domain)):
        name = names.bundle if domain == own else names.bundle_of(domain)
        if len(name.encode()) > _LONGEST_NAME:
            notes.append(f"bundle of {domain} omitted: file name too long: {len(name)} bytes; expected at most {_LONGEST_NAME}")
            continue
        authorities: Sequence[Certificate] = credentials.bundles.bundles[domain].authorities
        if output.is_expired_omitted:
            authorities = [authority for authority in authorities if authority.not_after >= now]
        added = moved if domain == own else ()
        files.append(NamedFile(name, encode_certificates((*authorities, *added)), output.cert_mode))
        domains.append(domain)
    combined = NamedFile(output.combined, key + chain, output.key_mode) if output.combined else None
    return UpdateFiles(
        svid.spiffe_id, svid.hint, serial_of(svid), svid.not_after, tuple(domains), tuple(files), combined, tuple(notes)
    )


def describe_written(update: UpdateFiles, directory: str) -> str:
    """Return the message on files that were written."""
    names = ", ".join(file.name for file in (*update.files, *((update.combined,) if update.combined else ())))
    hint = f" (hint {escape(update.hint)})" if update.hint else ""
    return f"wrote {update.spiffe_id}{hint}, valid until {format_time(update.not_after)}, to {directory}: {names}"


def facts_of(update: UpdateFiles, directory: str) -> dict[str, object]:
    """Return the keys of the JSON event on files that were written."""
    return {
        "spiffe_id": str(update.spiffe_id),
        "hint": update.hint,
        "serial": update.serial,
        "expiry": format_time(update.not_after),
        "trust_domains": [str(domain) for domain in update.trust_domains],
        "directory": directory,
        "files": [file.name for file in update.files],
        "combined": update.combined.name if update.combined else None,
    }


def serial_of(svid: X509Svid) -> str:
    """Return the serial number of the leaf, in hexadecimal as OpenSSL shows it."""
    digits = f"{svid.chain[0].serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def encode_certificates(certificates: Iterable[Certificate]) -> bytes:
    """Return the certificates in PEM, concatenated; empty if there are none."""
    return b"".join(certificate.pem for certificate in certificates)


def _encode_key(svid: X509Svid) -> bytes:
    return svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
