"""One step of the demo: an order that needs an approval, as a workflow."""

import json
from pathlib import Path

from examples.demo.command_line import CommandLine
from examples.demo.outside import Outside, parts_of
from examples.demo.screen import Screen

DOCUMENT = Path(__file__).with_name("order.yaml")
LARGE = {"sku": "SKU-7", "quantity": 4}


def order_with_approval(screen: Screen, interlock: CommandLine, admin_token: str, alice_token: str) -> None:
    """Adds the workflow, has alice start a run, approves it, and shows what it returned. Raises StepFailed."""
    admin, alice = Outside(interlock.url, admin_token), Outside(interlock.url, alice_token)
    interlock.show("workflow", "add", str(DOCUMENT), token=admin_token)
    interlock.show("workflow", "run", "order", json.dumps(LARGE), token=alice_token)
    (run,) = alice.get("/api/runs")["items"]
    (asked,) = admin.get("/api/checkpoints")["items"]
    screen.say(f"the run asks: {asked['prompt']}", "italic")
    screen.check(run["state"] == "TASK_STATE_WORKING" and asked["run"] == run["id"], "the run waits, for days if it must", run)
    interlock.show("run", "answer", asked["id"], '{"approved": true}', token=admin_token)
    interlock.show("run", "watch", run["id"], token=alice_token)
    _, data = parts_of(alice.get(f"/api/tasks/{run['id']}"))
    screen.check(data == {"reservation": "R-1002", "euros": 1396}, "it went on by itself, and the goods are reserved as R-1002", data)
