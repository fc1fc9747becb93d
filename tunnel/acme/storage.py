"""Storage of the account key and the certificate: files that only this user can read, each replaced as a whole.

Each directory URL has a directory of its own, so that a certificate of a test server is never used as a real one.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec

from tunnel.acme.material import check_name, encode_key, encode_material, new_key
from tunnel.atomic_file import replace_file
from tunnel.config.acme import AcmeConfig
from tunnel.errors import IdentityError, IdentityFault, describe_os_error
from tunnel.keystore.material import KeyMaterial
from tunnel.keystore.pem import find_key, parse_blocks, parse_key, parse_pem

_MAX_BYTES = 1024 * 1024  # of a file; ours have a few thousand


class Storage:
    """The files for one domain at one ACME server."""

    def __init__(self, config: AcmeConfig) -> None:
        self._domain = config.domain
        self._folder = config.storage_dir / quote(config.directory_url, safe="")
        self._account = self._folder / f"account-{quote(config.email, safe='@')}.pem"
        self._certificate = self._folder / f"certificate-{config.domain}.pem"

    def account_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the account, created if there is none; raises IdentityError."""
        pem = self._read(self._account)
        if pem is None:
            key = new_key()
            self._write(self._account, encode_key(key))
            return key
        try:
            return _parse_account_key(pem)
        except IdentityError as error:
            text = f"{self._account}: {error} (remove the file to register a new account)"
            raise IdentityError(error.reason, text) from error

    def load(self) -> KeyMaterial | None:
        """The stored certificate, even if it has expired, or None; raises IdentityError."""
        pem = self._read(self._certificate)
        if pem is None:
            return None
        try:
            return check_name(parse_pem(pem, ""), self._domain)
        except IdentityError as error:
            raise IdentityError(error.reason, f"{self._certificate}: {error}") from error

    def save(self, material: KeyMaterial) -> None:
        """Replace the stored certificate; raises IdentityError."""
        self._write(self._certificate, encode_material(material))

    def make_folder(self) -> Path:
        """Create the directory, for this user only, and return it; raises IdentityError."""
        ours = self._folder.parent
        try:
            ours.parent.mkdir(parents=True, exist_ok=True)
            for folder in (ours, self._folder):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _failure("create", self._folder, error) from error
        return self._folder

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure("read", path, error) from error

    def _write(self, path: Path, content: bytes) -> None:
        self.make_folder()
        try:
            replace_file(str(path), content, 0o600)
        except OSError as error:
            raise _failure("write", path, error) from error


def _parse_account_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    block = find_key(parse_blocks(pem))
    key = None if block is None else parse_key(block)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(IdentityFault.BAD_KEY, "not an EC private key, which an account has here")
    return key


def _failure(what: str, path: Path, error: OSError) -> IdentityError:
    why = describe_os_error(error)
    return IdentityError(IdentityFault.ACME, f"cannot {what} {path}: {why}")
