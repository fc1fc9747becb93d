"""`tunnel svid jwt`, `svid jwt bundles` and `svid jwt verify`: fetch a token, keep one fresh, judge one.

Knows what goes to standard output and what to standard error; must not know flags, gRPC or the rules of tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tunnel.cli.output import say, show
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.svid import jwt as svid_jwt
from tunnel.commands.svid.jwt import STDIN, BundlesConfig, JwtConfig, JwtVerifyConfig, KeptFile, NamedBundle
from tunnel.commands.svid.verify_run import show_report
from tunnel.config.model import WorkloadApi
from tunnel.errors import IdentityError, IdentityFault, OutputError
from tunnel.log import one_line
from tunnel.spiffe.jwt import MAX_TOKEN_BYTES, Reader, moment

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    from tunnel.identity.tokens import JwtSvid
    from tunnel.identity.workload_calls import WorkloadCalls
    from tunnel.spiffe.jwks import JwtBundles
    from tunnel.svid.file_refresher import FileRefresher

T = TypeVar("T")

_TIMES = ("exp", "iat", "nbf")
_RENEWAL_LIMIT = 5.0  # seconds for one attempt; while the old token is there, trouble is told and not waited out


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Exit code 0 for what was had or is good, else 1 with one line; raises ConfigError for a wrong line."""
    job = _job_of(command, arguments, environ)
    try:
        return job()
    except (IdentityError, OutputError) as error:  # of which the help says nothing
        say(f"error: {error}")
        return 1


def _job_of(command: Command, arguments: Arguments, environ: Mapping[str, str]) -> Callable[[], int]:
    if command is svid_jwt.VERIFY:
        return partial(_verify, svid_jwt.build_verify(arguments))
    if command is svid_jwt.BUNDLES:
        return partial(_fetch_bundles, svid_jwt.build_bundles(arguments), environ)
    return partial(_fetch, svid_jwt.build_jwt(arguments), environ)


def _fetch(config: JwtConfig, environ: Mapping[str, str]) -> int:
    if config.file is not None:
        return _write_token(config, config.file, environ)
    svid = _fetch_one(config, _open_calls(config.source))
    if config.is_decoded:
        show(_object_text(svid, has_token=False) if config.is_json else _decoded(svid))
    else:
        show(_object_text(svid, has_token=True) if config.is_json else f"{svid.token.text}\n")
        if sys.stdout.isatty():  # a script knows what it asked for
            say(
                f"note: a secret: until {moment(svid.expires_at)} whoever has it is {svid.spiffe_id} to "
                + ", ".join(svid.audience)
            )
    return 0


def _fetch_one(config: JwtConfig, calls: WorkloadCalls) -> JwtSvid:
    answer = calls.fetch_token(config.audience, config.source.selection)
    for failure in answer.left_out:
        say(f"warning: SVID skipped: {failure}")
    if answer.offered > 1 and config.source.selection.is_open():
        say(
            f"warning: {answer.offered} SVIDs offered and none selected by --spiffe-id or --spiffe-hint: "
            f"using the first valid one, {answer.svid.spiffe_id}, and the order of an agent's list is arbitrary"
        )
    return answer.svid


def _write_token(config: JwtConfig, file: KeptFile, environ: Mapping[str, str]) -> int:
    from tunnel.svid.jwt_token import TokenRefresher

    def fetch(calls: WorkloadCalls, is_first: bool) -> JwtSvid:
        return _fetch_one(config, calls) if is_first else calls.fetch_token(config.audience, config.source.selection).svid

    return _write(TokenRefresher, fetch, lambda svid: svid.token.text, file, _Manner(config.source, config.is_json, environ))


def _fetch_bundles(config: BundlesConfig, environ: Mapping[str, str]) -> int:
    from tunnel.svid.jwt_bundles import BundleDocument, BundlesRefresher, build_document

    def fetch(calls: WorkloadCalls, is_first: bool) -> BundleDocument:
        return build_document(calls.fetch_jwt_bundles())

    if config.file is not None:
        manner = _Manner(config.source, config.is_json, environ)
        return _write(BundlesRefresher, fetch, lambda document: document.text, config.file, manner)
    document = fetch(_open_calls(config.source), is_first=True)
    for warning in document.left_out:
        say(f"warning: {warning}")
    show(f"{document.text}\n")
    return 0


@dataclass(frozen=True, slots=True)
class _Manner:
    """Who is asked, and how that is told."""

    source: WorkloadApi
    is_json: bool
    environ: Mapping[str, str]


def _write(
    kind: Callable[..., FileRefresher[T]],
    fetch: Callable[[WorkloadCalls, bool], T],
    text_of: Callable[[T], str],
    file: KeptFile,
    manner: _Manner,
) -> int:
    """Write what is fetched to the file, once or again and again."""
    from tunnel.identity.workload_calls import WorkloadCalls
    from tunnel.net.notify import Notifier
    from tunnel.svid.event_log import Event, EventLog, Form
    from tunnel.svid.exposure import list_exposures
    from tunnel.svid.whole_file import WholeFile

    source = manner.source
    kept = WholeFile(file.path, file.mode, file.group)
    form = Form.LOG if file.is_kept_fresh else Form.PLAIN
    event_log = EventLog(Form.JSON if manner.is_json else form)
    for exposure in list_exposures(os.path.dirname(file.path)):
        event_log.tell(Event.NOTICE, f"warning: {exposure}")
    first = WorkloadCalls(source.endpoint, limit=source.timeout, on_wait=lambda text: event_log.tell(Event.UNAVAILABLE, text))
    later = WorkloadCalls(source.endpoint, limit=_RENEWAL_LIMIT)

    def stop() -> None:
        first.stop()
        later.stop()

    keeper = kind(
        wait_identity=lambda: fetch(first, True),
        fetch_next=lambda: fetch(later, False),
        stop=stop,
        write=lambda found: kept.write(text_of(found)),
        find_fault=kept.find_fault,
        tell=event_log.tell,
        notifier=Notifier(manner.environ if file.is_kept_fresh else {}, os.getpid()),
    )
    if file.is_kept_fresh:
        keeper.keep()
    else:
        keeper.take_one()
    return 0


def _verify(config: JwtVerifyConfig) -> int:
    is_local = config.is_local or config.bundle is not None
    if is_local:
        from tunnel.svid.jose import require_library

        require_library()
    from tunnel.svid.jwt_verify import ask_workload_api, conclusion, examine_token

    text = _read_token(config.path)
    reader = Reader(config.audience, time.time())
    if is_local:
        report = examine_token(text, reader, _bundles(config))
    else:
        assert config.source is not None
        report = ask_workload_api(text, reader, _open_calls(config.source).validate_token)
    return show_report(report, "" if report.broken else conclusion(report, config.audience), is_json=config.is_json)


def _bundles(config: JwtVerifyConfig) -> JwtBundles:
    if config.bundle is None:
        assert config.source is not None
        return _open_calls(config.source).fetch_jwt_bundles()
    return _read_bundle(config.bundle)


def _read_bundle(named: NamedBundle) -> JwtBundles:
    from tunnel.keystore.files import prefix_errors, read_file
    from tunnel.spiffe.jwks import JwtBundles, parse_jwks

    document = read_file(named.path)
    with prefix_errors(named.path):
        return JwtBundles({named.trust_domain: parse_jwks(document)})


def _read_token(path: str) -> str:
    """The token in a file or on standard input, without blanks around it; raises IdentityError."""
    from tunnel.keystore.files import read_file

    if path == STDIN:
        if sys.stdin.isatty():
            say("reading a token from standard input; end it with Ctrl-D")
        data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3)
    else:
        data = read_file(path)
    text = data.decode("ascii", "replace").strip()
    where = "standard input" if path == STDIN else ascii(path)
    if not text:
        raise IdentityError(IdentityFault.FILE, f"there is no token in {where}")
    if len(text) > MAX_TOKEN_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{where} has over {MAX_TOKEN_BYTES} bytes: no token is as large")
    return text


def _open_calls(source: WorkloadApi) -> WorkloadCalls:
    from tunnel.identity.workload_calls import WorkloadCalls

    return WorkloadCalls(source.endpoint, limit=source.timeout, on_wait=say)


def _object_text(svid: JwtSvid, *, has_token: bool) -> str:
    found: dict[str, Any] = {
        "spiffe_id": str(svid.spiffe_id),
        "hint": svid.hint,
        "audience": list(svid.audience),
        "expires_at": moment(svid.expires_at),
        "header": svid.token.header,
        "claims": svid.token.claims,
    }
    return json.dumps({**found, "token": svid.token.text} if has_token else found) + "\n"


def _decoded(svid: JwtSvid) -> str:
    """Header and claims, one a line, with times that people read."""
    lines = []
    for title, part in (("header", svid.token.header), ("claims", svid.token.claims)):
        lines.append(title)
        for name, value in part.items():
            is_time = title == "claims" and name in _TIMES and isinstance(value, int | float)
            shown = f"{value} ({moment(value)})" if is_time else value if isinstance(value, str) else json.dumps(value)
            lines.append(f"  {name}: {shown}")
    return "\n".join(one_line(line) for line in lines) + "\n"
