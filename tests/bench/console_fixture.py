"""A database as large as the console has to be fast with: 10,000 agents, 200,000 tasks of one person, and what belongs to them."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import Engine, Table, insert, text

from gateway.calls.costs.task_costs import ENDED_BY_WORK
from gateway.events.tables import event_starts
from gateway.state.effects.tables import subject_conflicts
from gateway.storage.tables import costs, task_events, tasks
from gateway.workflows.runs.tables import workflow_runs
from policies.tables import approvals, audit_records
from policies.tokens.verifier import DEVELOPMENT_ISSUER
from registry.cards.card import Family, RegistrationStatus
from registry.cards.reader import read_card
from registry.rows import Candidate, row_of
from registry.tables import probes, registrations

BATCH: Final = 20_000  # rows of one statement
PLAIN: Final = (tasks, task_events, costs, audit_records)  # tables of texts and numbers, with most of the rows
DAY_US: Final = 86_400_000_000
DAYS: Final = 28  # over which the tasks are spread
OTHERS: Final = 500  # people beside the one with most tasks
STATES: Final = (  # how often in a thousand tasks; no task waits for a sign-in, so that a search for one finds nothing
    ("TASK_STATE_COMPLETED", 945),
    ("TASK_STATE_FAILED", 40),
    ("TASK_STATE_CANCELED", 10),
    ("TASK_STATE_REJECTED", 3),
    ("TASK_STATE_INPUT_REQUIRED", 1),
    ("TASK_STATE_WORKING", 1),
)
_STATE_OF: Final = [state for state, often in STATES for _ in range(often)]


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is. One sixth as many tasks more are those of other people."""

    agents: int = 10_000
    tasks: int = 200_000
    runs: int = 10_000
    letters: int = 5_000


def owner_key(person: str) -> str:
    """The owner of a person's tasks."""
    return f"default|{DEVELOPMENT_ISSUER}|{person}"


def task_id(number: int) -> str:
    """The id of a task; that of a newer one is greater, as it is of the gateway's own ids."""
    return f"t_{10**9 - number:026}"


def fill(engine: Engine, person: str, size: Size, report: Callable[[str], None] = lambda line: None) -> None:
    """Fills an empty, migrated database. The newest task is that of number 0. `report` gets a line for each table that is complete."""
    now = time.time_ns() // 1000
    _insert(engine, registrations, _registrations(size, now))
    _insert(engine, probes, _probes(size, now))
    everybody = [owner_key(person)] * 6 + [""]
    agents = _called_agents(size)
    for table, rows in (
        (tasks, _tasks(size, now, everybody, agents)),
        (task_events, _events(size, now)),
        (costs, _costs(size, now, everybody, agents)),
        (audit_records, _audit(size, now, person, agents)),
        (workflow_runs, _runs(size, now)),
        (approvals, _approvals(size, now)),
        (subject_conflicts, _conflicts(size, now)),
        (event_starts, _dead_starts(size, now)),
    ):
        report(f"{_insert(engine, table, rows):,} rows of {table.name}")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


def _insert(engine: Engine, table: Table, rows: Iterator[dict[str, Any]]) -> int:
    """Inserts the rows. Returns how many they were."""
    count, is_plain = 0, engine.dialect.name == "sqlite" and table in PLAIN
    while some := list(islice(rows, BATCH)):
        count += len(some)
        with engine.begin() as connection:
            if is_plain:
                connection.connection.cursor().executemany(_insert_text(table, some[0]), some)
            else:
                connection.execute(insert(table), some)
    return count


def _insert_text(table: Table, row: Mapping[str, Any]) -> str:
    """The statement for rows with these members, which the driver takes without a look at their types: a third of the time."""
    return f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"


def _registrations(size: Size, now: int) -> Iterator[dict[str, Any]]:
    for number in range(size.agents):
        name, url = agent_name(number), f"http://127.0.0.1:9/{number}"
        document = json.dumps(
            {
                "name": name,
                "description": f"Agent {number} of the benchmark answers questions about subject{number % 500} and its neighbours",
                "version": "1",
                "capabilities": {},
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
                "skills": [{"id": "quote", "name": "Quote", "description": "Makes a quote", "tags": ["sales"]}],
            }
        )
        facts = {"interface": url, "binding": "JSONRPC", "version": "1.0", "streaming": False, "tenant": ""}
        candidate = Candidate(
            "default", name, Family.AGENT, "a2a", url, "operator", RegistrationStatus.ACTIVE, facts=facts,
            card=read_card(json.loads(document)), card_text=document,
        )  # fmt: skip
        credentials = {"client_id": f"c_{number}", "client_secret_hash": "", "client_jwks": ""}
        yield {**row_of(candidate), **credentials, "created": now - number, "updated": now - number}


def _probes(size: Size, now: int) -> Iterator[dict[str, Any]]:
    """Health that was checked just now; of every thousandth agent the check failed."""
    empty = dict.fromkeys(("place", "etag", "last_modified", "hash", "cause"), "")
    for number in range(size.agents):
        fails = number % 1000 == 999
        row = {"tenant": "default", "name": agent_name(number), "checked": now, "next_at": now + DAY_US, "failures": 3 * fails}
        yield {**row, "note": "no answer" if fails else "", **empty}


def agent_name(number: int) -> str:
    return f"agent-{number:05}"


def _called_agents(size: Size) -> list[str]:
    """The agent of each task: a few are called often, most of them seldom."""
    choice = random.Random(7)
    return [agent_name(min(int(choice.paretovariate(0.6)), size.agents) - 1) for _ in range(_count(size))]


def _count(size: Size) -> int:
    return size.tasks * 7 // 6


def _moment(size: Size, now: int, number: int) -> int:
    return now - (number + 1) * (DAYS * DAY_US // _count(size))


def _tasks(size: Size, now: int, owners: list[str], agents: list[str]) -> Iterator[dict[str, Any]]:
    for number in range(_count(size)):
        at, state = _moment(size, now, number), _STATE_OF[number * 7919 % 1000]
        yield {
            "tenant": "default",
            "id": task_id(number),
            "owner": owners[number % 7] or owner_key(f"person{number % OTHERS}"),
            "context_id": f"c_{number:026}",
            "agent": agents[number],
            "state": state,
            "parent_id": "",
            "txn": f"x_{number:026}",
            "decision_id": f"d_{number:026}",
            "grant_id": f"g_{number:026}",
            "runner": "",
            "last_seq": 3,
            "vendor_ref": "{}",
            "request_digest": "",
            "created": at - 1_000_000,
            "updated": at,
        }


def _events(size: Size, now: int) -> Iterator[dict[str, Any]]:
    said = json.dumps({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "How is my order?"}]})
    answer = json.dumps({"artifactId": "answer", "parts": [{"text": "Your order is on its way and will be there tomorrow."}]})
    for number in range(_count(size)):
        at = _moment(size, now, number)
        ended = json.dumps({"state": _STATE_OF[number * 7919 % 1000]})
        for seq, (kind, body) in enumerate((("message", said), ("artifact", answer), ("status", ended)), 1):
            yield {"tenant": "default", "task_id": task_id(number), "seq": seq, "at": at, "kind": kind, "body": body}


def _costs(size: Size, now: int, owners: list[str], agents: list[str]) -> Iterator[dict[str, Any]]:
    """Every second task that ended by work has a cost."""
    for number in range(0, _count(size), 2):
        if _STATE_OF[number * 7919 % 1000] not in ENDED_BY_WORK:
            continue
        yield {
            "tenant": "default",
            "id": task_id(number),
            "seq": 3,
            "task_id": task_id(number),
            "at": _moment(size, now, number),
            "owner": owners[number % 7] or owner_key(f"person{number % OTHERS}"),
            "actor": "",
            "target": agents[number],
            "tool": "",
            "workflow": "",
            "txn": f"x_{number:026}",
            "amount": 1000 + number % 1000,
            "model": "",
            "input_tokens": 100,
            "output_tokens": 50,
        }


def _audit(size: Size, now: int, person: str, agents: list[str]) -> Iterator[dict[str, Any]]:
    """A decision for each task; every fiftieth a refusal."""
    for number in reversed(range(_count(size))):
        at, refused = _moment(size, now, number), number % 50 == 7
        body = {
            "kind": "decision",
            "at": at,
            "tenant": "default",
            "decision_id": f"d_{number:026}",
            "txn": f"x_{number:026}",
            "task_id": task_id(number),
            "grant_id": "" if refused else f"g_{number:026}",
            "principal": {"issuer": DEVELOPMENT_ISSUER, "subject": person if number % 7 < 6 else f"person{number % OTHERS}"},
            "roles": ["operator"],
            "path": [],
            "action": "invokeAgent",
            "resource": agents[number],
            "permission": f"agent:{agents[number]}",
            "allowed": not refused,
            "reason_id": "user-lacks-permission" if refused else "allowed",
            "policies": [],
            "missing": [],
            "arguments": "",
            "policy_version": "p",
            "trace_id": "",
        }
        yield {
            "chain": "bench",
            "seq": _count(size) - number,
            "tenant": "default",
            "kind": "decision",
            "at": at,
            "decision_id": f"d_{number:026}",
            "txn": f"x_{number:026}",
            "body": json.dumps(body),
            "prev": "",
            "hash": "",
        }


def _runs(size: Size, now: int) -> Iterator[dict[str, Any]]:
    """Runs of workflows: tasks that have ended."""
    texts = dict.fromkeys(("note", "paused_by", "fault", "origin_id", "origin_kind", "origin_step", "requesters"), "")
    for number in range(0, min(size.runs * 10, _count(size)), 10):
        row = {"tenant": "default", "id": task_id(number), "workflow": "bench", "version": "v", "input": "{}", "inputs": "{}", **texts}
        yield {**row, "started": _moment(size, now, number)}


def _approvals(size: Size, now: int) -> Iterator[dict[str, Any]]:
    """Old approvals, and a hundred that wait."""
    texts = dict.fromkeys(("txn", "task_id", "grant_id", "definition", "arguments_hash", "arguments", "described", "used_by", "reason"), "")
    names = ("callTool", "Tool", "inventory.refund", "tool:inventory.refund", "inventory")
    act = json.dumps(dict(zip(("action", "kind", "resource", "permission", "parent"), names, strict=True)))
    for number in range(size.letters):
        waits = number < 100
        row = {
            "tenant": "default",
            "id": f"ap_{number:026}",
            "owner": owner_key(f"person{number % OTHERS}"),
            "decision_id": f"d_{number:026}",
            "act": act,
            "chain": "[]",
            "policies": '["refunds"]',
            "prompt": "Refunds need a second person",
            "state": "pending" if waits else "used",
            "errand": "{}",
            "needed": 1,
            "created": now - number * 1_000_000,
            "expires": now + DAY_US,
            "closed": None if waits else now - number,
        }
        yield {**texts, **row}


def _conflicts(size: Size, now: int) -> Iterator[dict[str, Any]]:
    for number in range(size.letters):
        yield {
            "tenant": "default",
            "subject": f"customer:{number}",
            "effect": "email",
            "owner": owner_key(f"person{number % OTHERS}"),
            "agent": agent_name(number % size.agents),
            "reason_id": "claim-denied",
            "target": "inventory",
            "policies": "[]",
            "facts": "[]",
            "decision_id": f"d_{number:026}",
            "count": 1,
            "first_at": now - number * 1_000_000,
            "last_at": now - number * 1_000_000,
        }


def _dead_starts(size: Size, now: int) -> Iterator[dict[str, Any]]:
    """Starts by a trigger that failed for good."""
    for number in range(size.letters):
        at = now - number * 1_000_000
        yield {
            "tenant": "default",
            "id": f"dl_{size.letters - number:026}",
            "name": "order",
            "start": f"s{number}",
            "subject": "",
            "event_id": f"e{number}",
            "event": json.dumps({"specversion": "1.0", "id": f"e{number}", "source": "shop", "type": "order.placed"}),
            "requesters": "[]",
            "attempts": 8,
            "next_at": at,
            "state": "dead",
            "reason": "the workflow order is unknown",
            "created": at,
            "updated": at,
        }
