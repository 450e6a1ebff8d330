"""Runs Schemathesis, from an environment of its own, over the gateway's OpenAPI document."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.fuzz.stage import Stage
from tests.house.source import ROOT

SCHEMATHESIS = ROOT / "build/vendors/fuzz/bin/schemathesis"
_REQUEST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ApiFindings:
    """What one run found. `errors` are of Schemathesis itself, which then left cases of one operation out."""

    operations: int
    cases: int
    server_errors: list[str]
    hangs: int
    errors: list[str]


class SchemathesisFailure(Exception):
    """Schemathesis wrote no report; the message has its output."""


def fuzz_api(stage: Stage, person: Literal["operator", "member"], folder: Path, examples: int, seed: int) -> ApiFindings:
    """Every operation of /openapi.json as that person: its boundaries, and `examples` random cases. Raises SchemathesisFailure."""
    folder.mkdir(parents=True)
    report = folder / "report.json"
    _write_settings(folder / "schemathesis.toml", stage.names)
    command = [str(SCHEMATHESIS), "--config-file", str(folder / "schemathesis.toml"), "run", f"{stage.running.url}/openapi.json"]
    command += [
        "--header",
        f"Authorization: Bearer {getattr(stage, person)}",
        "--checks",
        "not_a_server_error",
        "--max-examples",
        str(examples),
    ]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--no-shrink", "--continue-on-failure", "--workers", "2"]
    command += ["--seed", str(seed), "--request-timeout", str(_REQUEST_SECONDS), "--warnings", "off"]
    command += ["--report", "json", "--report-json-path", str(report)]
    with (folder / "schemathesis.log").open("wb") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"}, check=False)
    if not report.exists():
        raise SchemathesisFailure((folder / "schemathesis.log").read_text(errors="replace")[-3_000:])
    return read_report(json.loads(report.read_text()))


def read_report(report: dict[str, Any]) -> ApiFindings:
    failures = [json.dumps(failure) for failure in report["failures"]]
    hangs = [failure for failure in failures if "timeout" in failure.lower()]
    return ApiFindings(
        operations=report["operations"]["tested"],
        cases=report["test_cases"]["generated"],
        server_errors=[failure for failure in failures if failure not in hangs],
        hangs=len(hangs),
        errors=[f"{error['title']} ({error['count']} times)" for error in report["errors"]],
    )


def _write_settings(file: Path, names: dict[str, list[str]]) -> None:
    """TOML of Schemathesis. Random credentials of the document's other schemes are left out, since they replace the token."""
    lines = [f'"path.{name}" = {json.dumps(values)}' for name, values in names.items()]
    file.write_text("\n".join(["[generation]", "with-security-parameters = false", "[parameters]", *lines, ""]))
