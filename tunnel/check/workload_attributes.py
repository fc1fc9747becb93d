"""Who this process is to an agent that attests it.

Knows /proc and what SPIRE's attestors read there; must not know whether an agent is there. An agent asks the kernel who
opened the connection, so what counts is the process itself: its user, its program, its container.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel.check.finding import Finding, ok
from tunnel.check.limits import within

_POD = re.compile(r"pods?[-_/]?([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_CONTAINER = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?:\.scope|/|$)")
_CONTAINER_MOUNT = re.compile(r"/containers/([0-9a-f]{64})/")
_UNIT = re.compile(r"/([^/]+\.service)$")
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_WAIT_LIMIT = 2.0  # seconds for the name of a user, which may be asked of another machine


@dataclass(frozen=True, slots=True)
class WorkloadAttributes:
    """What an agent can know of us; "" for what is not there to be seen."""

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
    """This process."""
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


def describe_workload(caller: WorkloadAttributes) -> Iterator[Finding]:
    """What an agent sees of us, and what must not be made of it."""
    groups = f", groups {' '.join(map(group_name, caller.groups))}" if caller.groups else ""
    unit = f", systemd unit {caller.unit}" if caller.unit else ""
    yield ok(
        "process",
        f"an agent sees pid {caller.pid}, uid {user_name(caller.uid)}, gid {group_name(caller.gid)}{groups}{unit}",
    )
    yield ok(
        "executable",
        f"{caller.executable or 'unknown'} is Python: a selector unix:path or unix:sha256 sees the interpreter and not "
        "tunnel, and would admit every Python program",
    )
    if caller.is_kubernetes or caller.pod or caller.container:
        where = [f"container {caller.container[:12]}" if caller.container else "", f"pod {caller.pod}" if caller.pod else ""]
        where.append(f"namespace {caller.namespace}" if caller.namespace else "")
        place = ", ".join(filter(None, where)) or "in Kubernetes"
        yield ok(
            "container",
            f"{place}: to an agent another container is another workload, so run this check in the proxy's own (kubectl exec), "
            "not in a debug container",
        )


def selectors_for(caller: WorkloadAttributes) -> tuple[str, ...]:
    """Selectors that fit this process and no more than it needs, for a registration entry; each must fit."""
    if caller.is_kubernetes or caller.pod:
        return f"k8s:ns:{caller.namespace or 'NAMESPACE'}", "k8s:sa:SERVICE-ACCOUNT"
    if caller.unit:
        return f"systemd:id:{caller.unit}", f"unix:uid:{caller.uid}"
    return (f"unix:uid:{caller.uid}",)


def user_name(uid: int) -> str:
    """`1000 (alice)`, or the number alone."""
    return _with_name(uid, lambda: pwd.getpwuid(uid).pw_name)


def group_name(gid: int) -> str:
    """`1000 (alice)`, or the number alone."""
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
