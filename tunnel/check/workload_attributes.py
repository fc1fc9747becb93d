"""The attributes of this process that an agent attests: user, executable, systemd unit, container.

An agent asks the kernel which process opened the connection, so run the check in the process context of the proxy.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tunnel.check.finding import Finding, ok
from tunnel.check.preflight import within
from tunnel.lazy_dataclass import dataclass

_POD = re.compile(r"pods?[-_/]?([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_CONTAINER = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?:\.scope|/|$)")
_CONTAINER_MOUNT = re.compile(r"/containers/([0-9a-f]{64})/")
_UNIT = re.compile(r"/([^/]+\.service)$")
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_WAIT_LIMIT = 2.0  # seconds for the name of a user, which a remote directory service may resolve


@dataclass(frozen=True, slots=True)
class WorkloadAttributes:
    """The attributes of a process; "" if one does not exist or is hidden."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    executable: str
    unit: str = ""  # of systemd
    pod: str = ""  # of Kubernetes, its UID
    container: str = ""
    namespace: str = ""
    is_kubernetes: bool = False


def read_workload_attributes(
    environ: Mapping[str, str], proc: Path = Path("/proc/self"), namespace: Path = _NAMESPACE
) -> WorkloadAttributes:
    """Return the attributes of this process."""
    cgroup, mounts = _read(proc / "cgroup"), _read(proc / "mountinfo")
    try:
        executable = os.readlink(proc / "exe")
    except OSError:
        executable = ""
    units = [found[1] for line in cgroup.splitlines() if (found := _UNIT.search(line))]
    return WorkloadAttributes(
        pid=os.getpid(),
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=tuple(sorted(set(os.getgroups()) - {os.getegid()})),
        executable=executable,
        unit=units[0] if units else "",
        pod=_first(_POD, cgroup) or _first(_POD, mounts),
        container=_first(_CONTAINER, cgroup) or _first(_CONTAINER_MOUNT, mounts),
        namespace=_read(namespace).strip(),
        is_kubernetes="KUBERNETES_SERVICE_HOST" in environ,
    )


def describe_workload(attributes: WorkloadAttributes) -> Iterator[Finding]:
    """Yield findings on the attributes, and on selectors that must not be used."""
    groups = f", groups {' '.join(map(group_name, attributes.groups))}" if attributes.groups else ""
    unit = f", systemd unit {attributes.unit}" if attributes.unit else ""
    yield ok(
        "process",
        f"an agent sees pid {attributes.pid}, uid {user_name(attributes.uid)}, gid {group_name(attributes.gid)}{groups}{unit}",
    )
    yield ok(
        "executable",
        f"{attributes.executable or 'unknown'} is the Python interpreter: selectors unix:path and unix:sha256 would match "
        "every Python program",
    )
    if attributes.is_kubernetes or attributes.pod or attributes.container:
        parts = [
            f"container {attributes.container[:12]}" if attributes.container else "",
            f"pod {attributes.pod}" if attributes.pod else "",
        ]
        parts.append(f"namespace {attributes.namespace}" if attributes.namespace else "")
        place = ", ".join(filter(None, parts)) or "in Kubernetes"
        yield ok(
            "container",
            f"{place}: another container is another workload, so run this check in the proxy's container (kubectl exec), "
            "not in a debug container",
        )


def selectors_for(attributes: WorkloadAttributes) -> tuple[str, ...]:
    """Return selectors of a registration entry that match this process."""
    if attributes.is_kubernetes or attributes.pod:
        return f"k8s:ns:{attributes.namespace or 'NAMESPACE'}", "k8s:sa:SERVICE-ACCOUNT"
    if attributes.unit:
        return f"systemd:id:{attributes.unit}", f"unix:uid:{attributes.uid}"
    return (f"unix:uid:{attributes.uid}",)


def user_name(uid: int) -> str:
    """Return `1000 (alice)`, or the number alone."""
    return _with_name(uid, lambda: pwd.getpwuid(uid).pw_name)


def group_name(gid: int) -> str:
    """Return `1000 (alice)`, or the number alone."""
    return _with_name(gid, lambda: grp.getgrgid(gid).gr_name)


def _with_name(number: int, look_up: Callable[[], str]) -> str:
    try:
        return f"{number} ({within(_WAIT_LIMIT, look_up)})"
    except (KeyError, OSError):
        return str(number)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = next(filter(None, map(pattern.search, text.splitlines())), None)
    return found[1].replace("_", "-") if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
