"""The alert rules and the dashboard: valid for Prometheus' own tool, with only metrics that the server has."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.processes import REPOSITORY, ServerProcess

CONF = REPOSITORY / "conf"
ALERTS = (CONF / "prometheus-alerts.yml").read_text()
DASHBOARD = json.loads((CONF / "grafana-dashboard.json").read_text())
NAMES = re.compile(r"\b(?:chatstream|process)_[a-z_]+\b")


def promtool(*arguments: str | Path) -> None:
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def queries() -> list[str]:
    """The dashboard's queries, with Grafana's variables filled in."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return [one.replace("$__rate_interval", "1m").replace("$instance", ".*") for one in expressions]


@pytest.fixture(scope="session")
def exposed(shared_server: ServerProcess) -> set[str]:
    """The names of all metrics that a server exposes, including those that are still zero."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", httpx.get(f"{shared_server.url}/metrics").text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def test_prometheus_accepts_the_rules_and_the_configuration() -> None:
    promtool("check", "rules", CONF / "prometheus-alerts.yml")
    promtool("check", "config", CONF / "prometheus.yml")


def test_the_alerts_tell_what_they_should_and_nothing_else() -> None:
    promtool("test", "rules", Path(__file__).with_name("prometheus-alerts.test.yml"))


def test_the_alerts_are_about_metrics_that_exist(exposed: set[str]) -> None:
    expressions = re.findall(r"expr: (.+?)\n +(?:for|labels|#)", ALERTS, re.DOTALL)
    assert len(expressions) == ALERTS.count("- alert:")
    named = {*NAMES.findall(" ".join(expressions))}
    assert named
    assert named - exposed == set()


def test_the_dashboard_is_about_metrics_that_exist(exposed: set[str]) -> None:
    named = {*NAMES.findall(json.dumps(DASHBOARD))}
    assert named - exposed == set()
    # The dashboard shows all of our metrics, but not all of those that the client library adds.
    ours = {name for name in exposed if name.startswith("chatstream_") and not name.endswith(("_created", "_sum"))}
    stems = {re.sub(r"_(?:bucket|count)$", "", name) for name in ours}
    assert {stem for stem in stems if not any(name.startswith(stem) for name in named)} == set()


def test_the_dashboards_queries_are_sound(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    written = tmp_path / "queries.json"  # JSON is YAML
    written.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", written)


def test_the_dashboard_can_be_imported() -> None:
    """Grafana needs a title, panels that do not overlap, and a data source to choose."""
    assert DASHBOARD["title"]
    assert isinstance(DASHBOARD["schemaVersion"], int)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}
