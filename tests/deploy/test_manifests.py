"""The manifests are what a recent Kubernetes takes, strictly read, and each line for our program is one that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.container_image import ROOT
from tests.support.kubernetes_objects import check, check_stop, config_maps, own_lines, parse, read_line, served_configs
from tunnel import __version__
from tunnel.net.address import TcpAddress

MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid_and_its_pods_are_restricted(path: Path) -> None:
    found = parse(path.read_text())
    assert found
    for one in found:
        check(one)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_our_program_takes_each_line_of_a_manifest(path: Path) -> None:
    pods = [one["spec"]["template"]["spec"] for one in parse(path.read_text()) if "template" in one.get("spec", {})]
    lines = [line for pod in pods for line in own_lines(pod)]
    assert lines
    for line in lines:
        read_line(line)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_stop_serves_new_connections_for_a_while_and_is_over_in_time(path: Path) -> None:
    found = parse(path.read_text())
    for one in found:
        if "template" in one.get("spec", {}):
            check_stop(one["spec"]["template"]["spec"], config_maps(found))


def test_the_probes_and_ports_of_a_pod_with_a_configuration_file_are_those_of_the_file() -> None:
    found = parse((ROOT / "deploy/kubernetes/config-file.yaml").read_text())
    pod = next(one["spec"]["template"]["spec"] for one in found if one["kind"] == "Deployment")
    (config,) = served_configs(pod, config_maps(found))
    assert not config.warnings
    tunnel = pod["initContainers"][0]
    assert tunnel["readinessProbe"]["httpGet"]["path"] == f"/readyz?target&listener={config.listeners[0].name}"
    ports = {port["name"]: str(port["containerPort"]) for port in tunnel["ports"]}
    addresses = config.listeners[0].listen, *config.monitors[0].addresses
    assert [isinstance(one, TcpAddress) and one.port for one in addresses] == [
        ports[name] for name in ("mtls", "status", "health")
    ]


def test_a_key_that_kubernetes_would_pass_over_is_refused() -> None:
    (first, *_) = parse(MANIFESTS[0].read_text())
    first["spec"]["template"]["spec"]["readOnlyRoot"] = True
    with pytest.raises(Exception, match="readOnlyRoot"):
        check(first)


def test_the_images_are_of_this_version() -> None:
    images = [
        line.split()[1]
        for path in MANIFESTS
        for line in path.read_text().splitlines()
        if "image: " in line and "/tunnel:" in line
    ]
    assert {image.rpartition(":")[2] for image in images} == {__version__}
