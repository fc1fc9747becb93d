"""Validation of Kubernetes objects against the schemas and the Pod Security Standard `restricted`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pytest

from tunnel.cli.parser import Parsed, parse_command_line
from tunnel.commands.proxy.build import build as build_proxy
from tunnel.commands.registry import load_commands
from tunnel.commands.run import command as run
from tunnel.commands.serve import CONFIG
from tunnel.config.file.loader import load_config
from tunnel.config.model import ProcessConfig

Object = dict[str, Any]
ConfigData = Mapping[str, str]  # the text of each file of a ConfigMap
_ENVIRONMENT = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/agent.sock"}
VERSIONS = ("1.33", "1.37")  # the oldest that is looked after, and the newest that the validator knows


def module(name: str) -> Any:
    """A library of the extra `dev`; without it the test is skipped, or fails where all libraries are required."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error}: install the extra dev")
        pytest.skip(f"{error}: install the extra dev")


def parse(text: str) -> list[Object]:
    """The objects of a YAML file."""
    return [document for document in module("yaml").safe_load_all(text) if document]


def check(found: Object) -> None:
    """It is one that Kubernetes takes, in every version, without a key that is passed over; and its pods are shut in."""
    validate = module("kubernetes_validate").validate
    for version in VERSIONS:
        validate(found, version, strict=True)
    pod = found.get("spec", {}).get("template", {}).get("spec")
    if pod:
        _check_pod(pod)


def containers(pod: Object) -> Iterator[Object]:
    """All of a pod's, in the order in which they start."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def _check_pod(pod: Object) -> None:
    general = pod["securityContext"]
    assert general["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert all(set(volume) & {"configMap", "csi", "emptyDir"} for volume in volumes.values())  # never hostPath
    for container in containers(pod):
        own = container["securityContext"]
        assert (own.get("runAsNonRoot") or general.get("runAsNonRoot")) is True
        assert own["runAsUser"] > 0
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= set(volumes)
        _check_probes(container)


def _check_probes(container: Object) -> None:
    """Each asks a port that the container has, in plain HTTP, and its limit is not shorter than the answer may take."""
    named = {port["name"] for port in container.get("ports", ())}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(kind)
        if not probe:
            continue
        asked = probe.get("httpGet") or probe.get("tcpSocket")
        if asked:
            assert asked["port"] in named
            assert asked.get("scheme", "HTTP") == "HTTP"
            if "tunnel" in container["image"] and "server" in container["args"]:
                assert (asked["path"] == "/livez") == (kind == "livenessProbe")  # a restart of the proxy mends no backend
            if "target" in asked.get("path", ""):
                assert probe["timeoutSeconds"] > 10  # --connect-timeout


def config_maps(found: Iterable[Object]) -> Mapping[str, ConfigData]:
    """The files of each ConfigMap by its name."""
    return {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "ConfigMap"}


def check_stop(pod: Object, maps: Mapping[str, ConfigData] = MappingProxyType({})) -> None:
    """A server goes on accepting for a while, and what a stop may take is over before the kubelet kills.

    `maps` are the ConfigMaps that a pod can mount.
    """
    waits = [
        container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for container in containers(pod)
    ]
    for config, limit in (*_stops(pod), *_served_stops(pod, maps)):
        assert config.shutdown_delay >= 5 or not any(listener.is_server for listener in config.listeners)
        assert pod["terminationGracePeriodSeconds"] >= max(waits) + config.shutdown_delay + limit + 5


def _stops(pod: Object) -> Iterator[tuple[ProcessConfig, float]]:
    """Each `server` and `run`, with how long its end may take when the delay is over."""
    for line in own_lines(pod):
        parsed = read_line(line)
        if parsed.command.name == "server":
            config = build_proxy(parsed.command, parsed.arguments)
            yield config, config.shutdown_timeout
        elif parsed.command.name == "run":
            whole = run.build(parsed.arguments, _ENVIRONMENT)
            yield whole.process, whole.stop_timeout


def served_configs(pod: Object, maps: Mapping[str, ConfigData]) -> Iterator[ProcessConfig]:
    """The configuration of each `serve`, from its ConfigMap, which must be a directory: `subPath` is never updated."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in containers(pod):
        if container.get("args", [""])[0] != "serve":
            continue
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        with TemporaryDirectory() as place:
            for path in read_line(container["args"]).arguments[CONFIG]:
                assert "subPath" not in mounts[path]
                for name, text in maps[volumes[mounts[path]["name"]]["configMap"]["name"]].items():
                    (Path(place) / name).write_text(text)
            yield load_config([place])


def _served_stops(pod: Object, maps: Mapping[str, ConfigData]) -> Iterator[tuple[ProcessConfig, float]]:
    for config in served_configs(pod, maps):
        yield config, config.shutdown_timeout


def own_lines(pod: Object) -> Iterator[list[str]]:
    """The command line of each container that is ours, and of its probes."""
    for container in containers(pod):
        if "tunnel" not in container["image"]:
            continue
        yield list(container["args"])
        probes = [probe["exec"]["command"] for kind, probe in container.items() if kind.endswith("Probe") and "exec" in probe]
        yield from (command[1:] for command in probes)


def read_line(line: list[str]) -> Parsed:
    """What our program makes of a command line; raises ConfigError."""
    parsed = parse_command_line(line, load_commands(), _ENVIRONMENT)
    if parsed.command.name in ("server", "client"):
        build_proxy(parsed.command, parsed.arguments)
    return parsed
