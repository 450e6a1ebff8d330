"""The manifests of examples/deploy/kubernetes, built as kubectl builds them, and what the gateway makes of their settings."""

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.local.checks.configuration import find_problems
from gateway.server.settings import Settings
from policies.keys.key_folder import KeyFolder
from tests.deploy.manifests import FOLDER, Manifest, build, containers_of, find_builder, pod_of, problems
from tests.fakes.house import house
from tests.house import image
from tests.house.source import ROOT
from tests.house.test_settings import paths

needs_builder = pytest.mark.skipif(find_builder() is None, reason="neither kustomize nor kubectl is installed")
BUILT = ("base", "migration", "overlays/production")


@pytest.fixture(scope="module")
def production() -> list[Manifest]:
    return build(FOLDER / "overlays" / "production")


def one(manifests: list[Manifest], kind: str, name: str = "interlock") -> Any:
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


@needs_builder
@pytest.mark.parametrize("folder", BUILT)
def test_manifests_are_built_and_nothing_is_wrong_with_them(folder: str) -> None:
    built = build(FOLDER / folder)
    assert built and problems(built) == []


@needs_builder
def test_a_monitored_overlay_is_built(tmp_path: Path) -> None:
    overlay = tmp_path / "overlays" / "mine"
    for part in ("base", "monitoring"):
        _copy(FOLDER / part, tmp_path / part)
    _copy(FOLDER / "overlays" / "production", overlay)
    file = overlay / "kustomization.yaml"
    file.write_text(file.read_text().replace("# components:", "components:"))
    built = build(overlay)
    monitor, service = one(built, "ServiceMonitor"), one(built, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {each["name"] for each in service["spec"]["ports"]}
    assert problems(built) == []


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).write_bytes(file.read_bytes())


@needs_builder
def test_what_pods_mount_is_made_by_the_overlay_or_by_the_guide(production: list[Manifest]) -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    pods = [pod for each in (*production, *build(FOLDER / "migration")) if (pod := pod_of(each)) is not None]
    volumes = [volume for pod in pods for volume in pod["volumes"]]
    secrets = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    assert secrets == set(re.findall(r"kubectl create secret generic (\S+)", guide))
    maps = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    assert maps == {each["metadata"]["name"] for each in production if each["kind"] == "ConfigMap"}
    assert one(production, "Ingress")["spec"]["tls"][0]["secretName"] in re.findall(r"kubectl create secret tls (\S+)", guide)
    files = set(re.findall(r"/data/([\w-]+)", json.dumps(production))) - {"keys"}
    assert "corp-client-secret" in files and files == set(re.findall(r"--from-file secrets/([\w-]+)(?= |$)", guide, re.MULTILINE))


@needs_builder
def test_the_service_the_probes_and_the_ingress_lead_to_the_gateway(production: list[Manifest]) -> None:
    (gateway,) = one(production, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in gateway["ports"]}
    assert str(ports["http"]) in (ROOT / "Dockerfile").read_text().partition("EXPOSE ")[2].split()[0]
    assert one(production, "Service")["spec"]["ports"][0]["targetPort"] in ports
    rule = one(production, "Ingress")["spec"]["rules"][0]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "interlock", "port": {"name": "http"}}
    settings = yaml.safe_load(one(production, "ConfigMap", "interlock-settings")["data"]["interlock.yaml"])
    assert settings["server"]["public_url"] == f"https://{rule['host']}"
    probes = {gateway[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"/livez", "/readyz"}


@needs_builder
def test_the_autoscaler_measures_the_container_that_works(production: list[Manifest]) -> None:
    scaler, deployment = one(production, "HorizontalPodAutoscaler")["spec"], one(production, "Deployment")
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"] and "replicas" not in deployment["spec"]
    metric = scaler["metrics"][0]["containerResource"]
    (measured,) = [each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == metric["container"]]
    assert measured["resources"]["requests"][metric["name"]] == "1" and scaler["minReplicas"] >= 2


@needs_builder
def test_a_pod_has_time_to_drain(production: list[Manifest]) -> None:
    pod = one(production, "Deployment")["spec"]["template"]["spec"]
    given = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    drain = float(given["INTERLOCK_SERVER__DRAIN_DELAY"]) + Settings(home=Path()).server.drain
    assert pod["terminationGracePeriodSeconds"] >= drain + 5


@needs_builder
def test_every_variable_is_a_setting_and_the_settings_are_accepted(production: list[Manifest], tmp_path: Path) -> None:
    known = {f"INTERLOCK_{path.upper().replace('.', '__')}" for path in paths(Settings)}
    variables = {each["name"] for each in containers_of(one(production, "Deployment")["spec"]["template"]["spec"])[1]["env"]}
    assert variables and variables <= known
    document = yaml.safe_load(one(production, "ConfigMap", "interlock-settings")["data"]["interlock.yaml"])
    mounts = {each["mountPath"] for each in containers_of(one(production, "Deployment")["spec"]["template"]["spec"])[1]["volumeMounts"]}
    assert document["policies"] in mounts
    (tmp_path / "rules").mkdir()
    for name, text in one(production, "ConfigMap", "interlock-policies")["data"].items():
        (tmp_path / "rules" / name).write_text(text)
    (tmp_path / "corp-client-secret").write_text("of-the-provider\n")  # where the init container puts it
    document = json.loads(json.dumps(document).replace("/data/", f"{tmp_path}/"))
    given = Settings(home=tmp_path / "home", host="0.0.0.0", **{**document, "policies": str(tmp_path / "rules")})
    assert given.has_sign_in and not given.is_development
    assert [trouble for trouble in find_problems(given, {}) if trouble.is_fatal] == []


@needs_builder
def test_the_command_of_the_container_is_that_of_the_image(production: list[Manifest]) -> None:
    pod = one(production, "Deployment")["spec"]["template"]["spec"]
    assert (
        "command" not in pod["containers"][0] and pod["containers"][0]["args"][:3] == image.command((ROOT / "Dockerfile").read_text())[-3:]
    )
    (migrate,) = one(build(FOLDER / "migration"), "Job", "interlock-migrate")["spec"]["template"]["spec"]["containers"]
    assert "python -P -m gateway migrate --config" in migrate["args"][0]


@needs_builder
def test_nothing_private_is_reachable_but_what_is_labelled(production: list[Manifest]) -> None:
    policy = one(production, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (block,) = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"} <= set(block["except"])
    assert all(rule.get("from") for rule in policy["ingress"]) and all(rule.get("to") for rule in policy["egress"])


@needs_builder
def test_the_init_container_makes_secrets_that_the_gateway_accepts(production: list[Manifest], tmp_path: Path) -> None:
    """Its script on the files of the guide, readable by a group as the cluster mounts them; then the keys are read."""
    umask = os.umask(0o022)
    try:
        secrets = tmp_path / "secrets"
        (secrets / "gateway").mkdir(parents=True)
        names = ("vault-key", "pgpass", "metrics-token", "corp-client-secret", "of-another-agent")
        for name in names:
            (secrets / "gateway" / name).write_text("x" * 44)
        KeyFolder(tmp_path / "home" / "keys").create(1)
        (secrets / "signing").mkdir()
        for file in (tmp_path / "home" / "keys").glob("*.json"):
            (secrets / "signing" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "data").mkdir()
        (prepare,) = one(production, "Deployment")["spec"]["template"]["spec"]["initContainers"]
        script = prepare["command"][-1].replace("/secrets/", f"{secrets}/").replace("/data", str(tmp_path / "data"))
        for _ in range(2):  # an init container may run again
            subprocess.run([*prepare["command"][:-1], script], check=True)
    finally:
        os.umask(umask)
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "data").rglob("*"))
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"keys", *names}
    assert len(KeyFolder(tmp_path / "data" / "keys").read()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_probes_by_the_address_of_a_pod_are_answered(tmp_path: Path, database_url: str) -> None:
    server = {"public_url": "https://agents.example.com"}
    async with house(tmp_path / "home", database_url, server=server, identity={"development": "on"}) as home:
        for path in ("/livez", "/readyz"):
            assert (await home.http.get(path, headers={"host": "10.1.2.3:8080"})).status_code == 200, path


FAULTS: list[tuple[str, Callable[[Any], object]]] = [
    ("may run as root", lambda m: _pod(m)["securityContext"].pop("runAsNonRoot")),
    ("has rights that it does not need", lambda m: _pod(m)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False)),
    ("has rights that it does not need", lambda m: _pod(m)["initContainers"][0].pop("securityContext")),
    ("variables of its services", lambda m: _pod(m).pop("enableServiceLinks")),
    ("has a token of the cluster", lambda m: _pod(m).pop("automountServiceAccountToken")),
    ("has no bound on memory", lambda m: _pod(m)["containers"][0]["resources"].pop("limits")),
    ("has a secret in a variable", lambda m: _pod(m)["containers"][0]["env"].append({"name": "X", "valueFrom": {}})),
    ("no volume data", lambda m: _pod(m)["volumes"].pop(0)),
    ("container: livenesProbe", lambda m: _pod(m)["containers"][0].update(livenesProbe={})),
    ("Deployment.spec: replica", lambda m: m["spec"].update(replica=1)),
    ("selects no pod", lambda m: m["spec"]["selector"]["matchLabels"].update(x="y")),
]


def _pod(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


@needs_builder
@pytest.mark.parametrize(("problem", "spoil"), FAULTS)
def test_a_fault_is_found(problem: str, spoil: Callable[[Any], object], production: list[Manifest]) -> None:
    spoiled = copy.deepcopy(one(production, "Deployment"))
    spoil(spoiled)
    assert any(problem in each for each in problems([spoiled])), problems([spoiled])
