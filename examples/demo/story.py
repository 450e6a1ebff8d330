"""Seven steps: start, register, an order, a refusal, the trace, a workflow, the audit. Each is checked, not just shown."""

import json
from pathlib import Path
from typing import Any

from examples.demo.command_line import CommandLine
from examples.demo.ordering import order_with_approval
from examples.demo.outside import Outside, parts_of
from examples.demo.programs import HOST, Program, Programs, free_port
from examples.demo.sales import Sales
from examples.demo.screen import Screen, StepFailed

CONFIG = Path(__file__).with_name("interlock.yaml")
ORDER = "I'd like to order 2 of SKU-7, please."
CEILINGS = {"support": ["agent:sales", "tool:inventory.*"], "sales": ["tool:inventory.*"]}
LAST = "inventory.reserve_stock"


class Story:
    """The demo's steps, in their order. Each raises StepFailed when something is not as it should be."""

    def __init__(self, screen: Screen, programs: Programs, home: Path, sales: Sales) -> None:
        self.screen = screen
        self.programs = programs
        self.home = home
        self.interlock_home = home / "interlock"
        self.sales = sales

    def play(self) -> None:
        self.start()
        self.register()
        self.alice()
        self.bob()
        self.trace()
        self.order()
        self.audit()

    def start(self) -> None:
        self.screen.step("Start the gateway and three programs that know nothing of each other")
        port = free_port(8080)
        self.url = f"http://{HOST}:{port}"
        arguments = ("serve", "--config", str(CONFIG))
        gateway = self.programs.start("gateway", port, *arguments, INTERLOCK_HOME=str(self.interlock_home))
        inventory = self.programs.start("examples.inventory_server", free_port())
        support = self._support()
        sales = self.sales.start(self.programs, self.url, self._credentials("sales"))
        self.targets = {"support": support.url, "sales": sales.url, "inventory": inventory.url + "/mcp"}
        for program, about, path in (
            (gateway, "the gateway", "/readyz"),
            (support, "support, a customer-service agent (A2A 1.0, a2a-sdk)", "/.well-known/agent-card.json"),
            (sales, self.sales.about, self.sales.ready),
            (inventory, "inventory, an MCP server (mcp SDK)", "/"),
        ):
            with self.screen.waiting(f"{about} on {program.url}"):
                program.wait_until_ready(path)
        self.interlock = CommandLine(self.interlock_home, self.url, self.screen)

    def register(self) -> None:
        self.screen.step("An operator registers them over HTTP and sets what each agent may do at most")
        self.admin = admin = Outside(self.url, self.interlock.token("admin"))
        server = admin.register("/api/servers", name="inventory", url=self.targets["inventory"])
        more = {"support": {}, "sales": self.sales.registration}
        agents = [admin.register("/api/agents", name=n, url=self.targets[n], ceiling=CEILINGS[n], **more[n]) for n in more]
        for agent in agents:
            self._hand_over(agent)
        speaks = {"support": "A2A 1.0", "sales": self.sales.speaks}
        rows = [(a["name"], speaks[a["name"]], a["status"], " ".join(CEILINGS[a["name"]])) for a in agents]
        self.screen.table(["name", "speaks", "status", "at most"], [*rows, ("inventory", "MCP 2026-07-28", server["status"], "")])
        states = {one["status"] for one in (server, *agents)}
        self.screen.check(states == {"active"}, "all three are active", states)
        self.sales.prove(self.screen, self.targets["sales"])

    def alice(self) -> None:
        self.screen.step("alice (role sales) asks support for an order; support asks sales; sales reserves the stock")
        self.alice_token = self.interlock.token("alice")
        self.person = Outside(self.url, self.alice_token)
        task = self._asks("alice", self.person)
        self.task_id = task["id"]
        text, data = parts_of(task)
        self.screen.check(task["status"]["state"] == "TASK_STATE_COMPLETED", "her task is completed", task["status"])
        self.screen.check("R-1001" in text and data.get("reservation") == "R-1001", "the order is confirmed", text)
        self.screen.say("What each hop was allowed, on her behalf:")
        decisions = self._chain("alice", self.person, task["id"])
        self.screen.check(all(d["allowed"] for d in decisions), "every hop was allowed", decisions)
        self.screen.check(LAST in asked(decisions[-1]), "the last one changed the stock", decisions[-1])

    def bob(self) -> None:
        self.screen.step("bob (role support) asks for exactly the same")
        self.bob_token = self.interlock.token("bob")
        person = Outside(self.url, self.bob_token)
        task = self._asks("bob", person)
        _, data = parts_of(task)
        self.screen.check(task["status"]["state"] == "TASK_STATE_FAILED", "his task failed, with the reason", task["status"])
        decisions = self._chain("bob", person, task["id"])
        *before, last = decisions
        self.screen.check(bool(before) and all(d["allowed"] for d in before), "all hops but the last were allowed", before)
        self.screen.check(not last["allowed"] and LAST in asked(last), "the stock change was refused at the last hop", last)
        self.refusal = last["id"]
        self.screen.check(data.get("decision_id") == self.refusal, "support told him the decision to ask about", data)
        ceiling = self.admin.get("/api/agents/sales")["ceiling"]
        self.screen.check("tool:inventory.*" in ceiling, "sales itself may do it, for those who may: what it holds does not count", ceiling)
        why = self.interlock.show("why", self.refusal, token=self.bob_token)
        self.screen.check("bob" in why and LAST in why, "the explanation names him and what he lacks", why)
        self._check_stock(person)

    def trace(self) -> None:
        self.screen.step("All that alice's one message caused")
        self.interlock.show("trace", self.task_id, token=self.alice_token)
        seen = {span["name"] for span in self.person.get(f"/api/tasks/{self.task_id}/trace")["spans"]}
        self.screen.check({"support", "sales", LAST} <= seen, "it holds both agents and the tools", seen)

    def order(self) -> None:
        self.screen.step("alice orders 4: a workflow checks the stock and has large orders approved")
        order_with_approval(self.screen, self.interlock, self.interlock.token("admin"), self.alice_token)

    def audit(self) -> None:
        self.screen.step("The audit, and a copy of it in which one byte is flipped")
        self.interlock.show("audit", "verify")
        code, exported = self.interlock.output("audit", "export")
        self.screen.check(code == 0 and self.refusal in exported, "the export holds bob's refusal", exported[-300:])
        copy = self.home / "copy.jsonl"
        copy.write_bytes(with_one_flipped_byte(exported.encode(), self.refusal.encode()))
        self.interlock.show("audit", "verify", str(copy), succeeds=False)
        self.screen.check(True, "the flipped byte was found")

    def _support(self) -> Program:
        arguments = ("--gateway", self.url, "--credentials", str(self._credentials("support")))
        return self.programs.start("examples.support_agent", free_port(), *arguments)

    def _credentials(self, name: str) -> Path:
        return self.home / f"{name}.json"

    def _hand_over(self, agent: dict[str, Any]) -> None:
        """Gives an agent its own credentials, which stand for nobody's rights: they only prove who exchanges a token."""
        path = self._credentials(agent["name"])
        path.touch(mode=0o600)
        path.chmod(0o600)  # one that was there may be open to others
        path.write_text(json.dumps({name: agent[name] for name in ("client_id", "client_secret")}))

    def _asks(self, name: str, person: Outside) -> dict[str, Any]:
        self.screen.say(f"{name}: {ORDER}", "italic")
        with self.screen.waiting("support answers"):
            task = person.send("support", ORDER)
        self.screen.say(f"support: {parts_of(task)[0]}", "italic")
        return task

    def _chain(self, name: str, person: Outside, task_id: str) -> list[dict[str, Any]]:
        """Shows every decision of the task and returns them."""
        decisions = person.decisions(task_id)
        if not decisions:
            raise StepFailed(f"the trace of {task_id} names no decision")
        for decision in decisions:
            agents = [link["agent"] for link in decision["chain"]]
            limits = [(link["agent"], "at most " + " ".join(link["permissions"])) for link in decision["chain"]]
            why = "" if decision["allowed"] else f"{decision['reason_id']}: {', '.join(decision['missing'])}"
            self.screen.chain(decision["allowed"], [name, *agents, asked(decision)], limits, why)
        return decisions

    def _check_stock(self, person: Outside) -> None:
        stock = person.call_tool("inventory", "check_stock", sku="SKU-7").get("structuredContent", {})
        self.screen.check(stock.get("available") == 10, "he may still look: 10 are left, the stock is untouched", stock)


def asked(decision: dict[str, Any]) -> str:
    """What the decision was about."""
    resource = decision["resource"]
    return str(resource.get("id", resource)) if isinstance(resource, dict) else str(resource)


def with_one_flipped_byte(exported: bytes, decision_id: bytes) -> bytes:
    """The export, where one bit of the record about that decision turns bob into cob."""
    at = exported.index(b"bob", exported.index(decision_id))
    return exported[:at] + bytes([exported[at] ^ 1]) + exported[at + 1 :]
