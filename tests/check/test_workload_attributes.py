"""What an agent sees of this process is told as it sees it, wherever the process runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.check.workload_attributes import WorkloadAttributes, describe_workload, read_workload_attributes, selectors_for

POD = "8d1c4d7e-0c5f-4c3e-9c55-2f6a3a1b0c9d"
CONTAINER = "4f" * 32
CGROUPS = {
    "version 1": f"12:cpu:/kubepods/burstable/pod{POD}/{CONTAINER}\n",
    "version 2": f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope\n",
}


def seen(tmp_path: Path, cgroup: str = "0::/\n", mounts: str = "", namespace: str = "", **environ: str) -> WorkloadAttributes:
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(mounts)
    (tmp_path / "exe").symlink_to("/usr/bin/python3.11")
    (tmp_path / "namespace").write_text(namespace)
    return read_workload_attributes(environ, tmp_path, tmp_path / "namespace")


def words(caller: WorkloadAttributes) -> str:
    return "\n".join(f"{finding.name}: {finding.detail}" for finding in describe_workload(caller))


def test_this_process_is_its_user_and_the_interpreter() -> None:
    caller = read_workload_attributes({})
    said = words(caller)
    assert f"pid {os.getpid()}, uid {os.geteuid()}" in said
    assert f"{os.path.realpath('/proc/self/exe')} is the Python interpreter" in said
    assert "would match every Python program" in said
    assert f"unix:uid:{os.geteuid()}" in selectors_for(caller)


@pytest.mark.parametrize("cgroup", CGROUPS.values(), ids=CGROUPS)
def test_a_pod_is_known_by_its_control_group(tmp_path: Path, cgroup: str) -> None:
    caller = seen(tmp_path, cgroup, namespace="prod\n", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert (caller.pod, caller.container) == (POD, CONTAINER)
    assert f"container {CONTAINER[:12]}, pod {POD}, namespace prod: another container is another" in words(caller)
    assert selectors_for(caller) == ("k8s:ns:prod", "k8s:sa:SERVICE-ACCOUNT")


def test_where_the_control_group_is_hidden_its_mounts_tell(tmp_path: Path) -> None:
    mounts = (
        f"611 594 254:1 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw - ext4 /dev/vda1 rw\n"
        f"612 594 254:1 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    )
    caller = seen(tmp_path, mounts=mounts)
    assert (caller.pod, caller.container) == (POD, CONTAINER)


def test_a_unit_is_a_selector(tmp_path: Path) -> None:
    caller = seen(tmp_path, "0::/system.slice/tunnel-cache.service\n")
    assert "systemd unit tunnel-cache.service" in words(caller)
    assert selectors_for(caller)[0] == "systemd:id:tunnel-cache.service"
    assert "container:" not in words(caller)


def test_where_there_is_no_proc_the_rest_is_told(tmp_path: Path) -> None:
    caller = read_workload_attributes({}, tmp_path / "no", tmp_path / "no")
    assert caller.executable == ""
    assert "unknown is the Python interpreter" in words(caller)
