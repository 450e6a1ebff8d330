"""What the product is made of: the lock as a CycloneDX document, `python -m tests.house.sbom LOCK`."""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.version import VERSION
from tests.house.papers import PIN
from tests.house.source import ROOT

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAMESPACE = uuid.UUID("6f0c7a52-5d0e-4c5c-9d43-0f1d8a1a6b11")  # of serial numbers: the same lock has the same


@dataclass(slots=True)
class Pinned:
    """One distribution of a lock, the hashes of its files, and who needs it."""

    name: str
    version: str
    marker: str = ""
    hashes: list[str] = field(default_factory=list)
    wanted_by: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name.partition('[')[0]}@{self.version}"


def pins(lock: str) -> list[Pinned]:
    """In the order of the lock."""
    found: list[Pinned] = []
    for line in lock.splitlines():
        if PIN.match(line):
            requirement, _, marker = line.removesuffix(" \\").partition(" ; ")
            name, _, version = requirement.partition("==")
            found.append(Pinned(name, version, marker))
        elif found and (digest := HASH.search(line)):
            found[-1].hashes.append(digest[1])
        elif found and line.strip().startswith("#"):
            found[-1].wanted_by += _named(line)
    return found


def _named(comment: str) -> Iterator[str]:
    text = comment.strip().lstrip("#").strip().removeprefix("via").strip()
    if text:
        yield text.partition(" ")[0]


def document(lock: str, project: dict[str, Any]) -> dict[str, Any]:
    """CycloneDX 1.6; it says nothing of when or where it was made, so that the same lock makes the same document."""
    listed, root = pins(lock), f"{project['name']}@{VERSION}"
    refs = {each.name.partition("[")[0]: each.purl for each in listed} | {project["name"]: root}
    needs: dict[str, set[str]] = {ref: set() for ref in refs.values()}
    for each in listed:
        for name in each.wanted_by:
            if name in refs:
                needs[refs[name]].add(each.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, hashlib.sha256(lock.encode()).hexdigest())}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": root, "name": project["name"], "version": VERSION}},
        "components": [_component(each) for each in listed],
        "dependencies": [{"ref": ref, "dependsOn": sorted(below)} for ref, below in needs.items()],
    }


def _component(each: Pinned) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "library", "bom-ref": each.purl, "name": each.name.partition("[")[0], "version": each.version}
    told |= {"purl": each.purl, "hashes": [{"alg": "SHA-256", "content": digest} for digest in each.hashes]}
    return told | ({"properties": [{"name": "marker", "value": each.marker}]} if each.marker else {})


def main() -> None:
    lock = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    print(json.dumps(document(lock, project), indent=1))


if __name__ == "__main__":
    main()
