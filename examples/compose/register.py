"""Registers the example agents at the gateway of compose.yaml, and writes the credentials of each to a file.

An agent that is registered already gets a new secret, so a lost volume of credentials does no harm.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

CEILINGS = {"support": ["agent:sales", "tool:inventory.*"], "sales": ["tool:inventory.*"]}
PATIENCE = 120.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--agent", action="append", default=[], metavar="NAME=URL", help="an agent to register; repeat it for each")
    parser.add_argument("--credentials", type=Path, required=True, help="the folder of the agents' credentials")
    given = parser.parse_args()
    token = subprocess.run(["interlock", "token", "--user", "admin"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    with httpx.Client(base_url=given.gateway, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as client:
        for name, _, url in (agent.partition("=") for agent in given.agent):
            write_credentials(given.credentials / f"{name}.json", register_agent(client, name, url, CEILINGS[name]))
            print(f"{name} is registered at {given.gateway}")


def register_agent(client: httpx.Client, name: str, url: str, ceiling: list[str]) -> Any:
    """Returns the agent's client_id and client_secret. Retries for PATIENCE seconds until the gateway and the agent answer."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            answer = client.post("/api/agents", json={"name": name, "url": url, "ceiling": ceiling})
            if answer.status_code == httpx.codes.CONFLICT:
                answer = client.post(f"/api/agents/{name}/secret")
            if answer.is_success:
                return answer.json()
            problem = answer.text
        except httpx.TransportError as error:
            problem = str(error)
        if time.monotonic() > until:
            raise SystemExit(f"{name} could not be registered: {problem}")
        time.sleep(0.5)


def write_credentials(path: Path, agent: Any) -> None:
    """Writes the credentials, readable for their owner alone."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({name: agent[name] for name in ("client_id", "client_secret")}))


if __name__ == "__main__":
    main()
