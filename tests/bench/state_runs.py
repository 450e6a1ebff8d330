"""What shared state costs on one database: a declared effect with three rules, claims that many want, and values of the board."""

from dataclasses import replace
from pathlib import Path

from tests.bench.contended_claims import measure_claims
from tests.bench.figures import Run, StateFigures
from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import Home, send_request
from tests.bench.processes import BenchFailure, Running, tail_of
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows, print_progress
from tests.bench.workflow_runs import DATABASES, database_settings
from tests.gateway.behaviour.state.test_conflict_rules import RULES

EFFECT, PLAIN = "+effect", "+no_effect"
NOTED = "noted"  # the echo server once more, with a declared effect
CUSTOMERS = [f"customer-of-the-benchmark-whose-number-is-{number:06}" for number in range(2000)]  # as long as the text of a plain call
KEYS = [f"bench/{number:04}/status" for number in range(500)]
_EFFECTS = {"echo": {"subject": "customer:{arguments.text}", "effect": "outbound-email", "purpose": "a mail to the customer"}}
_ROLES = {"member": ["agent:*", "tool:*", "resource:*", "state:*"]}


def state_runs(client: LoadClient, plan: Plan, folder: Path, upstream: Running) -> tuple[list[Run], dict[str, StateFigures]]:
    """The rows of both databases, and what is measured once on each. Raises BenchFailure."""
    rows: list[Run] = []
    found = {}
    for database in DATABASES:
        folder_of = folder / database
        folder_of.mkdir(parents=True)
        with database_settings(database, folder_of) as settings:
            home = Home.fresh(folder_of / "home", {**settings, "roles": _ROLES}, RULES)
            with serve_registered(home, upstream, plan.users) as gateway:
                print_progress(f"a declared effect on {database}, beside the plain call")
                runs = _effect_rows(client, plan, home, gateway, upstream)
                print_progress(f"the board on {database}")
                runs += _board_rows(client, plan, gateway)
                rows += [replace(run, database=database) for run in runs]
                print_progress(f"claims on {database} that {plan.claimants} people want")
                found[database] = StateFigures(measure_claims(gateway, plan.claimants, plan.seconds * plan.rounds))
    return rows, found


def _effect_rows(client: LoadClient, plan: Plan, home: Home, gateway: Target, upstream: Running) -> list[Run]:
    """Calls of one tool in turns, of which every second one has a declared effect. Each customer is written to many times."""
    document = {"name": NOTED, "url": f"{upstream.url}/mcp", "effects": _EFFECTS}
    status, body = send_request(gateway.running, "/api/servers", home.admin_token(), document)
    if status != 201:
        raise BenchFailure(f"no server with effects: {status} {body[:1000]!r}\n{tail_of(gateway.running.log)}")
    with_effect = replace(gateway, name=EFFECT, paths={"mcp": f"/mcp/{NOTED}"}, subjects={"mcp": CUSTOMERS})
    rows = measure_rows(client, replace(plan, workloads=("mcp",)), [replace(gateway, name=PLAIN), with_effect], connections=(1, 16))
    return [replace(row, target=gateway.name, workload=row.workload + row.target) for row in rows]


def _board_rows(client: LoadClient, plan: Plan, gateway: Target) -> list[Run]:
    """Reads and writes of values that are there, by many people."""
    for key in KEYS:
        status, body = send_request(gateway.running, f"/api/state/{key}", gateway.tokens[0], {"was": ""}, method="PUT")
        if status != 201:
            raise BenchFailure(f"a value was not set: {status} {body[:1000]!r}")
    board = replace(gateway, paths=dict.fromkeys(("state_read", "state_write"), "/api/state/%(text)b"))
    board = replace(board, subjects=dict.fromkeys(board.paths, KEYS))
    return measure_rows(client, replace(plan, workloads=tuple(board.paths)), [board], connections=(1, 16))
