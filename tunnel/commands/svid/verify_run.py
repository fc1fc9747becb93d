"""`tunnel svid verify`: which rules of X509-SVID a certificate keeps.

Knows by what its path is checked; must not know flags, gRPC, formats or the rules.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunnel.cli.output import say, show
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.svid import verify as svid_verify
from tunnel.commands.svid.jwt import NamedBundle
from tunnel.commands.svid.verify import VerifyConfig
from tunnel.errors import IdentityError

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    from tunnel.svid.findings import Report
    from tunnel.svid.verify import Trust


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Exit code 0 when no rule is broken, else 1; raises TunnelError for what cannot be read at all."""
    config = svid_verify.build(arguments)
    from tunnel.svid.verify import conclusion, examine_certificate
    from tunnel.svid.verify_files import read_path, read_public_key

    path = read_path(config.path)
    key = read_public_key(config.key_path) if config.key_path else None
    trust = _trust(config)
    report = examine_certificate(path, datetime.now(UTC), trust, key)
    return show_report(report, "" if report.broken else conclusion(report), is_json=config.is_json)


def show_report(report: Report, kept: str, *, is_json: bool) -> int:
    """All findings, and the exit code that says the same; `kept` is the last line when no rule is broken."""
    show(report.as_json() if is_json else report.as_text(kept))
    return 1 if report.broken else 0


def _trust(config: VerifyConfig) -> Trust:
    """By what the path is checked; that the Workload API does not answer is told as a rule that is not kept."""
    from tunnel.svid.verify import Trust

    if config.bundle is not None:
        return _trust_file(config.bundle)
    if config.source is None:
        return Trust(None, "there is no --bundle and no address of a Workload API", is_wanted=False)
    from tunnel.identity.workload_calls import WorkloadCalls

    calls = WorkloadCalls(config.source.endpoint, limit=config.source.timeout, on_wait=say)
    try:
        return Trust(calls.fetch_x509_bundles(), f"as the Workload API at {config.source.endpoint} has it")
    except IdentityError as error:
        return Trust(None, str(error))


def _trust_file(named: NamedBundle) -> Trust:
    from tunnel.svid.verify import Trust
    from tunnel.svid.verify_files import read_authorities

    return Trust(read_authorities(named.path, named.trust_domain), f"as {named.path} has it")
