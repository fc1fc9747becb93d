"""The package is built in layers: imports point downwards, and each heavy library has its place."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import tunnel

PACKAGE = Path(tunnel.__file__).parent

# From the bottom up. A module may import from lower layers and from its own part, never from a neighbour or from above.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "tunnel",
        "tunnel.lazy_dataclass",
        "tunnel.errors",
        "tunnel.deferred_modules",
        "tunnel.garbage_collection",
        "tunnel.interpreter",
        "tunnel.ip_address",
        "tunnel.time_format",
    ),
    ("tunnel.unix_path", "tunnel.pkix", "tunnel.atomic_file", "tunnel.log_output"),
    ("tunnel.spiffe", "tunnel.log"),
    ("tunnel.authz", "tunnel.net.address", "tunnel.log_limit"),
    ("tunnel.wire",),
    ("tunnel.config", "tunnel.syslog", "tunnel.log_file", "tunnel.log_capture"),
    ("tunnel.cli",),
    ("tunnel.backoff",),
    ("tunnel.tls", "tunnel.net", "tunnel.keystore", "tunnel.policy", "tunnel.sandbox", "tunnel.child"),
    ("tunnel.identity", "tunnel.acme", "tunnel.relay", "tunnel.devapi", "tunnel.http"),
    ("tunnel.status",),
    ("tunnel.listener",),
    ("tunnel.tracing",),
    ("tunnel.workers",),
    ("tunnel.proxy", "tunnel.svid"),
    ("tunnel.check",),
    ("tunnel.commands",),
    ("tunnel.cli.main",),
    ("tunnel.__main__",),
)
# Which modules may name a library; every other one may name none.
PLACES: Mapping[str, tuple[str, ...]] = {
    "grpc": (
        "tunnel.identity.grpc_channel",
        "tunnel.identity.workload",
        "tunnel.identity.workload_calls",
        "tunnel.devapi.server",
    ),
    "trio": (
        "tunnel.identity.event_channel",
        "tunnel.proxy.proxy_listener",
        "tunnel.proxy.identity_feed",
        "tunnel.proxy.file_watcher",
        "tunnel.proxy.reconfiguration",
        "tunnel.proxy.monitoring",
        "tunnel.proxy.overview_source",
        "tunnel.proxy.page_source",
        "tunnel.proxy.status_port",
        "tunnel.proxy.health_port",
        "tunnel.listener.health_checks",
        "tunnel.proxy.reloader",
        "tunnel.proxy.reporting",
        "tunnel.proxy.reloadable_policy",
        "tunnel.proxy.workload_api_source",
        "tunnel.proxy.file_source",
        "tunnel.proxy.acme_source",
        "tunnel.proxy.proxy",
        "tunnel.proxy.listening",
        "tunnel.proxy.name_resolver",
        "tunnel.proxy.process_traces",
        "tunnel.proxy.retirement",
        "tunnel.proxy.reload_request",
        "tunnel.proxy.process_context",
        "tunnel.proxy.supervisor",
        "tunnel.proxy.service_task",
        "tunnel.proxy.command_task",
        "tunnel.proxy.stdio_task",
        "tunnel.svid",
        "tunnel.check.agent",
        "tunnel.check.preflight",
        "tunnel.child.reaper",
        "tunnel.child.supervised_command",
        "tunnel.identity.wait_notice",
        "tunnel.relay.loop",
        "tunnel.net.accept",
        "tunnel.net.connection_limiter",
        "tunnel.net.dial",
        "tunnel.tls.stream",
        "tunnel.acme.responder",
        "tunnel.http",
        "tunnel.status",
        "tunnel.workers.worker_pool",
    ),
    "dns": ("tunnel.net.dns",),
    "jwt": ("tunnel.check.jwt_signature",),
    "h11": ("tunnel.wire.connect", "tunnel.http"),
    "prometheus_client": ("tunnel.status.prometheus",),
    "regopy": ("tunnel.policy.evaluator",),  # it runs in a process of its own
    "acme": ("tunnel.acme.client",),
    "josepy": ("tunnel.acme.client",),
    "requests": ("tunnel.acme.client", "tunnel.tracing.otlp"),
    "urllib3": ("tunnel.acme.client", "tunnel.tracing.otlp"),  # a part of requests' interface, and installed with it
    "opentelemetry": ("tunnel.tracing.otlp",),
    "google": ("tunnel.tracing.otlp",),  # protobuf, of opentelemetry's messages, and installed with them
    "outcome": ("tunnel.relay.loop",),  # a part of trio's interface for host loops, and installed with it
    "cryptography": (
        "tunnel.pkix.strength",
        "tunnel.spiffe.x509",
        "tunnel.identity.credentials",
        "tunnel.identity.update",
        "tunnel.tls",
        "tunnel.devapi",
        "tunnel.svid",
        "tunnel.check",
        "tunnel.keystore",
        "tunnel.acme",
        "tunnel.workers.codec",
    ),
}
PRIVATE_PLACES = {"tunnel.tls.openssl", "tunnel.pkix.strength"}  # of what cryptography does not export
# The nets that catch every bug: of a connection in the loop, of a trio server (a task), of new credentials,
# of a batch of traces.
BROAD_PLACES = {"tunnel.errors": 1, "tunnel.relay.loop": 1, "tunnel.net.accept": 1, "tunnel.tracing.trace_export": 1}

Sources = Mapping[str, str]


@cache
def parsed(source: str) -> ast.Module:
    """The tree of a source; most are asked for again and again."""
    return ast.parse(source)


def sources_of(package: Path) -> Sources:
    """The source of each module by its name; a package is named as its `__init__`."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(source: str, modules: Sources) -> Iterator[str]:
    """Everything a source imports, wherever in it: of `from a import b`, `a.b` when that is a module."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                joined = f"{node.module}.{alias.name}"
                yield joined if joined in modules else str(node.module)


def is_within(module: str, part: str) -> bool:
    return module == part or (part != "tunnel" and module.startswith(f"{part}."))


def part_of(module: str) -> tuple[int, str]:
    """The layer and the part of a module: the longest name that fits."""
    fitting = [(len(part), rank, part) for rank, parts in enumerate(LAYERS) for part in parts if is_within(module, part)]
    assert fitting, f"{module} is in no layer"
    return max(fitting)[1:]


def wrong_arrows(modules: Sources) -> list[str]:
    """The imports that do not point downwards."""
    wrong = []
    for module, source in modules.items():
        rank, part = part_of(module)
        for target in imports(source, modules):
            if target.split(".")[0] != "tunnel" or module == target:
                continue
            target_rank, target_part = part_of(target)
            if target_rank >= rank and target_part != part:
                wrong.append(f"{module} -> {target}")
    return wrong


def misplaced_libraries(modules: Sources) -> list[str]:
    """The imports of a library outside its place, or of one that has none."""
    wrong = []
    for module, source in modules.items():
        for target in imports(source, modules):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names or top == "tunnel":
                continue
            if not any(is_within(module, place) for place in PLACES.get(top, ())):
                wrong.append(f"{module} -> {target}")
    return wrong


def private_names(source: str) -> set[str]:
    """What is imported from a library without being exported."""
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PLACES
        for alias in node.names
        if any(part.startswith("_") for part in (*node.module.split("."), alias.name))
    }


def broad_nets(source: str) -> int:
    """How many handlers catch everything."""
    handlers = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.ExceptHandler)]
    caught = [ast.walk(handler.type) if handler.type else [ast.Name("BaseException")] for handler in handlers]
    return sum(
        any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names) for names in caught
    )


def circles(modules: Sources) -> list[str]:
    """Modules that reach themselves by imports that are carried out when a module is loaded."""
    loaded = {module: set(_imports_at_load(source, modules)) & set(modules) for module, source in modules.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(loaded[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += loaded[module]
        return seen

    return sorted(module for module in modules if module in reached(module))


def _imports_at_load(source: str, modules: Sources) -> Iterator[str]:
    for statement in parsed(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from imports(ast.unparse(statement), modules)


def repeated_classes(modules: Sources) -> list[str]:
    """The names of classes that are defined more than once."""
    names = Counter(
        node.name for source in modules.values() for node in ast.walk(parsed(source)) if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, count in names.items() if count > 1)


@pytest.fixture(scope="module")
def modules() -> Sources:
    return sources_of(PACKAGE)


def test_imports_point_downwards(modules: Sources) -> None:
    assert wrong_arrows(modules) == []


def test_each_library_has_its_place(modules: Sources) -> None:
    assert misplaced_libraries(modules) == []


def test_no_module_imports_itself_indirectly(modules: Sources) -> None:
    assert circles(modules) == []


def test_private_names_of_libraries_are_used_in_two_modules(modules: Sources) -> None:
    assert {module for module, source in modules.items() if private_names(source)} == PRIVATE_PLACES


def test_broad_exception_handlers_are_the_listed_ones(modules: Sources) -> None:
    assert {module: count for module, source in modules.items() if (count := broad_nets(source))} == BROAD_PLACES


def test_no_class_name_occurs_twice(modules: Sources) -> None:
    assert repeated_classes(modules) == []


def test_every_module_starts_with_a_docstring(modules: Sources) -> None:
    for module, source in modules.items():
        text = ast.get_docstring(parsed(source))
        assert text, f"{module} has no docstring"
        assert source.strip().startswith('"""')


# -- the checkers find what they are for


@pytest.mark.parametrize(
    ("module", "source", "arrow"),
    [
        ("tunnel.spiffe.ids", "from tunnel.tls.verify import SpiffeVerifier", "tunnel.tls.verify"),
        ("tunnel.spiffe.ids", "from tunnel.cli import main", "tunnel.cli.main"),
        ("tunnel.spiffe.ids", "import tunnel.commands.proxy.command as p", "tunnel.commands.proxy.command"),
        ("tunnel.errors", "def f():\n    from tunnel.log import escape", "tunnel.log"),
        ("tunnel.authz.rules", "if TYPE_CHECKING:\n    import tunnel.config.values", "tunnel.config.values"),
        ("tunnel.net.address", "from tunnel.net.sockets import resolve", "tunnel.net.sockets"),
        ("tunnel.relay.relay", "from tunnel.identity.credentials import Credentials", "tunnel.identity.credentials"),
        ("tunnel.tls.openssl", "from tunnel.net.sockets import resolve", "tunnel.net.sockets"),
    ],
)
def test_a_wrong_import_is_found(modules: Sources, module: str, source: str, arrow: str) -> None:
    assert wrong_arrows({**modules, module: source}) == [f"{module} -> {arrow}"]


def test_a_module_in_no_layer_is_found(modules: Sources) -> None:
    with pytest.raises(AssertionError, match=r"tunnel\.util is in no layer"):
        wrong_arrows({**modules, "tunnel.util": ""})


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tunnel.commands.proxy.command", "import trio"),
        ("tunnel.tls.openssl", "from OpenSSL import SSL"),
        ("tunnel.spiffe.ids", "from cryptography.x509 import Certificate"),
        ("tunnel.spiffe.ids", "def f():\n    import requests"),
        ("tunnel.identity.update", "import grpc.aio"),
    ],
)
def test_a_misplaced_library_is_found(modules: Sources, module: str, source: str) -> None:
    assert len(misplaced_libraries({**modules, module: source})) == 1


def test_a_circular_import_is_found(modules: Sources) -> None:
    changed = {**modules, "tunnel.errors": "from tunnel.log import escape", "tunnel.log": "import tunnel.errors"}
    assert {"tunnel.errors", "tunnel.log"} <= set(circles(changed))


def test_private_names_and_broad_handlers_are_found() -> None:
    source = "from cryptography._a import b\nfrom cryptography import _c, d\nfrom tunnel._e import _f"
    assert private_names(source) == {"cryptography._a.b", "cryptography._c"}
    assert broad_nets("try: pass\nexcept Exception: pass") == 1
    assert broad_nets("try: pass\nexcept (OSError, BaseException) as e: pass") == 1
    assert broad_nets("try: pass\nexcept: pass") == 1
    assert broad_nets("try: pass\nexcept OSError: pass") == 0


def test_a_class_name_that_occurs_twice_is_found(modules: Sources) -> None:
    changed = {**modules, "tunnel.errors": "class Relay:\n    pass\n\ndef f():\n    class Relay:\n        pass"}
    assert repeated_classes(changed) == ["Relay"]
