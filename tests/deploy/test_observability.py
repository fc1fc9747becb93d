"""Dashboard and alert rules use metrics that a real proxy exports, and Prometheus' own tool reads and tests them."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.plain_backends import Backend, echo, free_port
from tests.support.prometheus_server import promtool
from tests.support.workloads import Workloads
from tunnel.status.metric_families import FAMILIES
from tunnel.status.metric_family import FamilyType

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*", "$listener": ".*", "$direction": ".*"}
COLUMNS = 24


@pytest.fixture
def workloads(tmp_path: Path) -> Iterator[Workloads]:
    """An agent of the test's own, and everything that the test starts."""
    with closing(Workloads(tmp_path)) as workloads:
        yield workloads


def panels() -> list[dict[str, Any]]:
    return [one for one in DASHBOARD["panels"] if one["type"] != "row"]


def panel_expressions() -> list[str]:
    """The PromQL of all panels, with values instead of variables."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [re.sub(r"\$\w+", lambda match: VARIABLES[match.group()], one) for one in found]


def rule_expressions() -> list[str]:
    """The PromQL of all alert rules: what follows `expr:`, up to the next key."""
    return re.findall(r"^        expr: \|?\n?(.+?)(?=^        \w+:)", RULES.read_text(), re.MULTILINE | re.DOTALL)


def metric_names(expression: str) -> set[str]:
    """The names of metrics in PromQL: words that are neither labels, strings, numbers with units nor functions."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w.])[a-zA-Z_]\w*(?!\w|\s*\()", bare)
    return set(words) - {"and", "or", "unless", "offset", "bool", "by"}


def used_names() -> set[str]:
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
    names = {re.sub(r"label_values\((\w+).*", r"\1", one) for one in variables}
    return names.union(*map(metric_names, (*panel_expressions(), *rule_expressions())))


def test_names_are_found_in_expressions() -> None:
    expression = 'sum by (le, x) (rate(a_bucket{b="c"}[5m])) / clamp_max(d * 0.1, 36) and on (e) f offset 5m > 1'
    assert metric_names(expression) == {"a_bucket", "d", "f"}
    assert len(rule_expressions()) == RULES.read_text().count("alert:")


def test_every_metric_that_is_used_exists_in_a_scrape_of_a_real_proxy(workloads: Workloads) -> None:
    port = free_port()
    backend = workloads.enter(Backend(echo))
    workloads.server(backend.target, f"--status=http://127.0.0.1:{port}").wait_for("listening for connections")
    assert used_names() - exported_names(port) == set()


def exported_names(port: int) -> set[str]:
    """The names of all series that a proxy has or may have: families without samples have a type."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_every_family_has_a_panel() -> None:
    names = used_names()
    shown = {family.name for family in FAMILIES if any(name in names for name in series_of(family.name, family.type))}
    assert {family.name for family in FAMILIES} - shown == {"tunnel_ready"}, "tunnel_listener_ready says more"


def series_of(name: str, family_type: FamilyType) -> Iterator[str]:
    if family_type is FamilyType.HISTOGRAM:
        yield from (f"{name}_bucket", f"{name}_count", f"{name}_sum")
    else:
        yield f"{name}_total" if family_type is FamilyType.COUNTER else name


def test_promtool_finds_nothing_in_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_on_bad_series_and_none_on_healthy_ones() -> None:
    done = promtool("test", "rules", str(RULES.with_name("rules_test.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test() -> None:
    tests = RULES.with_name("rules_test.yml").read_text()
    alerts = re.findall(r"alert: (\w+)", RULES.read_text())
    assert [one for one in alerts if f"alertname: {one}\n        eval_time" not in tests] == []


def test_promtool_finds_nothing_in_the_example_of_a_scrape() -> None:
    done = promtool("check", "config", str(RULES.with_name("prometheus.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_the_expression_of_each_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(panel_expressions())]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # which is YAML too
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_of_grafana_10_or_later() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("tunnel", "tunnel")
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "instance", "listener", "direction"]
    ids = [one["id"] for one in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(one["title"] and one["gridPos"] for one in DASHBOARD["panels"])
    assert {one["type"] for one in panels()} == {"stat", "table", "timeseries"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_asks_the_chosen_data_source_for_the_chosen_listeners(panel: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    for target in panel["targets"]:
        assert target["datasource"] == source
        labels = labels_of(target["expr"])
        for name, selector in re.findall(r"\b(tunnel_\w+|process_\w+)\{([^}]*)\}", target["expr"]):
            wanted = {"instance"} | ({"listener", "direction"} & labels[name])
            assert {word for word in wanted if f'{word}=~"${word}"' in selector} == wanted


def labels_of(expression: str) -> dict[str, frozenset[str]]:
    """The labels of the metrics in an expression."""
    return {name: family_labels().get(name, frozenset()) for name in metric_names(expression)}


@cache
def family_labels() -> dict[str, frozenset[str]]:
    return {name: frozenset(one.labels) for one in FAMILIES for name in series_of(one.name, one.type)}


def test_no_panel_overlaps_another_one() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} is on {taken.get((x, y))}"
                taken[x, y] = panel["title"]


def test_the_words_of_a_label_that_are_selected_exist() -> None:
    used = [one for expression in panel_expressions() for one in re.findall(r"\b(\w+)=(?![~])\"", expression)]
    assert set(used) <= {label for family in FAMILIES for label in family.labels}


def test_the_page_for_operators_has_each_alert_and_no_other() -> None:
    section = (ROOT / "docs/deploy.md").read_text().partition("| alert |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(Tunnel\w+)`", section)) == set(re.findall(r"alert: (\w+)", RULES.read_text()))
