"""The dashboard, the alerts and their runbooks, against what a gateway really shows at /metrics."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.local.doctor.running import parse_metrics
from gateway.ingress.http.errors import REASON_IDS
from gateway.telemetry.loop_metrics import LoopCounter, LoopHistogram
from gateway.telemetry.outcomes import DOORS, FAMILIES, METHODS, OUTCOMES
from tests.fakes.house import CallbackAgent, House, house
from tests.house.source import ROOT

FOLDER = ROOT / "examples" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
CASES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.test.yml").read_text())["tests"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
DERIVED = ("_bucket", "_sum", "_created")
GROWING = ("_total", "_count", "_bucket", "_sum")
OF_PROMETHEUS = {"instance", "job"}  # labels that it adds
CLOSED_SETS: dict[str, frozenset[str]] = {
    "door": DOORS,
    "method": METHODS,
    "family": FAMILIES,
    "outcome": OUTCOMES | REASON_IDS,
    "result": frozenset({"ok", "refused", "failed"}),
}
METRIC = re.compile(r"\binterlock_[a-z_]+")
SELECTOR = re.compile(r"\b(interlock_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def labels_by_series(home: House) -> dict[str, set[str]]:
    """The labels of each series that /metrics can show, with or without a value yet."""
    found: dict[str, set[str]] = {}
    for collector, names in home.gateway.metrics.registry._collector_to_names.items():
        assert isinstance(collector, MetricWrapperBase | LoopCounter | LoopHistogram)
        labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else collector.label_names
        for name in names:
            found[name] = {*labels, *(["le"] if name.endswith("_bucket") else [])}
    return found


@pytest.fixture
async def used(tmp_path: Path, light_url: str) -> House:  # type: ignore[misc]  # a generator
    """A gateway that has taken requests of each kind."""
    async with house(tmp_path, light_url) as home:
        await home.agent(CallbackAgent("sales"))
        await home.server("inventory", "check")
        for _ in range(20):
            await home.send(home.token("alice"), "sales", "hello")
            await home.call(home.token("alice"), "/mcp/inventory", "check", {})
            await home.http.get("/api/agents", headers={"authorization": f"Bearer {home.token('alice')}"})
        yield home


async def test_every_metric_and_label_of_dashboard_and_rules_exists(used: House) -> None:
    known = labels_by_series(used)
    texts = list(expressions())
    assert len(texts) > 70
    for text in texts:
        named = METRIC.findall(text)
        assert set(named) <= known.keys() or not named, text
        for name, matchers in SELECTOR.findall(text):
            assert {label for label, _, _ in MATCHER.findall(matchers)} <= known[name] | OF_PROMETHEUS, text
        for labels in GROUPING.findall(text):
            wanted = {label.strip() for label in labels.split(",")} - OF_PROMETHEUS
            assert all(wanted <= known[name] for name in named), text


async def test_every_value_of_a_label_is_one_that_the_gateway_uses(used: House) -> None:
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(used.gateway.metrics.render().decode()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                shown.setdefault(label, set()).add(value)
    for text in expressions():
        for _, matchers in SELECTOR.findall(text):
            for label, operator, value in MATCHER.findall(matchers):
                if label in OF_PROMETHEUS or value.startswith("$"):
                    continue
                values = value.split("|") if operator in ("=~", "!~") else [value]
                assert set(values) <= CLOSED_SETS.get(label, frozenset()) | shown.get(label, set()), text


async def test_the_guide_lists_every_metric_with_its_labels_and_no_other(used: House) -> None:
    guide = (ROOT / "docs" / "tracing.md").read_text()
    rows = re.findall(r"^\| (`interlock_.*?) \| (.*?) \|", guide, re.MULTILINE)
    told = {name: set(re.findall(r"`([a-z_]+)`", labels)) for names, labels in rows for name in re.findall(r"`(interlock_\w+)`", names)}
    every = labels_by_series(used)
    plain = {name: labels for name, labels in every.items() if not name.endswith(DERIVED) and f"{name}_total" not in every}
    known = {name.removesuffix("_count"): labels for name, labels in plain.items()}
    assert told.keys() == known.keys()
    assert [name for name, labels in known.items() if not labels <= told[name]] == []


def test_every_alert_has_its_runbook_and_its_case_and_no_other_has() -> None:
    alerts = [rule["alert"] for rule in RULES]
    assert len(alerts) > 20 and len(set(alerts)) == len(alerts)
    assert re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE) == alerts
    cases = [re.findall(r"alertname='(\w+)'", case["promql_expr_test"][0]["expr"])[0] for case in CASES]
    assert list(dict.fromkeys(cases)) == alerts  # one may have several cases, side by side


def test_every_runbook_says_symptom_look_and_do() -> None:
    entries = re.split(r"^## \w+$", RUNBOOKS, flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if re.findall(r"^\*\*(\w+)\.\*\* \S", entry, re.MULTILINE) != ["Symptom", "Look", "Do"]] == []


def test_every_alert_names_its_runbook_and_how_bad_it_is() -> None:
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]


def test_every_command_of_a_runbook_exists() -> None:
    known = tuple(re.findall(r"^\| `interlock ([^`]+)`", (ROOT / "docs" / "command-line.md").read_text(), re.MULTILINE))
    told = re.findall(r"`interlock ([^`]+)`", RUNBOOKS)
    assert len(told) > 15 and [command for command in told if not command.startswith(known)] == []


def test_every_panel_that_a_runbook_names_is_on_the_dashboard() -> None:
    titles = {panel["title"].partition(",")[0] for panel in DASHBOARD["panels"]}
    named = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOKS)
    assert len(named) > 10 and [name for name in named if name not in titles] == []


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    if not PROMTOOL:
        pytest.skip("there is no promtool on the PATH (Debian: the package prometheus); PROMTOOL names one")
    return subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_each_alert_fires_for_its_case() -> None:
    ran = promtool("test", "rules", "rules.test.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_no_alert_fires_for_the_recorded_metrics_of_a_healthy_gateway(used: House, tmp_path: Path) -> None:
    recorded = list(text_string_to_metric_families(used.gateway.metrics.render().decode()))
    series = []
    for sample in (sample for family in recorded for sample in family.samples):
        labels = ", ".join(f'{name}="{value}"' for name, value in {**sample.labels, "job": "interlock", "instance": "g"}.items())
        values = f"0+{sample.value / 480}x480" if sample.name.endswith(GROWING) else f"{sample.value:.0f}+0x480"
        series.append({"series": f"{sample.name}{{{labels}}}", "values": values})
    series.append({"series": 'up{job="interlock", instance="g"}', "values": "1+0x480"})
    test = {"expr": 'count(ALERTS{alertstate="firing"}) or vector(0)', "eval_time": "8h", "exp_samples": [{"labels": "{}", "value": 0}]}
    document = {
        "rule_files": [str(FOLDER / "rules.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [test]}],
    }
    (tmp_path / "recorded.yml").write_text(yaml.safe_dump(document))
    ran = promtool("test", "rules", "recorded.yml", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_metrics_of_a_gateway_that_took_calls_can_be_read_by_the_doctor(used: House) -> None:
    found = parse_metrics(used.gateway.metrics.render().decode())
    assert found["calls_total"] >= 60 and found["upstream_seconds_count"] == 40
