"""The manifests as kustomize builds them, and what is wrong with a set of them."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.house.source import ROOT

FOLDER: Final = ROOT / "examples" / "deploy" / "kubernetes"
BUILDERS: Final = (("kustomize", "build"), ("kubectl", "kustomize"))
MEMBERS: Final = {  # of the kinds in use, as far as these manifests need them: a misspelled one is ignored by no server of ours
    "ServiceAccount": {"automountServiceAccountToken"},
    "Namespace": set[str](),
    "ConfigMap": {"data"},
    "Deployment.spec": {"replicas", "selector", "strategy", "template", "revisionHistoryLimit", "minReadySeconds"},
    "Job.spec": {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "template"},
    "Service.spec": {"type", "ports", "selector"},
    "PodDisruptionBudget.spec": {"maxUnavailable", "minAvailable", "selector"},
    "HorizontalPodAutoscaler.spec": {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"},
    "NetworkPolicy.spec": {"podSelector", "policyTypes", "ingress", "egress"},
    "Ingress.spec": {"ingressClassName", "tls", "rules"},
    "ServiceMonitor.spec": {"selector", "endpoints"},
}
POD_MEMBERS: Final = frozenset(
    {
        *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds", "securityContext"),
        *(
            "topologySpreadConstraints",
            "initContainers",
            "containers",
            "volumes",
            "restartPolicy",
            "affinity",
            "nodeSelector",
            "tolerations",
        ),
    }
)
CONTAINER_MEMBERS: Final = frozenset(
    {
        *("name", "image", "command", "args", "env", "ports", "startupProbe", "livenessProbe", "readinessProbe", "securityContext"),
        *("resources", "volumeMounts", "imagePullPolicy"),
    }
)
Manifest = Mapping[str, Any]


def find_builder() -> tuple[str, ...] | None:
    """The command that builds a kustomization, or None."""
    return next((each for each in BUILDERS if shutil.which(each[0])), None)


def build(folder: Path) -> list[Manifest]:
    """The manifests of a kustomization. Raises CalledProcessError."""
    builder = find_builder()
    assert builder is not None
    ran = subprocess.run([*builder, str(folder)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(ran.stdout))


def pod_of(manifest: Manifest) -> Mapping[str, Any] | None:
    return manifest["spec"]["template"]["spec"] if manifest["kind"] in ("Deployment", "Job") else None


def containers_of(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def problems(manifests: list[Manifest]) -> list[str]:
    """What is unsafe, unknown, or named and not there."""
    return [*_unknown_members(manifests), *_unsafe_pods(manifests), *_missing_volumes(manifests), *_unmatched_selectors(manifests)]


def _unknown_members(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        kind = each["kind"]
        given = {name for name in each if name not in ("apiVersion", "kind", "metadata", "spec")}
        yield from (f"{kind} has no member {name}" for name in given - MEMBERS.get(kind, set()))
        if "spec" in each:
            known = MEMBERS.get(f"{kind}.spec")
            yield from [f"{kind} is not known here"] if known is None else (f"{kind}.spec: {name}" for name in set(each["spec"]) - known)
        if (pod := pod_of(each)) is not None:
            yield from (f"{kind}: pod: {name}" for name in set(pod) - POD_MEMBERS)
            yield from (f"{kind}: container: {name}" for one in containers_of(pod) for name in set(one) - CONTAINER_MEMBERS)


def _unsafe_pods(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        if (pod := pod_of(each)) is None:
            continue
        context, name = pod.get("securityContext", {}), f"{each['kind']} {each['metadata']['name']}"
        if not context.get("runAsNonRoot") or context.get("runAsUser", 0) < 10000:
            yield f"{name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False or pod.get("enableServiceLinks") is not False:
            yield f"{name} has a token of the cluster, or variables of its services"
        for one in containers_of(pod):
            own = one.get("securityContext", {})
            if own != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
                yield f"{name}: {one['name']} has rights that it does not need"
            if "memory" not in one.get("resources", {}).get("limits", {}) or "cpu" not in one.get("resources", {}).get("requests", {}):
                yield f"{name}: {one['name']} has no bound on memory, or asks for no processor"
            if any("valueFrom" in variable for variable in one.get("env", ())):
                yield f"{name}: {one['name']} has a secret in a variable"


def _missing_volumes(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        if (pod := pod_of(each)) is not None:
            volumes = {volume["name"] for volume in pod.get("volumes", ())}
            for one in containers_of(pod):
                yield from (f"{one['name']}: no volume {m['name']}" for m in one.get("volumeMounts", ()) if m["name"] not in volumes)


def _unmatched_selectors(manifests: list[Manifest]) -> Iterator[str]:
    """Selectors of Services, budgets and Deployments that select no pod of the set."""
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in manifests if pod_of(each) is not None]
    for each in manifests:
        found = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
        if found is None:
            continue
        wanted = found.get("matchLabels", {}) if each["kind"] != "Service" else found
        if not wanted or not any(wanted.items() <= each_labels.items() for each_labels in labels):
            yield f"{each['kind']} {each['metadata']['name']} selects no pod"
