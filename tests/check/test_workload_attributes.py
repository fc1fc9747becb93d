"""The attributes of this process that an agent sees."""

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


def describe(attributes: WorkloadAttributes) -> str:
    return "\n".join(f"{finding.name}: {finding.detail}" for finding in describe_workload(attributes))


def test_this_process_is_its_user_and_the_interpreter() -> None:
    attributes = read_workload_attributes({})
    text = describe(attributes)
    assert f"pid {os.getpid()}, uid {os.geteuid()}" in text
    assert f"{os.path.realpath('/proc/self/exe')} is the Python interpreter" in text
    assert "would match every Python program" in text
    assert f"unix:uid:{os.geteuid()}" in selectors_for(attributes)


@pytest.mark.parametrize("cgroup", CGROUPS.values(), ids=CGROUPS)
def test_a_pod_is_known_by_its_control_group(tmp_path: Path, cgroup: str) -> None:
    attributes = seen(tmp_path, cgroup, namespace="prod\n", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert (attributes.pod, attributes.container) == (POD, CONTAINER)
    assert f"container {CONTAINER[:12]}, pod {POD}, namespace prod: another container is another" in describe(attributes)
    assert selectors_for(attributes) == ("k8s:ns:prod", "k8s:sa:SERVICE-ACCOUNT")


def test_where_the_control_group_is_hidden_its_mounts_tell(tmp_path: Path) -> None:
    mounts = (
        f"611 594 254:1 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw - ext4 /dev/vda1 rw\n"
        f"612 594 254:1 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    )
    attributes = seen(tmp_path, mounts=mounts)
    assert (attributes.pod, attributes.container) == (POD, CONTAINER)


def test_a_unit_is_a_selector(tmp_path: Path) -> None:
    attributes = seen(tmp_path, "0::/system.slice/tunnel-cache.service\n")
    assert "systemd unit tunnel-cache.service" in describe(attributes)
    assert selectors_for(attributes)[0] == "systemd:id:tunnel-cache.service"
    assert "container:" not in describe(attributes)


def test_where_there_is_no_proc_the_rest_is_told(tmp_path: Path) -> None:
    attributes = read_workload_attributes({}, tmp_path / "no", tmp_path / "no")
    assert attributes.executable == ""
    assert "unknown is the Python interpreter" in describe(attributes)
