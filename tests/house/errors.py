"""The exceptions that product code defines, and those that no door ever sees."""

import ast
import builtins

from tests.house.source import Source

BUILT_IN = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)}

# Caught by its own package, or raised where there is no caller yet. Everything else needs a row in gateway/ingress/http/errors.py.
INSIDE = {
    "gateway.ingress.console.api.ApiRefusal": "the console's page says it, with the status of /api",
    "gateway.ingress.console.forms.FormRefused": "the console's page says it",
    "gateway.ingress.console.page.UnknownPage": "the console's page says it",
    "gateway.ingress.console.sign_in.links.LinkSpent": "the console's page says it",
    "gateway.ingress.console.sign_in.sessions.NoSession": "the console's page says how to sign in",
    "policies.vault.credentials.WrongOwner": "nobody asks for another's credential; a fault of ours where it is raised",
    "adapters.sandbox.calculation.BadCalculation": "the tool's result says what is wrong with its arguments",
    "adapters.sandbox.calculation.CalculatorBusy": "the sandbox's tool raises UpstreamFault",
    "adapters.sandbox.worker.NotJson": "the tool's result says what is wrong with the value",
    "adapters.sandbox.worker.ValueTooLarge": "as NotJson",
    "gateway.events.standard_webhooks.BadSecret": "it stops the start, or the request of a source is refused with SignatureRefused",
    "gateway.events.templates.ValueMissing": "a start becomes a dead letter, and the event of a source is refused with BadEvent",
    "gateway.workflows.cloud_events.inbound.SourceSchemaRefused": "it stops the start as BadSettings",
    "gateway.workflows.cloud_events.triggers.NotSeen": "the start becomes a dead letter",
    "gateway.storage.migrations.run.BrokenReferences": "it stops a migration, before the gateway serves requests",
    "adapters.contract.CannotCancel": "the task is withdrawn from its agent",
    "adapters.contract.TurnPostponed": "the recorder raises EndingNotWritten instead",
    "adapters.contract.CannotReattach": "the agent is told to stop, and its task fails",
    "adapters.vendors.sdk.agent.BadOptions": "onboarding names the field",
    "adapters.vendors.rest.expressions.BadExpression": "raised while options are read, which makes it BadOptions",
    "adapters.upstream.http1.ConnectionDropped": "the egress guard tries again, or raises UpstreamFault",
    "adapters.upstream.http1.ResponseTooLarge": "the egress guard raises UpstreamFault",
    "adapters.mcp_client.wire.peer.PeerRefused": "the pool answers the server that asked, or refuses the call",
    "adapters.mcp_client.exchange.http.WrongEra": "the pool probes again",
    "adapters.mcp_client.legacy.sessions.NotLegacy": "the pool probes again",
    "adapters.openapi.bodies.UnsupportedBody": "the document's reader leaves the operation out, with this reason",
    "adapters.openapi.multipart.BadArguments": "the tool's result says what is wrong with its arguments",
    "adapters.openapi.schema.UnusableSchema": "the document's reader leaves the operation out, with this reason",
    "adapters.openapi.tools.DocumentUnchanged": "a look at the server finds what was found before",
    "registry.cards.prices.BadPrice": "the request or the configuration is refused with this reason",
    "registry.names.InvalidMember": "only its subclasses are raised",
    "registry.virtual.tool_overrides.BadOverride": "the selection, or the call, is refused with this reason",
    "gateway.registration.card_source.CardRejected": "a refresh quarantines the agent, a change names the field",
    "gateway.storage.files.data_folder.HomeInUse": "start-up: printed by the command line",
    "gateway.storage.files.database_file.DatabaseInUse": "start-up: printed by the command line",
    "gateway.storage.files.data_folder.HomeWritableByOthers": "start-up: printed by the command line",
    "gateway.ingress.mcp_server.protocol.sessions.UnknownSession": "the MCP door answers with HTTP 404, as the transport asks",
    "gateway.ingress.mcp_server.protocol.message.ResponseReceived": "the MCP door takes it as an answer",
    "gateway.ingress.mcp_server.protocol.message.BatchReceived": "several messages, which the MCP door answers one by one",
    "gateway.ingress.mcp_server.protocol.disconnect.ClientDisconnected": "nobody is there to be answered",
    "gateway.ingress.mcp_server.protocol.modern.BadEnvelope": "the MCP door answers it with its own code",
    "gateway.state.claims.problems.ClaimRefused": "only its subclasses are raised",
    "gateway.state.subjects.names.BadSubject": "the request names the member, with this reason",
    "gateway.state.subjects.names.BadEffectName": "the request names the member, with this reason",
    "policies.delegation.facts.FactsChanged": "the act is ruled on again",
    "policies.what_if.fact_cases.BadFacts": "the file of cases is refused with this reason",
    "registry.cards.effects.BadEffect": "the request or the configuration is refused with this reason",
    "registry.cards.effects.SubjectMissing": "the call is refused with EffectSubjectMissing",
    "gateway.workflows.dsl.yaml_reader.Unreadable": "the document is refused with its reason",
    "gateway.workflows.engine.http_targets.NoOperation": "a problem of the document, or an error of the step",
    "gateway.workflows.engine.steps.RightsEnded": "the run's task is rejected with it",
    "gateway.workflows.engine.steps.SignInNeeded": "the run is suspended until its owner signs in",
    "gateway.workflows.engine.steps.NoPlace": "the run is suspended",
    "gateway.workflows.engine.steps.StepAwaitsTask": "the run is suspended",
    "gateway.workflows.expressions.evaluator.ExpressionFailed": "an error of the step, or a problem of the document",
    "gateway.workflows.interpreter.effects.RunSuspended": "the run's turn ends as suspended",
    "gateway.workflows.interpreter.errors.WorkflowError": "the document handles it, or the run's task fails with it",
    "gateway.workflows.interpreter.interpreter.RunEnded": "the run completes",
    "gateway.workflows.coordination.reading.BadPlan": "the step that plans fails as `plan-refused`, or is planned anew",
    "gateway.workflows.rehearsal.clock.Stalled": "the rehearsal's outcome is `waiting`",
    "gateway.workflows.rehearsal.effects.Unanswered": "the rehearsal's outcome is `unanswered`",
    "gateway.workflows.runs.store.RunTaken": "another process has the run, and this one stops working on it",
    "gateway.storage.batch.CommitUncertain": "the transactions look into the database for what became of it",
    "gateway.state.board.problems.BoardProblem": "only its subclasses are raised",
    "gateway.state.schemas.BadSchemaOfPrefix": "start-up: the settings are refused with it",
    "gateway.tasks.turns.in_flight.TurnAbandoned": "AgentCalls answers with the task, which has ended",
    "gateway.tasks.log.ParentTaskEnded": "the caller's grant has ended with its task: TokenRefused",
    "gateway.tasks.log.IdempotencyKeyUsed": "AgentCalls answers with the task of the faster request",
    "adapters.upstream.http1.NotConnected": "the egress guard raises UpstreamFault",
    "gateway.tasks.contracts.skills.BadContract": "a BadRequest that names the member",
    "gateway.tasks.contracts.json_schema.BadSchema": "whoever asks decides what that means",
    "gateway.calls.limits.meters.LimitReached": "what is raised is one of its three kinds, each with a row",
    "gateway.storage.database_start.DatabaseUnusable": "start-up: printed by the command line",
    "gateway.server.settings.BadSettings": "start-up: printed by the command line",
    "gateway.cli.exit_codes.CommandFailed": "an exit code of the command line",
    "gateway.cli.exit_codes.NothingFound": "an exit code of the command line",
    "gateway.cli.exit_codes.GatewayUnreachable": "an exit code of the command line",
    "gateway.cli.exit_codes.CommandRefused": "an exit code of the command line",
    "gateway.cli.exit_codes.CommandError": "an exit code of the command line",
    "gateway.cli.exit_codes.WrongUsage": "an exit code of the command line",
    "policies.vault.envelope.CannotOpen": "a credential that can't be opened is none",
    "policies.delegation.approval.NotShowable": "the ledger refuses the act",
    "policies.delegation.approval_rows.ApprovalGone": "the ledger has the act ruled on again",
    "policies.delegation.history.HistoryChanged": "the ledger has the act ruled on again",
    "policies.keys.published.NotSignedByPublishedKey": "a ValueError: a flaw of the audit",
    "policies.cedar.files.folder.BadPolicy": "start-up, or a reload that keeps the last good set",
    "gateway.ingress.admin.authority.evaluations.BadEvaluation": "answered in the shape of AuthZEN, or as a bad request",
    "gateway.workflows.rehearsal.recording.NotRecorded": "becomes CommandFailed, with the command that shows the run",
    "policies.cedar.files.yaml_entries.NotEntries": "becomes BadPolicy or BadCases, with the file it is in",
    "policies.what_if.cases.BadCases": "printed by the command line",
    "policies.cedar.values.NotExpressible": "a request that Cedar can't express is denied",
    "policies.delegation.chain.CannotNarrow": "the authority turns it into a Denial",
    "policies.delegation.grants.GrantEnded": "the authority and the exchange refuse the token",
    "policies.tokens.hop_tokens.ExchangeRefused": "answered in the shape of RFC 6749 s5.2 by /oauth/token and /oauth/revoke",
    "policies.keys.jwks.BadKeySet": "the last good key set stays",
    "policies.keys.key_folder.KeysUnusable": "start-up",
    "policies.keys.signing.NotSignedByUs": "a ValueError: no signature of ours",
    "registry.cards.catalog_document.BadFilter": "answered in the shape of ARD by /ard",
    "registry.seeds.EntryUnreachable": "the seed is registered as down, and tried again",
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
