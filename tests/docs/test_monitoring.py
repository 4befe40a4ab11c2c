"""The dashboard and the alert rules: whole, and about nothing but what a real scrape has."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
import yaml

from tests.docs.markdown import DOCS
from tests.entrypoints.metrics.conftest import played
from tests.entrypoints.metrics.observed_service import ObservedService

__all__ = ["played"]

MONITORING = DOCS / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

OF_PROMETHEUS = {"up"}
"""A metric that Prometheus makes itself."""
LABELS_OF_PROMETHEUS = {"instance", "job"}

# What Grafana puts in before it sends a query.
FILLED_IN = {"$__rate_interval": "1m", "$model": ".*", "$engine": ".*"}


def filled(expression: str) -> str:
    for name, value in FILLED_IN.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, "a variable that the dashboard does not have"
    return expression


EXPRESSIONS = [
    *(filled(target["expr"]) for panel in PANELS for target in panel["targets"]),
    *(rule["expr"] for rule in RULES),
]


def nodes(node: Any) -> Iterator[Any]:
    """The node and all below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if (child := getattr(node, name, None)) is not None:
            yield from nodes(child)
    for child in getattr(node, "args", ()):
        yield from nodes(child)


def labels_of(played: ObservedService) -> dict[str, set[str]]:
    """Of each sample's name."""
    found: dict[str, set[str]] = {}
    for family in played.scrape().values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def known(played: ObservedService) -> dict[str, set[str]]:
    return labels_of(played)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_query_asks_for_what_there_is(expression: str, known: dict[str, set[str]]) -> None:
    tree = list(nodes(promql.parse(expression)))
    selectors = [node for node in tree if isinstance(node, promql.VectorSelector)]
    assert selectors
    labels: set[str] = set(LABELS_OF_PROMETHEUS)
    for selector in selectors:
        assert selector.name in known or selector.name in OF_PROMETHEUS, selector.name
        own = known.get(selector.name, set()) | LABELS_OF_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= own, selector.name
        labels |= own
    for node in tree:
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels
        if isinstance(node, promql.Call):
            check_call(node, known)


def check_call(call: promql.Call, known: dict[str, set[str]]) -> None:
    [name] = [node.name for node in nodes(call) if isinstance(node, promql.VectorSelector)]
    if call.func.name == "histogram_quantile":
        assert name.endswith("_bucket")
        assert "le" in known[name]
    if call.func.name in ("rate", "increase"):
        assert re.search("_(total|bucket|sum|count)$", name), "only what grows has a rate"


def test_the_walk_sees_what_stands_deep_in_a_query() -> None:
    tree = promql.parse("histogram_quantile(0.5, sum by (le) (rate(a_bucket[1m]))) / -b and on (c) topk(3, d)")
    names = [node.name for node in nodes(tree) if isinstance(node, promql.VectorSelector)]
    assert names == ["a_bucket", "b", "d"]


def test_legends_and_sentences_name_labels_that_there_are(known: dict[str, set[str]]) -> None:
    every = set().union(*known.values()) | LABELS_OF_PROMETHEUS
    legends = " ".join(target["legendFormat"] for panel in PANELS for target in panel["targets"])
    assert set(re.findall(r"\{\{(\w+)\}\}", legends)) <= every
    for rule in RULES:
        sentence = rule["annotations"]["summary"]
        used = set(re.findall(r"\$labels\.(\w+)", sentence))
        assert used <= every
        assert used <= labels_that_remain(rule["expr"], known), rule["alert"]


def labels_that_remain(expression: str, known: dict[str, set[str]]) -> set[str]:
    """After the aggregations of an alert's expression, if it has some."""
    tree = list(nodes(promql.parse(expression)))
    kept = [set(node.modifier.labels) for node in tree if isinstance(node, promql.AggregateExpr)]
    if kept:
        return set.intersection(*kept) | ({"le"} & set.union(*kept))
    return set().union(*(known.get(n.name, set()) for n in tree if isinstance(n, promql.VectorSelector))) | {"instance"}


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD, "Grafana gives one"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "model", "engine"}
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Tokens", "KV cache and queue", "Keys", "Gateway"]
    for panel in PANELS:
        assert panel["targets"]
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_variables_ask_for_what_there_is(known: dict[str, set[str]]) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        name = promql.parse(filled(selector)).name
        assert label in known[name]


def test_no_panel_covers_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_rules_are_whole() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "runbook"}


def test_the_example_scrape_is_of_the_job_that_is_asked_for() -> None:
    [scrape] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    jobs = set(re.findall(r'job="(\w+)"', " ".join(EXPRESSIONS)))
    assert jobs == {scrape["job_name"]}
    assert scrape["static_configs"][0]["targets"] == ["127.0.0.1:8081"]
