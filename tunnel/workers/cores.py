"""How many cores this process can use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")


def count_workers(configured: int) -> int:
    """The number of workers: the configured one, or for 0 that of the usable cores."""
    return configured or usable_cores()


def usable_cores(cgroups: Path = _CGROUPS, own_groups: Path = _OWN_GROUPS) -> int:
    """The cores that the process may run on and, if its control groups limit the CPU time, that they have time for.

    A part of a core counts as none, but there is at least one: more workers than cores would wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_2(cgroups, own_groups), _quota_1(cgroups)) if quota is not None]
    return max(min(cores, *(int(quota) for quota in quotas)), 1) if quotas else cores


def _quota_2(cgroups: Path, own_groups: Path) -> float | None:
    """The smallest quota of the control group and of those that contain it, in cores (cgroups(7), version 2)."""
    group = next((line[3:] for line in _read(own_groups).splitlines() if line.startswith("0::")), "/")
    own = cgroups / group.lstrip("/")
    quotas = [_parse_quota(_read(one / "cpu.max").split()) for one in (own, *own.parents) if one.is_relative_to(cgroups)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_1(cgroups: Path) -> float | None:
    """The quota of version 1, as a container sees it."""
    words = [_read(cgroups / "cpu" / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    return _parse_quota(words)


def _parse_quota(words: list[str]) -> float | None:
    """Microseconds per period; None for no quota, and for what cannot be read."""
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
