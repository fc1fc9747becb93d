"""The rules about combinations of settings that command lines and configuration files share; each returns the problem or ``.

The settings are named as the operator wrote them: `--target` on a command line, `target` in a file.
"""

from __future__ import annotations

from tunnel.config.model import ListenerConfig, ProcessConfig, WorkloadApi
from tunnel.net.address import ListenAddress, TargetAddress, TcpAddress, UnixAddress, is_local


def check_local(address: ListenAddress | TargetAddress, permission: str) -> str:
    """Why plain connections there need a permission, which is the name of a setting."""
    if is_local(str(address)):
        return ""
    return (
        f"{address} is not local, and connections there are not encrypted; expected localhost:PORT, "
        f"127.0.0.1:PORT, [::1]:PORT or unix:PATH, or {permission}"
    )


def check_host_name(listener: ListenerConfig, server_name: str) -> str:
    """Why a client's server cannot be verified; `server_name` is the setting with its name."""
    if listener.is_server or isinstance(listener.identity.source, WorkloadApi) or listener.access.pins:
        return ""
    nameless = next((target for target in listener.targets if not listener.host_of(target)), None)
    return "" if nameless is None else f"{nameless} has no host name to verify; expected {server_name}"


def check_outbound(listener: ListenerConfig, proxy: str) -> str:
    """Why a target cannot be reached through the outbound proxy, whose setting is `proxy`."""
    local = next((target for target in listener.targets if isinstance(target, UnixAddress)), None)
    if listener.outbound is None or local is None:
        return ""
    return f"{local} cannot be reached through {proxy}; expected HOST:PORT"


def check_health_ports(config: ProcessConfig) -> list[str]:
    """Why each health port of the process cannot have its address: the kernel would share its requests with another port."""
    others = {str(one.listen): f"the listener {one.name}" for one in config.listeners if not _is_any_port(one.listen)}
    for monitor in config.monitors:
        if monitor.status is not None:
            others.setdefault(str(monitor.status.address.address), "the status port")
    problems = []
    for address in [monitor.health.address for monitor in config.monitors if monitor.health is not None]:
        other = "" if _is_any_port(address) else others.setdefault(str(address), "")
        problems.append(f"{address} is also the address of {other}; expected an address of its own" if other else "")
        others[str(address)] = others.get(str(address)) or "another health port"
    return problems


def _is_any_port(address: ListenAddress | None) -> bool:
    return address is None or (isinstance(address, TcpAddress) and address.port == "0")
