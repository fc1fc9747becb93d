"""Modules that are deferred are loaded at their first use, and then are what they always are."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEFER = "import sys; from tunnel.deferred_modules import defer_modules; defer_modules(); "
IS_LOADED = "print('_ssl' in sys.modules, '_hashlib' in sys.modules, 'asyncio.events' in sys.modules)"


def output_of(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_an_import_alone_loads_nothing() -> None:
    assert (
        output_of(f"{DEFER}import ssl, hmac, asyncio, trio, tunnel.identity.grpc_channel; {IS_LOADED}") == "False False False"
    )


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("ssl", "import ssl; first = ssl.SSLContext; import ssl; assert ssl.SSLContext is first; first(16)"),
        ("ssl", "from ssl import SSLError; assert issubclass(SSLError, OSError)"),
        ("ssl", "import ssl; assert not hasattr(ssl, 'no such name')"),
        ("hmac", "import hmac; assert hmac.new(b'key', b'', 'sha256').digest_size == 32"),
        ("asyncio", "import asyncio.events; asyncio.events.new_event_loop().close()"),
        ("asyncio", "import asyncio; asyncio.run(asyncio.sleep(0))"),
    ],
)
def test_a_use_loads_the_module(name: str, use: str) -> None:
    assert output_of(f"{DEFER}{use}; print(type(sys.modules['{name}']).__name__)") == "module"


def test_threads_may_use_it_at_once() -> None:
    use = "[t.start() for t in ts]; [t.join() for t in ts]; print(len(found), all(one is found[0] for one in found))"
    threads = "ts = [threading.Thread(target=lambda: found.append(ssl.SSLContext)) for _ in range(20)]"
    assert output_of(f"{DEFER}import ssl, threading; found = []; {threads}; {use}") == "20 True"


def test_a_module_that_is_loaded_already_stays() -> None:
    assert output_of(f"import ssl; {DEFER}print(ssl is sys.modules['ssl'], type(ssl).__name__)") == "True module"
