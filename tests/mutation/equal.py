"""Changes that leave what policies/ promises as it is, with the reason; they are counted apart and not tried."""

from tests.mutation.mutants import Mutant

# (module, the changed line without the blanks around it, kind): why nobody could tell
EQUAL: dict[tuple[str, str, str], str] = {
    ("audit/cuts", "DELETE_BATCH_SIZE = 5000  # records of one transaction", "number + 1"): "how many go at once, nobody sees",
    (
        "audit/cuts",
        'for row in connection.execute(query, execution_options={"yield_per": 1000}):',
        "number + 1",
    ): "how many are fetched at once",
    (
        "audit/cuts",
        'for row in connection.execute(query, execution_options={"yield_per": 1000}):',
        "text",
    ): "all are fetched at once, the same",
    ("audit/heads", "COMPACT_AFTER = 3600  # lines, an hour of work", "number + 1"): "how often a file is tidied",
    (
        "audit/proof",
        'found = connection.execute(query, execution_options={"yield_per": 1000})',
        "number + 1",
    ): "how many are fetched at once",
    (
        "audit/proof",
        'found = connection.execute(query, execution_options={"yield_per": 1000})',
        "text",
    ): "all are fetched at once, the same",
    (
        "authority",
        "self._rulings: PartedCache[_CachedVerdict] = PartedCache((50_000, 5_000), environment.now)",
        "number + 1",
    ): ("the places of a cache"),
    (
        "authority",
        "self.generation = 0  # incremented by each invalidation: results derived from earlier rulings may be outdated",
        "number + 1",
    ): "only whether it moved is asked",
    (
        "callers",
        "self._callers_by_claims: BoundedCache[int, tuple[Claims, Caller]] = BoundedCache(10_000, environment.now)",
        "number + 1",
    ): "the places of a cache",
    ("callers", 'async def resolve_resumed(self, tenant: str, grant_id: str, task_id: str, callee: str = "") -> Caller:', "text"): (
        "no agent has the other name, so nobody is left out"
    ),
    ("delegation/grants", "return False", "returns None"): "it is asked only whether a task is over",
    (
        "delegation/grants",
        "self._cache: BoundedCache[tuple[str, str], Delegation] = BoundedCache(10_000, clock)",
        "number + 1",
    ): "the places of a cache",
    ("delegation/permissions", "@lru_cache(maxsize=8192)", "number + 1"): "the places of a cache",
    ("delegation/permissions", "@lru_cache(maxsize=4096)", "number + 1"): "the places of a cache",
    (
        "tokens/dpop",
        'return UnverifiedToken(proof, key.kid, key.alg, "dpop+jwt", {})',
        "text",
    ): "its type was looked at before, and no signature tells it",
    (
        "tokens/tickets",
        "self._cache: BoundedCache[tuple[str, str], Ticket] = BoundedCache(10_000, clock)",
        "number + 1",
    ): "the places of a cache",
    ("cedar/engine", "ENTITIES_CACHE_SIZE = 1024  # 8 KB each", "number + 1"): "the places of a cache",
    ("cedar/engine", "if len(self._entities) >= ENTITIES_CACHE_SIZE:", "GtE -> Gt"): "one more place of a cache",
    (
        "cedar/engine",
        "result = cedarpy.validate_policies(text, cedarpy.Schema.from_json_str(schema), release_gil=True)",
        "bool",
    ): "whether other threads go on meanwhile",
    ("tokens/client_assertion", "self._key_sets: BoundedCache[bytes, dict[str, VettedKey]] = BoundedCache(1000, now)", "number + 1"): (
        "the places of a cache"
    ),
    ("tokens/client_assertion", "self._key_sets.put(digest, keys, 3600.0)", "call removed"): "the keys are read again, by the same text",
    ("tokens/client_assertion", "self._key_sets.put(digest, keys, 3600.0)", "number + 1"): "the same text gives the same keys however long",
    ("tokens/verifier", "_CACHE_SIZE = 10_000", "number + 1"): "the places of a cache",
    ("ids", "_IDS_PER_DRAW = 256", "number + 1"): "how many are drawn ahead, nobody sees",
    ("keys/jwks", "answer = await self._fetch(self._url, limit=DOCUMENT_MAX, timeout=5.0)", "number + 1"): "the length of a wait",
    (
        "keys/jwks",
        'if member.get("kty") != "RSA" or not 2048 <= bits <= 8192 or not (3 <= exponent < 1 << 32 and exponent % 2):',
        "Lt -> LtE",
    ): "1 << 32 is even, and refused for that",
    ("keys/pinned", "PROTECTED_MAX = 4096  # characters of a protected header", "number + 1"): "no base64url has 4097 characters",
    ("keys/pinned", "answer = await self._fetch(jku, limit=DOCUMENT_MAX, timeout=5.0)", "number + 1"): "the length of a wait",
    ("strict_json", 'if shape.count(b"[") > MAX_DEPTH:', "Gt -> GtE"): "64 brackets are never too deep",
    (
        "delegation/approval_rows",
        "MATCHED_MAX = 50  # approvals of the same arguments that are examined",
        "number + 1",
    ): "one more is as good",
    (
        "cedar/files/reading",
        "LEVELS_MAX = 120  # of a policy as JSON: Cedar writes deeper ones, but can't read them again",
        "number + 1",
    ): "a limit with room to what it keeps away from",
    (
        "cedar/files/positions",
        "TOKENS_MAX = 4096  # of one policy; a fault behind them is reported in its first line",
        "number + 1",
    ): "how far it looks: one more is as good",
    ("cedar/role_rules", 'if pattern.endswith("*"):', "text"): "no act is called by a name with a star, which would be permitted besides",
    ("cedar/files/yaml_entries", 'loader = yaml.SafeLoader("")', "text"): "a loader has to have a text, which nobody reads",
    ("vault/store", "CACHED_MAX: Final = 10_000", "number + 1"): "the places of a cache",
    (
        "vault/store",
        'lease, holder = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest(), new_id("v")',
        "text",
    ): "a holder's name is compared with itself alone",
    (
        "vault/store",
        "POLL_SECONDS: Final = 0.05  # between two checks of a lease that another process holds",
        "number + 1",
    ): "the length of a wait",
}


def reason_for_equality(module: str, source: str, mutant: Mutant) -> str | None:
    return EQUAL.get((module, source.splitlines()[mutant.line - 1].strip(), mutant.kind))


def keys_in_use(module: str, source: str, found: list[Mutant]) -> set[tuple[str, str, str]]:
    """Keys of the table that are true of this module today."""
    lines = source.splitlines()
    return {key for each in found if (key := (module, lines[each.line - 1].strip(), each.kind)) in EQUAL}
