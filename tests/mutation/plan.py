"""Which tests should notice a change to which module of policies/, beside those that have its name."""

from tests.house.source import ROOT

LEFT_OUT = {"__init__", "tables"}  # nothing that decides
DOORS = ("gateway/behaviour/authority/test_delegation.py", "gateway/ingress/oauth/test_token_exchange.py")
CEDAR = (
    "policies/cedar/test_engine.py",
    "policies/what_if/test_cases.py",
    "policies/cedar/test_argument_types.py",
    "policies/cedar/files/test_review.py",
)
TOKENS = ("policies/tokens/test_verifier.py", "policies/keys/test_strict_rules.py", "policies/tokens/test_token_attacks.py")
AUDIT = ("policies/audit/test_log.py", "policies/audit/test_proof.py", "policies/audit/test_cuts.py", "policies/audit/test_heads.py")
ASKING = (
    "policies/cedar/test_approval_rules.py",
    "gateway/calls/consent/test_approval_requests.py",
    "gateway/calls/consent/test_approval_votes.py",
    "gateway/behaviour/authority/test_transactions.py",
)
ABOVE = (
    *DOORS,
    "gateway/ingress/admin/registry/test_access.py",
    "gateway/behaviour/authority/test_tickets.py",
    "gateway/behaviour/authority/test_kill_switch.py",
    "gateway/behaviour/authority/test_possession.py",
    "gateway/calls/turns/test_cancellation.py",
    "gateway/calls/consent/test_approval_votes.py",
    "gateway/behaviour/authority/test_tenancy.py",
    "gateway/ingress/admin/test_route_guards.py",
)
ALSO: dict[str, tuple[str, ...]] = {
    "what_if/acts": (*CEDAR, *DOORS),
    "cedar/annotations": ASKING,
    "delegation/approval": ASKING,
    "delegation/approval_rows": ASKING,
    "audit/log": (*AUDIT, "gateway/behaviour/authority/test_audit_complete.py"),
    "audit/cuts": (*AUDIT, "gateway/cli/local/test_audit.py"),
    "audit/heads": (*AUDIT, "gateway/cli/local/test_audit.py", "gateway/server/test_periodic.py"),
    "audit/proof": (*AUDIT, "gateway/cli/local/test_audit.py"),
    "authority": ("policies/test_administration.py", "policies/test_authority_terms.py", *ABOVE),
    "callers": ABOVE,
    "cedar/engine": (
        *CEDAR,
        "policies/cedar/test_rule_sets.py",
        "policies/cedar/files/test_links.py",
        "policies/cedar/files/test_folder.py",
        "policies/cedar/test_approval_rules.py",
        "policies/what_if/test_replay.py",
        "gateway/server/test_reload.py",
    ),
    "cedar/question": (*CEDAR, "policies/cedar/test_approval_rules.py"),
    "cedar/values": CEDAR,
    "tokens/claims": (
        *TOKENS,
        "gateway/ingress/oauth/test_id_jag.py",
        "gateway/cli/local/test_serve.py",
        "gateway/cli/local/checks/test_configuration.py",
    ),
    "tokens/client_assertion": ("gateway/ingress/oauth/test_token.py",),
    "vault/credentials": (
        "policies/vault/test_store.py",
        "policies/vault/test_encryption_contexts.py",
        "gateway/ingress/admin/test_connections.py",
        "adapters/oauth/test_stored_credentials.py",
    ),
    "delegation/chain": ("policies/tokens/test_hop_tokens.py", *DOORS),
    "vault/envelope": ("policies/vault/test_store.py", "gateway/cli/local/test_rewrap_secrets.py"),
    "delegation/rulings": (*CEDAR, *DOORS, "policies/tokens/test_hop_tokens.py"),
    "delegation/grants": (
        *DOORS,
        "policies/tokens/test_hop_tokens.py",
        "gateway/behaviour/authority/test_kill_switch.py",
        "gateway/calls/revocation/test_spool.py",
        "gateway/calls/turns/test_cancellation.py",
    ),
    "delegation/history": (*ASKING, "gateway/behaviour/authority/test_transactions.py"),
    "tokens/hop_tokens": (
        *DOORS,
        "gateway/behaviour/authority/test_possession.py",
        "gateway/behaviour/authority/test_tickets.py",
        "policies/tokens/test_verifier.py",
    ),
    "tokens/verifier": (*TOKENS, "policies/tokens/test_person_tokens.py", "gateway/ingress/http/test_rejected_credentials.py"),
    "tokens/issued": (
        "policies/tokens/test_session_tokens.py",
        "policies/tokens/test_hop_tokens.py",
        "policies/tokens/test_person_tokens.py",
    ),
    "ids": ("policies/vault/test_store.py",),
    "cedar/input_paths": (*CEDAR, "policies/cedar/test_approval_rules.py"),
    "keys/jwks": (*TOKENS, "policies/keys/test_signing.py", "policies/keys/test_pinned.py"),
    "keys/key_folder": (
        "policies/keys/test_signing.py",
        "policies/vault/test_wrapping_keys.py",
        "gateway/storage/files/test_data_folder.py",
    ),
    "keys/signing": ("policies/audit/test_heads.py", "policies/audit/test_cuts.py", *TOKENS, "registry/cards/test_republish.py"),
    "delegation/kills": ("gateway/behaviour/authority/test_kill_switch.py",),
    "delegation/permissions": ("policies/delegation/test_chain.py", "policies/cedar/test_engine.py", *TOKENS, *DOORS),
    "tokens/person_tokens": (*TOKENS, "gateway/ingress/oauth/test_token_exchange.py", "gateway/ingress/oauth/test_id_jag.py"),
    "keys/pinned": ("registry/cards/test_signatures.py",),
    "cedar/actions": CEDAR,
    "cedar/files/folder": CEDAR,
    "cedar/files/links": CEDAR,
    "cedar/files/reading": (*CEDAR, "policies/cedar/files/test_folder.py", "policies/cedar/files/test_links.py"),
    "cedar/files/review": CEDAR,
    "cedar/schema": CEDAR,
    "cedar/syntax": (
        *CEDAR,
        "policies/cedar/test_approval_rules.py",
        "policies/cedar/files/test_links.py",
        "policies/cedar/files/test_folder.py",
    ),
    "cedar/files/positions": (*CEDAR, "policies/cedar/files/test_folder.py", "policies/cedar/files/test_links.py"),
    "tokens/dpop": ("gateway/behaviour/authority/test_possession.py",),
    "keys/published": ("policies/audit/test_cuts.py", "gateway/cli/local/test_audit.py"),
    "what_if/rehearsal": ("policies/what_if/test_cases.py", "examples/test_policies.py"),
    "delegation/rights": ("policies/cedar/test_engine.py", "gateway/ingress/admin/test_route_guards.py", *DOORS),
    "cedar/role_rules": ("policies/cedar/test_engine.py", "policies/cedar/files/test_folder.py", *DOORS),
    "tokens/replay_guard": (
        "policies/tokens/test_dpop.py",
        "gateway/ingress/oauth/test_token.py",
        "gateway/ingress/oauth/test_token_exchange.py",
    ),
    "strict_json": TOKENS,
    "keys/strict_jwt": (*TOKENS, "policies/tokens/test_client_assertion.py", "policies/keys/test_signing.py"),
    "environment": DOORS,
    "delegation/terms": (*CEDAR, *ASKING),
    "tokens/tickets": ("gateway/behaviour/authority/test_tickets.py", "gateway/behaviour/authority/test_revoked_elsewhere.py"),
    "vault/store": (
        "policies/vault/test_encryption_contexts.py",
        "gateway/cli/local/test_rewrap_secrets.py",
        "gateway/ingress/admin/test_connections.py",
    ),
    "vault/wrapping_keys": ("policies/vault/test_envelope.py", "policies/vault/test_store.py", "gateway/cli/local/test_rewrap_secrets.py"),
}


def list_modules() -> list[str]:
    """Every module of policies/ that decides something, as a path without `.py`. Raises LookupError when there is none."""
    folder = ROOT / "policies"
    found = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py") if path.stem not in LEFT_OUT)
    if not found:
        raise LookupError(f"no module to mutate below {folder}")
    return found


def tests_of(module: str) -> list[str]:
    """Paths below the root, those of its own name first."""
    folder, _, name = module.rpartition("/")
    own = "/".join(part for part in ("policies", folder, f"test_{name}.py") if part)
    named = [own] if (ROOT / "tests" / own).exists() else []
    return [f"tests/{path}" for path in dict.fromkeys([*named, "policies/test_frozen.py", *ALSO.get(module, ())])]
