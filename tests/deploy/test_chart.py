"""The Helm chart, through Helm's own library: no finding, objects that Kubernetes takes, wrong values refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.container_image import ROOT
from tests.support.kubernetes_objects import check, check_stop, config_maps, module, own_lines, parse, read_line, served_configs
from tunnel import __version__

CHART = ROOT / "deploy/helm/tunnel"
VALUES: dict[str, Any] = {"gateway": {"target": "redis:6379", "allow": {"ids": ["spiffe://example.org/web"]}}}
FULL: dict[str, Any] = {
    "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": [{"name": "registry"}]},
    "gateway": {
        "target": "db.example.org:5432",
        "allow": {"uris": ["spiffe://example.org/ns/prod/**"], "trustDomains": ["partner.org"]},
        "extraArgs": ["--max-concurrent-conns=100"],
        "shutdownDelaySeconds": 30,
        "shutdownTimeoutSeconds": 120,
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "c"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    },
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
    "serviceAccount": {"name": "edge", "annotations": {"a": "b"}},
}
_CONFIG = """[[server]]
name = "redis"
listen = "0.0.0.0:8443"
target = "redis:6379"
unsafe-target = true
access = [{ allow = "spiffe://example.org/web" }]

[[server]]
name = "db"
listen = "0.0.0.0:8444"
target = "db:5432"
unsafe-target = true
access = [{ allow = { trust-domain = "partner.org" } }]
"""
SERVED: dict[str, Any] = {
    "gateway": {
        "config": _CONFIG,
        "extraPorts": [{"name": "db", "port": 8444}],
        "readinessPath": "/readyz?target&listener=redis",
        "shutdownDelaySeconds": 7,
    }
}
# How another chart puts the sidecar into a pod of its own.
_PARENT = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: cache
spec:
  selector:
    matchLabels: {app: cache}
  template:
    metadata:
      labels: {app: cache}
    spec:
      automountServiceAccountToken: false
      securityContext:
        seccompProfile:
          type: RuntimeDefault
      initContainers:
        {{- $args := list "client" "--listen=localhost:6379" "--target=cache:8443" "--verify-id=spiffe://example.org/cache" }}
        {{- include "tunnel.sidecar" (dict "values" .Values.tunnel "args" $args "awaits" "target") | nindent 8 }}
      containers: []
      volumes:
        {{- include "tunnel.volumes" .Values.tunnel | nindent 8 }}
"""


def render(path: Path, values: dict[str, Any]) -> dict[str, str]:
    with module("helm_python").Chart.load(path) as chart:
        chart.validate_schema(values)
        rendered: dict[str, str] = chart.render(values, name="edge", namespace="shop")
        return rendered


def test_helm_finds_nothing_to_say_about_the_chart() -> None:
    report = module("helm_python").lint(CHART, VALUES, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("values", [VALUES, FULL], ids=["least", "most"])
def test_what_it_makes_is_valid_and_our_program_takes_its_line(values: dict[str, Any]) -> None:
    found = [one for name, text in render(CHART, values).items() if name.endswith(".yaml") for one in parse(text)]
    assert [one["kind"] for one in found] == ["ServiceAccount", "Deployment", "Service", "NetworkPolicy"]
    for one in found:
        check(one)
    pod = found[1]["spec"]["template"]["spec"]
    (line,) = own_lines(pod)
    assert read_line(line)
    check_stop(pod)
    digest = values.get("image", {}).get("digest")
    assert pod["containers"][0]["image"].endswith(f"@{digest}" if digest else f":{__version__}")


def test_a_configuration_file_is_served_with_what_the_chart_adds() -> None:
    found = [one for name, text in render(CHART, SERVED).items() if name.endswith(".yaml") for one in parse(text)]
    assert [one["kind"] for one in found] == ["ServiceAccount", "ConfigMap", "Deployment", "Service", "NetworkPolicy"]
    for one in found:
        check(one)
    pod, maps = found[2]["spec"]["template"]["spec"], config_maps(found)
    check_stop(pod, maps)
    (config,) = served_configs(pod, maps)
    assert (config.shutdown_delay, config.shutdown_timeout) == (7, 25)
    assert [str(listener.listen) for listener in config.listeners] == ["0.0.0.0:8443", "0.0.0.0:8444"]
    assert len({listener.identity for listener in config.listeners}) == len(config.monitors) == 1
    assert [port["targetPort"] for port in found[3]["spec"]["ports"]] == ["mtls", "db"]
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz?target&listener=redis"
    assert [str(address) for address in config.monitors[0].addresses] == [":6060", ":6061"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "target"),
        ({"gateway": {"target": "redis:6379"}}, "allow"),
        ({"gateway": {**VALUES["gateway"], "target": "redis"}}, "target"),
        ({**VALUES, "image": {"digest": "latest"}}, "digest"),
        ({**VALUES, "replicas": 3}, "replicas"),
        ({"gateway": {**VALUES["gateway"], "readinessPath": "/_status"}}, "readinessPath"),
        ({"gateway": {**VALUES["gateway"], "config": _CONFIG}}, "target"),
    ],
    ids=["nothing", "nobody-allowed", "no-port", "no-digest", "unknown", "no-readyz", "flags-and-file"],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(module("helm_python").HelmValuesError, match=words):
        render(CHART, values)


def test_another_chart_takes_the_sidecar_from_it(tmp_path: Path) -> None:
    parent = tmp_path / "cache"
    (parent / "templates").mkdir(parents=True)
    shutil.copytree(CHART, parent / "charts/tunnel")
    dependency = f"dependencies:\n  - {{name: tunnel, version: {__version__}, repository: 'file://charts/tunnel'}}\n"
    (parent / "Chart.yaml").write_text(f"apiVersion: v2\nname: cache\nversion: 1.0.0\n{dependency}")
    (parent / "values.yaml").write_text("tunnel:\n  gateway:\n    enabled: false\n")
    (parent / "templates/deployment.yaml").write_text(_PARENT)
    rendered = render(parent, {})
    (found,) = (one for name, text in rendered.items() if name.endswith(".yaml") for one in parse(text))
    pod = found["spec"]["template"]["spec"]
    pod["containers"] = [{**pod["initContainers"][0], "name": "cache", "image": "cache"}]
    del pod["containers"][0]["restartPolicy"]
    check(found)
    (line,) = own_lines(pod)
    assert read_line(line)
    assert pod["initContainers"][0]["restartPolicy"] == "Always"
    assert pod["initContainers"][0]["startupProbe"]["httpGet"] == {"path": "/readyz?target", "port": "health"}


def test_the_chart_is_of_this_version() -> None:
    chart = parse((CHART / "Chart.yaml").read_text())[0]
    values = parse((CHART / "values.yaml").read_text())[0]
    assert (chart["version"], chart["appVersion"], values["image"]["tag"]) == (__version__,) * 3
