"""Registers agents of vendors: their adapter asks them about themselves, and the gateway writes the card."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from adapters.catalog import AdapterCatalog, UnknownKind
from adapters.contract import UpstreamFault
from adapters.upstream.aws_access import AWS_OPTION, parse_access
from adapters.upstream.egress import EgressRefused
from adapters.vendors.sdk.agent import COMMON_OPTIONS, AgentFacts, BadOptions, Features, OpenQuestions, SkillFacts
from adapters.vendors.sdk.connection import VendorEndpoint
from gateway.registration.card_source import CardSource
from gateway.registration.requests import AgentRegistrationRequest, BadRequest, UrlRefused
from registry.cards.card import FEATURES, QUESTIONS
from registry.cards.reader import read_card
from registry.drift.suspicions import find_suspicions
from registry.rows import Candidate

DESCRIBE_SECONDS = 20.0
SKILL_FORMS_EXTENSION = "urn:interlock:a2a:skill-forms:1"  # read by gateway/ingress/mcp_server/catalogue/skill_schemas.py


OWN_MEMBERS = {
    "mcp": frozenset({"account", "era"}),
    "a2a": frozenset({QUESTIONS, AWS_OPTION}),
}  # members of `upstream` for kinds without a vendor adapter


def _check_aws_access(access: Any) -> None:
    """Raises BadRequest."""
    try:
        parse_access(access)
    except ValueError as error:
        name, _, problem = str(error).partition(": ")
        raise BadRequest(f"upstream.{AWS_OPTION}.{printable_name(name)}".rstrip("."), problem[:1].lower() + problem[1:]) from None


class VendorSource:
    """Reads agents of vendors. `credentials` returns the headers that the operator configured in `upstream`."""

    def __init__(self, vendors: AdapterCatalog, cards: CardSource, credentials: Callable[[Mapping[str, Any]], Mapping[str, str]]) -> None:
        self._vendors = vendors
        self._cards = cards
        self._credentials = credentials

    def is_vendor(self, kind: str) -> bool:
        return self._vendors.is_vendor(kind)

    def is_vendor_request(self, request: AgentRegistrationRequest) -> bool:
        """Returns whether a request registers a vendor's agent. Raises BadRequest if it does and has a card."""
        if self.is_vendor(request.kind) and request.card is not None:
            raise BadRequest("card", f"is not possible for agents of the kind {request.kind}: give the url")
        return self.is_vendor(request.kind)

    async def load(self, kind: str) -> None:
        """Loads the libraries of a kind. Must run before other methods for this kind."""
        await self._vendors.load(kind)

    def check(self, kind: str, upstream: Mapping[str, Any]) -> None:
        """Checks the options in `upstream`. Options of an adapter are only valid for agents of its kind. Raises BadRequest."""
        if not self.is_vendor(kind):
            for name in sorted(upstream.keys() - COMMON_OPTIONS - OWN_MEMBERS.get(kind, frozenset())):
                raise BadRequest(f"upstream.{printable_name(name)}", "is not a member of this request")
            if upstream.get(QUESTIONS, OpenQuestions.ONE) != OpenQuestions.ONE:
                raise BadRequest(f"upstream.{QUESTIONS}", f"must be {OpenQuestions.ONE}")
            if AWS_OPTION in upstream:
                _check_aws_access(upstream[AWS_OPTION])
            return
        try:
            self._vendors.check(kind, upstream)
        except BadOptions as error:
            raise BadRequest(error.field, error.problem) from error
        except UnknownKind as error:
            raise BadRequest("kind", "has an adapter that can't be loaded") from error

    async def candidate_from_agent(self, blank: Candidate, url: str) -> Candidate:
        """Returns `blank` with what the agent says about itself. Raises BadRequest, UrlRefused, BadCard and UpstreamFault."""
        kind, upstream = blank.kind, blank.upstream
        await self.load(kind)
        self.check(kind, upstream)
        await self._cards.vet_target("url", url)
        deadline = asyncio.get_running_loop().time() + DESCRIBE_SECONDS
        place = VendorEndpoint(url, upstream, self._credentials(upstream), deadline)
        try:
            async with asyncio.timeout_at(deadline):
                agent_facts = await self._vendors.describe(kind, place)
        except EgressRefused as refused:
            raise UrlRefused("url", f"is refused: {refused.public}") from refused
        except TimeoutError as error:
            raise UpstreamFault("the upstream did not answer in time") from error
        features = self._vendors.features(kind, upstream)
        document = build_card(agent_facts, kind, url, features)
        text = json.dumps(document, ensure_ascii=False)
        facts = {
            "interface": url,
            "binding": kind,
            "streaming": features.streams,
            "source": url,
            "signature": "none",
            "signed_by": "",
            "warnings": find_suspicions(document),
            FEATURES: msgspec.structs.asdict(features),
        }
        return replace(blank, url=url, facts=facts, card=read_card(document), card_text=text)


def build_card(agent_facts: AgentFacts, kind: str, url: str, features: Features) -> dict[str, Any]:
    """Returns an A2A 1.0 card whose protocol binding is the vendor's own, which only the adapter can call."""
    skills = agent_facts.skills or (SkillFacts("chat", agent_facts.name, agent_facts.description),)
    forms = {each.id: {"inputSchema": each.schema} for each in skills if each.schema is not None}
    return {
        "name": agent_facts.name,
        "description": agent_facts.description,
        "version": agent_facts.version,
        "supportedInterfaces": [{"url": url, "protocolBinding": kind, "protocolVersion": "1.0"}],
        "capabilities": {
            "streaming": features.streams,
            **({"extensions": [{"uri": SKILL_FORMS_EXTENSION, "params": {"skills": forms}}]} if forms else {}),
        },
        "defaultInputModes": list(agent_facts.input_modes),
        "defaultOutputModes": list(agent_facts.output_modes),
        "skills": [
            {"id": each.id, "name": each.name, "description": each.description or each.name, "tags": list(each.tags) or [kind]}
            for each in skills
        ],
    }


def printable_name(name: str) -> str:
    """Returns an untrusted name with unprintable characters replaced, for use in an error text."""
    return "".join(letter if letter.isprintable() and letter != " " else "?" for letter in name[:100])
