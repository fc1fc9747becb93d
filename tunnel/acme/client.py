"""ACME client (RFC 8555, section 7.4): one certificate from an ACME server, with the library `acme`.

Every call blocks, for minutes at worst, so it runs on a thread. The library is the optional extra `acme`: this module is
imported only if ACME is configured.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
import urllib3
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import jwa, jwk
from josepy.errors import Error as JoseError

from tunnel.acme.material import check_name, encode_key, make_challenge, new_key
from tunnel.config.acme import AcmeConfig
from tunnel.errors import IdentityError, IdentityFault, TargetError, describe_os_error
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.keystore.pem import parse_blocks, parse_chain
from tunnel.net.address import TcpAddress
from tunnel.net.race import connect_first
from tunnel.net.sockets import resolve

Show = Callable[[KeyMaterial], AbstractContextManager[None]]  # the challenge is answered with a certificate inside it

_REQUEST_SECONDS = 30
_VALIDATION_SECONDS = 90.0  # until the ACME server has validated the challenge, from several networks
_ISSUE_SECONDS = 90.0
_MAX_REASON = 500  # characters of the ACME server's text


class _Connection(urllib3.connection.HTTPConnection):
    """A connection to the first address that accepts; urllib3 tries one address after the other."""

    def _new_conn(self) -> socket.socket:  # where urllib3 opens its socket, in every version
        assert self.port is not None
        limit = self.timeout if isinstance(self.timeout, int | float) else _REQUEST_SECONDS
        try:
            sock = connect_first(resolve(TcpAddress(self.host, str(self.port))), limit)
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "no address accepts") from error
        except TargetError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error
        sock.settimeout(limit)
        return sock


class _SecureConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same connection with TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Uses these pools."""

    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        super().init_poolmanager(*words, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


@challenges.ChallengeResponse.register
class _TlsAlpnResponse(challenges.KeyAuthorizationChallengeResponse):
    """The request to validate the challenge now."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class _TlsAlpnChallenge(challenges.KeyAuthorizationChallenge):
    """The challenge of RFC 8737, which the library leaves to its users."""

    typ = "tls-alpn-01"
    response_cls = _TlsAlpnResponse

    def validation(self, account_key: jwk.JWK, **_: Any) -> str:
        return self.key_authorization(account_key)


def issue(config: AcmeConfig, account_key: ec.EllipticCurvePrivateKey, show: Show) -> KeyMaterial:
    """A new certificate with a new key; raises IdentityError, with one line, for every failure."""
    key = new_key()
    network = client.ClientNetwork(
        jwk.JWKEC(key=account_key),
        alg=jwa.ES256,
        verify_ssl=_verify_option(config),
        user_agent="spiffe-tunnel",
        timeout=_REQUEST_SECONDS,
    )
    for scheme in ("http://", "https://"):
        network.session.mount(scheme, _Adapter())
    try:
        with _translated(config):
            directory = messages.Directory.from_json(network.get(config.directory_url).json())
            authority = client.ClientV2(directory, network)
            _register(authority, config.email)
            order = authority.new_order(crypto_util.make_csr(encode_key(key), [config.domain]))
            for authorization in order.authorizations:
                if authorization.body.status == messages.STATUS_PENDING:  # a recent authorization may be valid already
                    _validate(authority, order, authorization, config.domain, show)
            order = authority.finalize_order(order, _deadline(_ISSUE_SECONDS))
            chain = parse_chain(parse_blocks(order.fullchain_pem.encode()))
            return check_name(make_material(chain, key), config.domain)
    finally:
        network.session.close()


def _verify_option(config: AcmeConfig) -> Any:
    """A path, or True for the library's own roots: what requests calls `verify`, though `acme` declares a bool."""
    return True if config.ca_trust is None else str(config.ca_trust)


def _register(authority: client.ClientV2, email: str) -> None:
    """Register the account's key, or find its account."""
    wanted = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        authority.new_account(wanted)
    except errors.ConflictError as known:
        authority.net.account = messages.RegistrationResource(body=messages.Registration(), uri=known.location)


def _validate(
    authority: client.ClientV2,
    order: messages.OrderResource,
    authorization: messages.AuthorizationResource,
    domain: str,
    show: Show,
) -> None:
    account_key = authority.net.key
    assert account_key is not None
    offered = [body for body in authorization.body.challenges if isinstance(body.chall, _TlsAlpnChallenge)]
    if not offered:
        raise errors.ClientError("the ACME server does not offer the challenge tls-alpn-01")
    (body, *_) = offered
    certificate = make_challenge(domain, body.chall.key_authorization(account_key), datetime.now(UTC))
    with show(certificate):
        authority.answer_challenge(body, body.chall.response(account_key))
        authority.poll_authorizations(order, _deadline(_VALIDATION_SECONDS))


def _deadline(seconds: float) -> datetime:
    """Local time without a zone, as the library expects."""
    return datetime.now() + timedelta(seconds=seconds)


@contextmanager
def _translated(config: AcmeConfig) -> Iterator[None]:
    """Translate every error of the library into ours, with one line."""
    try:
        yield
    except IdentityError as error:
        raise _failure(config, str(error)) from error
    except (errors.Error, JoseError, requests.RequestException, OSError) as error:
        raise _failure(config, _reason(error)) from error
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # raised by the library for unexpected JSON
        raise _failure(config, _unexpected(error)) from error


def _failure(config: AcmeConfig, why: str) -> IdentityError:
    line = " ".join(why.split())
    line = line if len(line) <= _MAX_REASON else line[:_MAX_REASON] + "..."
    return IdentityError(IdentityFault.ACME, f"no certificate for {config.domain} from {config.directory_url}: {line}")


def _reason(error: BaseException) -> str:
    if isinstance(error, errors.ValidationError):
        failed = [body.error for one in error.failed_authzrs for body in one.body.challenges if body.error is not None]
        return f"challenge failed: {'; '.join(map(_problem, failed))}"
    if isinstance(error, errors.IssuanceError):
        return _problem(error.error)
    if isinstance(error, messages.Error):
        return _problem(error)
    if isinstance(error, errors.TimeoutError):
        return "the ACME server did not finish in time"
    if isinstance(error, requests.exceptions.SSLError):
        inner = _innermost(error)
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"the directory's certificate is not trusted (name its roots in SSL_CERT_FILE): {inner.verify_message}"
        return f"TLS with the directory failed: {_describe(inner)}"
    if isinstance(error, requests.Timeout):
        return f"no response within {_REQUEST_SECONDS}s"
    if isinstance(error, requests.ConnectionError):
        return f"cannot be reached: {_describe(_innermost(error))}"
    if isinstance(error, errors.ClientError) and error.args and isinstance(error.args[0], requests.Response):
        return f"{error.args[0].url} returned HTTP status {error.args[0].status_code}"
    if isinstance(error, JoseError | requests.JSONDecodeError):
        return _unexpected(error)
    return f"{type(error).__name__}: {error}"


def _unexpected(error: BaseException) -> str:
    return f"unexpected response: {type(error).__name__}: {error}"


def _problem(problem: messages.Error) -> str:
    """The ACME server's problem document as text (RFC 8555, section 6.7)."""
    return f"{problem.code or problem.typ}: {problem.detail or problem.title or 'no details'}"


def _innermost(error: BaseException) -> BaseException:
    """The first cause: the texts of requests and urllib3 around it have addresses of objects in memory."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _describe(error: BaseException) -> str:
    return describe_os_error(error) if isinstance(error, OSError) else str(error)
