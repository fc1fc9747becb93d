"""Environment variables that child commands do not get, and those that this process ignores.

Loaded before everything else, so it imports nothing large: the names in `SECRETS` are literals, and a test compares them.
"""

from __future__ import annotations

from typing import Final

SOCKETS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")  # sd_listen_fds(3)
MANAGER: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")  # sd_notify(3), sd_watchdog_enabled(3)
SECRETS: Final = ("KEYSTORE_PASS", "PKCS11_PIN")

# Settings of the interpreter and of libraries that are meant for the child command: this process removes them from its own
# environment, and the command gets them. Kept, because this program uses them too: SSL_CERT_FILE, SSL_CERT_DIR and, for ACME,
# HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
_PREFIXES: Final = (
    "PYTHON",  # Python; -I ignores them, other programs that we start do not
    "GRPC_",  # grpc: an unknown GRPC_POLL_STRATEGY aborts the process, GRPC_TRACE writes to standard error
    "PROMETHEUS_",  # prometheus_client: PROMETHEUS_MULTIPROC_DIR mixes our metrics with the command's
    "OTEL_",  # opentelemetry: the command's collector, credentials and sampling
    "CRYPTOGRAPHY_",  # cryptography: CRYPTOGRAPHY_OPENSSL_NO_LEGACY makes old keystores unreadable
)
_NAMES: Final = frozenset(
    {
        *("grpc_proxy", "no_grpc_proxy", "CARES_HOSTS"),  # grpc
        "prometheus_multiproc_dir",  # prometheus_client
        *("OPENSSL_CONF", "OPENSSL_CONF_INCLUDE", "OPENSSL_MODULES", "OPENSSL_ENGINES"),  # OpenSSL: they can load code
        "SSLKEYLOGFILE",  # ssl, urllib3: the keys of TLS sessions are written to it
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),  # requests, for ACME
    }
)


_KEPT: Final = frozenset(("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"))  # they only describe the process, in traces


def is_of_libraries(name: str) -> bool:
    """Whether the interpreter or a library would use this variable, which is meant for the child command."""
    return name in _NAMES or (name.startswith(_PREFIXES) and name not in _KEPT)
