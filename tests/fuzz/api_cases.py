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
_BROKEN_ANSWER = "Network Error"


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
    """Every operation of /openapi.json as that person: its boundaries, and `examples` random cases.

    The output of Schemathesis stays in build/fuzz-api-PERSON.log. Raises SchemathesisFailure.
    """
    folder.mkdir(parents=True)
    settings, report, log = folder / "schemathesis.toml", folder / "report.json", ROOT / f"build/fuzz-api-{person}.log"
    _write_settings(settings, stage.names)
    options = {
        "header": f"Authorization: Bearer {getattr(stage, person)}",
        "checks": "not_a_server_error",
        "phases": "examples,coverage,fuzzing,stateful",
        "max-examples": examples,
        "workers": 2,
        "seed": seed,
        "request-timeout": _REQUEST_SECONDS,
        "warnings": "off",
        "report": "json",
        "report-json-path": report,
    }
    command = [str(SCHEMATHESIS), "--config-file", str(settings), "run", f"{stage.running.url}/openapi.json", "--no-shrink"]
    command += ["--continue-on-failure", *(f"--{name}={value}" for name, value in options.items())]
    with log.open("wb") as output:
        subprocess.run(command, cwd=folder, stdout=output, stderr=output, env={**os.environ, "NO_COLOR": "1"}, check=False)
    if not report.exists():
        raise SchemathesisFailure(log.read_text(errors="replace")[-3_000:])
    return read_report(json.loads(report.read_text()))


def read_report(report: dict[str, Any]) -> ApiFindings:
    failures = [json.dumps(failure) for failure in report["failures"]]
    hangs = [failure for failure in failures if "timeout" in failure.lower()]
    broken = [f"{error['title']}: an answer broke off" for error in report["errors"] if error["title"] == _BROKEN_ANSWER]
    return ApiFindings(
        operations=report["operations"]["tested"],
        cases=report["test_cases"]["generated"],
        server_errors=[failure for failure in failures if failure not in hangs] + broken,
        hangs=len(hangs),
        errors=[f"{error['title']} ({error['count']} times)" for error in report["errors"] if error["title"] != _BROKEN_ANSWER],
    )


def _write_settings(file: Path, names: dict[str, list[str]]) -> None:
    """TOML of Schemathesis. Random credentials of the document's other schemes are left out, since they replace the token."""
    lines = [f'"path.{name}" = {json.dumps(values)}' for name, values in names.items()]
    file.write_text("\n".join(["[generation]", "with-security-parameters = false", "[parameters]", *lines, ""]))
