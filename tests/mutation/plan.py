"""Which tests should notice a change to which module of policies/, beside those that have its name."""

from tests.house.source import ROOT

LEFT_OUT = {"__init__", "tables"}  # nothing that decides
DOORS = ("gateway/test_delegation.py", "gateway/oauth/test_exchange.py")
CEDAR = ("policies/test_cedar.py", "policies/test_policy_cases.py", "policies/test_argument_types.py", "policies/test_policy_review.py")
TOKENS = ("policies/test_identity.py", "policies/test_strict_rules.py", "policies/test_token_attacks.py")
AUDIT = ("policies/test_audit.py", "policies/test_audit_proof.py", "policies/test_audit_cuts.py", "policies/test_audit_heads.py")
ASKING = ("policies/test_asking_rules.py", "gateway/test_asking.py", "gateway/test_approvals.py", "gateway/test_errands.py")
ABOVE = (
    *DOORS,
    "gateway/admin/test_desk.py",
    "gateway/test_tickets.py",
    "gateway/test_kill_switch.py",
    "gateway/test_possession.py",
    "gateway/test_cancellation.py",
    "gateway/test_approvals.py",
    "gateway/test_tenancy.py",
    "gateway/admin/test_surface.py",
)
ALSO: dict[str, tuple[str, ...]] = {
    "acts": (*CEDAR, *DOORS),
    "annotations": ASKING,
    "approval": ASKING,
    "approval_rows": ASKING,
    "audit": (*AUDIT, "gateway/test_audit_complete.py"),
    "audit_cuts": (*AUDIT, "gateway/commands/test_trail.py"),
    "audit_heads": (*AUDIT, "gateway/commands/test_trail.py", "gateway/test_pulse.py"),
    "audit_proof": (*AUDIT, "gateway/commands/test_trail.py"),
    "authority": ("policies/test_authority_terms.py", *ABOVE),
    "callers": ABOVE,
    "cedar": (*CEDAR, "policies/test_rule_sets.py", "policies/test_policy_links.py", "policies/test_policy_folder.py",
              "policies/test_asking_rules.py", "policies/test_replay.py", "gateway/test_reloads.py"),
    "cedar_question": (*CEDAR, "policies/test_asking_rules.py"),
    "cedar_values": CEDAR,
    "claims": (*TOKENS, "gateway/oauth/test_id_jag.py", "gateway/commands/test_machine.py", "gateway/commands/test_examine.py"),
    "client_assertion": ("gateway/oauth/test_token.py",),
    "credentials": ("policies/test_vault.py", "policies/test_vault_places.py", "gateway/admin/test_connections.py",
                    "adapters/test_mcp_oauth_lasting.py"),
    "delegation": ("policies/test_hop_tokens.py", *DOORS),
    "envelope": ("policies/test_vault.py", "gateway/test_rewrapping.py"),
    "grant": (*CEDAR, *DOORS, "policies/test_hop_tokens.py"),
    "grants": (*DOORS, "policies/test_hop_tokens.py", "gateway/test_kill_switch.py", "gateway/test_spool.py",
               "gateway/test_cancellation.py"),
    "history": (*ASKING, "gateway/test_errands.py"),
    "hop_tokens": (*DOORS, "gateway/test_possession.py", "gateway/test_tickets.py", "policies/test_identity.py"),
    "identity": (*TOKENS, "policies/test_person_tokens.py", "gateway/test_refusals.py"),
    "ids": ("policies/test_vault.py",),
    "input_paths": (*CEDAR, "policies/test_asking_rules.py"),
    "jwks": (*TOKENS, "policies/test_keys.py", "policies/test_pinned_keys.py"),
    "key_folder": ("policies/test_keys.py", "policies/test_vault_keys.py", "gateway/test_home.py"),
    "keys": ("policies/test_audit_heads.py", "policies/test_audit_cuts.py", *TOKENS, "registry/test_signing.py"),
    "kills": ("gateway/test_kill_switch.py",),
    "permissions": ("policies/test_delegation.py", "policies/test_cedar.py", *TOKENS, *DOORS),
    "person_tokens": (*TOKENS, "gateway/oauth/test_exchange.py", "gateway/oauth/test_id_jag.py"),
    "pinned_keys": ("registry/test_signatures.py",),
    "policy_actions": CEDAR,
    "policy_folder": CEDAR,
    "policy_links": CEDAR,
    "policy_reading": (*CEDAR, "policies/test_policy_folder.py", "policies/test_policy_links.py"),
    "policy_review": CEDAR,
    "policy_schema": CEDAR,
    "policy_syntax": (*CEDAR, "policies/test_asking_rules.py", "policies/test_policy_links.py", "policies/test_policy_folder.py"),
    "policy_text": (*CEDAR, "policies/test_policy_folder.py", "policies/test_policy_links.py"),
    "possession": ("gateway/test_possession.py",),
    "principal": ("policies/test_delegation.py", "policies/test_cedar.py", *TOKENS),
    "published_keys": ("policies/test_audit_cuts.py", "gateway/commands/test_trail.py"),
    "rehearsal": ("policies/test_policy_cases.py", "examples/test_policies.py"),
    "rights": ("policies/test_cedar.py", "gateway/admin/test_surface.py", *DOORS),
    "role_rules": ("policies/test_cedar.py", "policies/test_policy_folder.py", *DOORS),
    "spent": ("policies/test_possession.py", "gateway/oauth/test_token.py", "gateway/oauth/test_exchange.py"),
    "strict_json": TOKENS,
    "strict_jwt": (*TOKENS, "policies/test_client_assertion.py", "policies/test_keys.py"),
    "surroundings": DOORS,
    "terms": (*CEDAR, *ASKING),
    "tickets": ("gateway/test_tickets.py", "gateway/test_revoked_elsewhere.py"),
    "vault": ("policies/test_vault_places.py", "gateway/test_rewrapping.py", "gateway/admin/test_connections.py"),
    "vault_keys": ("policies/test_envelope.py", "policies/test_vault.py", "gateway/test_rewrapping.py"),
}  # fmt: skip


def modules() -> list[str]:
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
