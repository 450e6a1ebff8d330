"""Registers the example agents at the gateway of compose.yaml, and leaves each its own credentials in a file.

Run again it gives agents that are registered already new secrets, so a lost volume of credentials does no harm.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

CEILINGS = {"support": ["agent:sales", "tool:inventory.*"], "sales": ["tool:inventory.*"]}
PATIENCE = 120.0  # seconds until gateway and agents have to be there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--agent", action="append", default=[], metavar="NAME=URL", help="one of them; may be given again")
    parser.add_argument("--credentials", type=Path, required=True, help="the folder of the agents' credentials")
    given = parser.parse_args()
    token = subprocess.run(["interlock", "token", "--user", "admin"], capture_output=True, text=True, check=True).stdout.strip()
    with httpx.Client(base_url=given.gateway, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as client:
        for name, _, url in (agent.partition("=") for agent in given.agent):
            hand_over(given.credentials / f"{name}.json", registered(client, name, url, CEILINGS[name]))
            print(f"{name} is registered at {given.gateway}")


def registered(client: httpx.Client, name: str, url: str, ceiling: list[str]) -> Any:
    """The agent's client_id and client_secret. Waits until gateway and agent answer."""
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


def hand_over(path: Path, agent: Any) -> None:
    """Its credentials prove which agent it is; they stand for nobody's rights."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({name: agent[name] for name in ("client_id", "client_secret")}))


if __name__ == "__main__":
    main()
