"""Agent cards as this gateway publishes them: with its own address, signed with its own key."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.server.composition.process import Gateway
from registry.cards.card import Registration, Skill
from registry.cards.republish import add_a2a_03_members, publish_card, signed_for_both


class PublishedCards:
    """Builds the card of an agent in each form that callers receive."""

    def __init__(self, gateway: Gateway) -> None:
        self._url = gateway.settings.public_url
        self._grpc = gateway.settings.public_grpc
        self._keys = gateway.keys

    def newer(self, found: Registration, offered: Callable[[Skill], bool] | None = None) -> dict[str, Any]:
        """Builds the A2A 1.0 card with all skills, or with those for which `offered` returns True."""
        return publish_card(found, self._url, self._keys, offered, self._grpc)

    def united(self, found: Registration, card: Mapping[str, Any]) -> dict[str, Any]:
        """Builds a card for A2A 1.0 and 0.3 from the A2A 1.0 `card`."""
        return add_a2a_03_members(found, card, self._url, self._keys)

    def extended(self, found: Registration, offered: Callable[[Skill], bool]) -> dict[str, Any]:
        """Builds the A2A 1.0 card for one caller, with signatures that A2A 0.3 callers can verify too."""
        return signed_for_both(self.newer(found, offered), self._url, self._keys)
