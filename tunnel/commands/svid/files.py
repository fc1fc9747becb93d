"""The flags of the files of an X.509-SVID, and the `Output` that they build; shared by `svid fetch` and `svid watch`."""

from __future__ import annotations

import grp
import os
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Group, option, required, switch
from tunnel.config.svid_model import FileNames, Output
from tunnel.config.values import default_of, format_mode, parse_mode, parse_secret_mode, parse_text, parse_uint32
from tunnel.errors import ConfigError, invalid_value

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.svid.atomic_directory import AtomicDirectory
    from tunnel.svid.event_log import EventLog

_MAX_NAME = 200  # bytes; a file's name has at most 255, and a temporary name is longer than the final one


def _parse_directory(text: str) -> str:
    if not text or "\0" in text:
        raise invalid_value("directory", text)
    return text


def _parse_file_name(text: str) -> str:
    if not text or not text.isprintable() or "/" in text or text.startswith(".") or len(os.fsencode(text)) > _MAX_NAME:
        raise invalid_value("file name", text, expected="a name without / that does not begin with a dot")
    return text


def parse_group(text: str) -> int:
    """A group of this machine, by name or number."""
    try:
        return parse_uint32(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise invalid_value("group", text, "unknown group", "a name or a number") from None


OUT = required("out", "Directory to write to; created if missing", _parse_directory, placeholder="DIR")
CERT_NAME = option(
    "cert-name",
    "File name of the certificate and its chain, leaf first",
    _parse_file_name,
    default_of(FileNames, "cert"),
    placeholder="NAME",
)
KEY_NAME = option(
    "key-name", "File name of the private key, PKCS#8", _parse_file_name, default_of(FileNames, "key"), placeholder="NAME"
)
BUNDLE_NAME = option(
    "bundle-name",
    "File name of the trust bundle of our own trust domain; the bundle of a federated trust domain has a file of its own, "
    "bundle.TRUST-DOMAIN.pem",
    _parse_file_name,
    default_of(FileNames, "bundle"),
    placeholder="NAME",
)
COMBINED = option(
    "combined",
    "Also write key and chain to this one file, replaced atomically",
    parse_text,
    "",
    placeholder="FILE",
)
CERT_MODE = option(
    "cert-mode",
    "Permissions of certificates and bundles",
    parse_mode,
    default_of(Output, "cert_mode"),
    placeholder="MODE",
    default_text=format_mode(default_of(Output, "cert_mode")),
)
KEY_MODE = option(
    "key-mode",
    "Permissions of the key and of --combined, none for others",
    parse_secret_mode,
    default_of(Output, "key_mode"),
    placeholder="MODE",
    default_text=format_mode(default_of(Output, "key_mode")),
)
GROUP = option(
    "group",
    "Group of all files, by name or number",
    parse_group,
    None,
    placeholder="GROUP",
    default_text="the system's choice",
)
OMIT_EXPIRED = switch("omit-expired", "Omit expired CA certificates from the bundles")
INTERMEDIATES = switch(
    "intermediates-to-bundle",
    "Move intermediate CA certificates from the certificate's file to our own bundle, as MySQL needs it. Dangerous: a program "
    "that reads this bundle trusts the intermediate as a root, even when its root is removed",
)

FILES = Group(
    "Files",
    (
        OUT,
        CERT_NAME,
        KEY_NAME,
        BUNDLE_NAME,
        COMBINED,
        CERT_MODE,
        KEY_MODE,
        GROUP,
        OMIT_EXPIRED,
        INTERMEDIATES,
    ),
)


def build_output(arguments: Arguments) -> Output:
    """The files; raises ConfigError for names that collide."""
    names = FileNames(arguments[CERT_NAME], arguments[KEY_NAME], arguments[BUNDLE_NAME])
    _check_names(names)
    output = Output(
        arguments[OUT],
        names,
        arguments[CERT_MODE],
        arguments[KEY_MODE],
        arguments[GROUP],
        arguments[COMBINED],
        arguments[OMIT_EXPIRED],
        arguments[INTERMEDIATES],
    )
    if output.combined:
        _check_combined(output)
    return output


def open_directory(output: Output, event_log: EventLog) -> AtomicDirectory:
    """The directory, opened; logs a warning for each way in which other users can get at the key."""
    from tunnel.svid.atomic_directory import AtomicDirectory
    from tunnel.svid.event_log import Event
    from tunnel.svid.exposure import list_exposures

    directory = AtomicDirectory(output.folder, output.group)
    for exposure in list_exposures(output.folder, *([os.path.dirname(output.combined)] if output.combined else [])):
        event_log.write(Event.NOTICE, f"warning: {exposure}")
    return directory


def _check_names(names: FileNames) -> None:
    if len({names.cert, names.key, names.bundle}) < 3:
        raise ConfigError(
            "--cert-name, --key-name and --bundle-name must differ; expected --combined FILE for key and chain in one file"
        )
    stem, suffix = os.path.splitext(names.bundle)
    for flag, name in ((CERT_NAME, names.cert), (KEY_NAME, names.key)):
        if name.startswith(f"{stem}.") and name.endswith(suffix) and len(name) > len(f"{stem}.{suffix}"):
            raise ConfigError(
                f"--{flag.name}: {name} can be the bundle of a federated trust domain, {stem}.TRUST-DOMAIN{suffix}; "
                "expected another name"
            )


def _check_combined(output: Output) -> None:
    directory, name = os.path.split(output.combined)
    if not name or name in (".", "..") or "\0" in output.combined:
        raise ConfigError(f"--{COMBINED.name}: {invalid_value('file', output.combined)}")
    if os.path.realpath(directory) == os.path.realpath(output.folder):
        _parse_file_name(name)
        if name in (output.names.cert, output.names.key, output.names.bundle):
            raise ConfigError(f"--{COMBINED.name}: {output.combined} is written with other contents; expected another name")
