"""Checks that all endpoints of an agent belong to the same agent, before tasks are sent there."""

from dataclasses import replace

from adapters.upstream.targets import grpc_url, without_path
from gateway.registration.card_source import CardSource
from gateway.registration.requests import BadRequest
from gateway.registration.vendor_source import VendorSource
from registry.cards.card import AgentCard, BadCard, Registration
from registry.rows import Candidate


class EndpointIdentityCheck:
    """Compares the cards at an agent's endpoints with its registered card."""

    def __init__(self, cards: CardSource, vendors: VendorSource) -> None:
        self._cards = cards
        self._vendors = vendors

    async def check(self, entry: Registration | Candidate) -> None:
        """Raises BadRequest, UrlRefused and UpstreamFault."""
        for at, each in enumerate(entry.endpoints):
            place = f"endpoints[{at}].url"
            await self._cards.vet_target(place, each.url)
            try:
                card = await self._read_card(entry, each.url)
            except BadCard as error:
                raise BadRequest(place, f"has a card that can't be used: {error}") from error
            if card is None or entry.card is None or _card_identity(card) != _card_identity(entry.card):
                raise BadRequest(place, "belongs to another agent: its card has another name, version or other skills")

    async def _read_card(self, entry: Registration | Candidate, url: str) -> AgentCard | None:
        if self._vendors.is_vendor(entry.kind):
            blank = Candidate(entry.tenant, entry.name, entry.family, entry.kind, "", entry.owner, entry.status)
            return (await self._vendors.candidate_from_agent(replace(blank, upstream=entry.upstream), url)).card
        read = await self._cards.fetch(without_path(grpc_url(url)), entry.upstream)
        return None if read is None else read.card


def _card_identity(card: AgentCard) -> tuple[str, str, tuple[str, ...]]:
    """Returns what the cards of all endpoints of one agent have in common."""
    return card.name, card.version, tuple(sorted(skill.id for skill in card.skills))
