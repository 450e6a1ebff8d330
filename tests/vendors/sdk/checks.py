"""Official SDKs as oracles: each in an environment of its own repeats what our adapters asked, and parses what our fakes answer."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.processes import ROOT, BenchFailure, environment
from tests.vendors.rows import SDK, Row
from tests.vendors.sdk.talks import talks_of
from tests.vendors.servers import BUILD

SECONDS = 300.0  # that one SDK may take


@dataclass(frozen=True, slots=True)
class Sdk:
    """`kinds` of adapters that it is an oracle for; `scenarios` and `covers` are patterns of what of theirs: scenarios by their names,
    exchanges by `METHOD path`. `home` is the folder of its environment below `build/vendors`.
    """

    name: str
    kinds: tuple[str, ...]
    scenarios: str = ""
    covers: str = ""
    home: str = ""

    @property
    def python(self) -> Path:
        return BUILD / (self.home or f"sdk-{self.name}") / "bin" / "python"

    @property
    def installed(self) -> bool:
        return (self.python.parents[1] / "installed").exists()


OF_OPENAI = "openai_agents|openai_chat-(?!azure|databricks)|openai_responses-(?!devui|litellm)"  # the others are of other servers
SDKS = (
    Sdk("openai", ("openai-agents", "openai-chat", "openai-responses"), OF_OPENAI),
    Sdk("foundry", ("foundry",)),
    Sdk("anthropic", ("anthropic-agents",)),
    Sdk("copilot", ("activity",), "activity-copilot"),
    Sdk("activity", ("activity", "direct-line"), "activity-(?!copilot)|direct_line", home="sdk-copilot"),
    Sdk("botocore", ("bedrock", "agentcore"), covers="POST /(agents|runtimes)/"),
    Sdk("langgraph", ("langgraph",)),
    Sdk("llama_agents", ("llama-agents",)),
    Sdk("ag_ui", ("ag-ui",)),
    Sdk("adk", ("adk",), covers="POST /run", home="adk"),
    Sdk("dify", ("dify",), covers="POST /chat-messages"),
)


async def checked(sdks: tuple[Sdk, ...] = SDKS) -> list[Row]:
    """A row for each scenario of each SDK. Raises BenchFailure."""
    return [row for sdk in sdks for row in await rows_of(sdk)]


async def rows_of(sdk: Sdk) -> list[Row]:
    """Raises BenchFailure where the SDK is not installed, or its process ends otherwise than by answering all."""
    if not sdk.installed:
        raise BenchFailure(f"the SDK {sdk.name} is not installed in {BUILD.relative_to(ROOT)}: make test-vendors does that")
    talks = await talks_of(sdk.kinds, sdk.scenarios, sdk.covers)
    answers = {each["scenario"]: str(each["why"]) for each in await _answers(sdk, talks)}
    rows = []
    for talk in talks:
        vendor, _, scenario = str(talk["scenario"]).partition("-")
        rows.append(Row(vendor, scenario, SDK, answers.get(talk["scenario"], "the SDK said nothing of it")))
    return rows


async def _answers(sdk: Sdk, talks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        str(sdk.python), "-m", f"tests.vendors.sdk.{sdk.name}.oracle", cwd=ROOT, env=_plain(), stdin=-1, stdout=-1, stderr=-1
    )
    try:
        async with asyncio.timeout(SECONDS):
            told, trouble = await process.communicate(json.dumps(talks).encode())
    except TimeoutError:
        process.kill()
        raise BenchFailure(f"the SDK {sdk.name} takes longer than {SECONDS:.0f} s") from None
    if process.returncode:
        raise BenchFailure(f"the SDK {sdk.name} ended with {process.returncode}:\n{trouble.decode('utf-8', 'replace')[-2000:]}")
    return [json.loads(line) for line in told.decode().splitlines()]


def _plain() -> Mapping[str, str]:
    """Without what would send a client elsewhere than to its fake."""
    return {name: value for name, value in environment().items() if "proxy" not in name.lower() and name != "PYTHONPATH"}
