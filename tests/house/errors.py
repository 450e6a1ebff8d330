"""The exceptions that product code defines, and those that no door ever sees."""

import ast
import builtins

from tests.house.source import Source

BUILT_IN = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)}

# Caught by its own package, or raised where there is no caller yet. Everything else needs a row in gateway/errors.py.
INSIDE = {
    "policies.credentials.NotTheirs": "nobody asks for another's credential; a fault of ours where it is raised",
    "adapters.calculation.BadCalculation": "the tool's result says what is wrong with its arguments",
    "adapters.calculation.Busy": "the sandbox's tool raises UpstreamFault",
    "adapters.sandbox.NotJson": "the tool's result says what is wrong with the value",
    "adapters.sandbox.TooLarge": "as NotJson",
    "adapters.contract.CannotCancel": "the task is withdrawn from its agent",
    "adapters.contract.CannotReattach": "the agent is told to stop, and its task fails",
    "adapters.vendor.BadOptions": "onboarding names the field",
    "adapters.expressions.BadExpression": "raised while options are read, which makes it BadOptions",
    "adapters.http1.Dropped": "the egress guard tries again, or raises UpstreamFault",
    "adapters.http1.TooLarge": "the egress guard raises UpstreamFault",
    "adapters.mcp_peer.PeerRefused": "the pool answers the server that asked, or refuses the call",
    "adapters.mcp_rounds.WrongEra": "the pool probes again",
    "adapters.mcp_sessions.NotLegacy": "the pool probes again",
    "adapters.openapi_bodies.UnknownBody": "the document's reader leaves the operation out, with this reason",
    "adapters.openapi_multipart.BadArguments": "the tool's result says what is wrong with its arguments",
    "adapters.openapi_schema.UnusableSchema": "the document's reader leaves the operation out, with this reason",
    "adapters.openapi_tools.DocumentUnchanged": "a look at the server finds what was found before",
    "registry.overrides.BadOverride": "the selection, or the call, is refused with this reason",
    "gateway.card_source.Unverified": "a refresh quarantines the agent, a change names the field",
    "gateway.home.HomeInUse": "start-up: printed by the command line",
    "gateway.database_file.DatabaseInUse": "start-up: printed by the command line",
    "gateway.home.HomeOpen": "start-up: printed by the command line",
    "gateway.mcp_server.sessions.UnknownSession": "the MCP door answers with HTTP 404, as the transport asks",
    "gateway.mcp_server.asked.Answered": "the MCP door takes it as an answer",
    "gateway.mcp_server.asked.Batched": "several messages, which the MCP door answers one by one",
    "gateway.mcp_server.disconnect.ClientLeft": "nobody is there to be answered",
    "gateway.mcp_server.modern.BadEnvelope": "the MCP door answers it with its own code",
    "gateway.batch.CommitBroke": "the transactions look into the database for what became of it",
    "gateway.under_way.Abandoned": "the broker answers with the task, which has ended",
    "gateway.tasks.KeyUsed": "the broker answers with the task of the faster request",
    "adapters.http1.NotConnected": "the egress guard raises UpstreamFault",
    "gateway.contracts.BadContract": "a BadRequest that names the member",
    "gateway.schemas.BadSchema": "whoever asks decides what that means",
    "gateway.limits.LimitReached": "what is raised is one of its three kinds, each with a row",
    "gateway.database_start.DatabaseUnusable": "start-up: printed by the command line",
    "gateway.settings.BadSettings": "start-up: printed by the command line",
    "gateway.commands.outcomes.Failed": "an exit code of the command line",
    "gateway.commands.outcomes.NotReachable": "an exit code of the command line",
    "gateway.commands.outcomes.Refused": "an exit code of the command line",
    "gateway.commands.outcomes.Stop": "an exit code of the command line",
    "gateway.commands.outcomes.WrongUsage": "an exit code of the command line",
    "policies.envelope.CannotOpen": "a credential that can't be opened is none",
    "policies.approval.NotShowable": "the ledger refuses the act",
    "policies.approval_rows.ApprovalGone": "the ledger has the act ruled on again",
    "policies.history.HistoryMoved": "the ledger has the act ruled on again",
    "policies.published_keys.NotSigned": "a ValueError: a flaw of the audit",
    "policies.policy_folder.BadPolicy": "start-up, or a reload that keeps the last good set",
    "gateway.evaluations.BadEvaluation": "answered in the shape of AuthZEN, or as a bad request",
    "policies.yaml_entries.NotEntries": "becomes BadPolicy or BadCases, with the file it is in",
    "policies.policy_cases.BadCases": "printed by the command line",
    "policies.cedar_values.NotExpressible": "a request that Cedar can't express is denied",
    "policies.delegation.CannotNarrow": "the authority turns it into a Denial",
    "policies.grants.GrantEnded": "the authority and the exchange refuse the token",
    "policies.hop_tokens.ExchangeRefused": "answered in the shape of RFC 6749 s5.2 by /oauth/token and /oauth/revoke",
    "policies.jwks.BadKeySet": "the last good key set stays",
    "policies.key_folder.KeysUnusable": "start-up",
    "policies.keys.NotOurs": "a ValueError: no signature of ours",
    "registry.catalog_document.BadFilter": "answered in the shape of ARD by /ard",
    "registry.seeds.NotReached": "the seed is registered as down, and tried again",
}


def exceptions(sources: list[Source]) -> set[str]:
    """Dotted names of the public exception classes defined here, found by the names of their parents."""
    classes = [(source.module, node) for source in sources for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    known = set(BUILT_IN)
    while more := {node.name for _, node in classes if known & _bases(node)} - known:
        known |= more
    return {f"{module}.{node.name}" for module, node in classes if known & _bases(node) and not node.name.startswith("_")}


def _bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}
