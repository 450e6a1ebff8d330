"""The `requestState` of requests to servers: what the gateway and a server remember between the rounds of one request (MCP 2026-07-28)."""

from typing import Any

import msgspec
from msgspec import Raw

from adapters.contract import ConsentNeeded
from gateway.ingress.mcp_server.catalogue.search_mode import CALL_TOOL, SearchMode
from gateway.ingress.mcp_server.elicitation.consent import request_consent
from gateway.ingress.mcp_server.elicitation.server_questions import check_askable, questions_in, state_in
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.request_state import RequestState, RequestStateCipher, state_context
from gateway.ingress.mcp_server.protocol.sessions import holder_of

STATE_SECONDS = 600.0  # for which a person may think about what a server asks
UNFINISHED = b'"input_required"'
UNFINISHED_HINT = b"input_required"  # without quotes, which stand everywhere and make looking for it slower
encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class RequestStates:
    """Seals states for one request of one person, and opens them for the next round of this request alone."""

    def __init__(self, cipher: RequestStateCipher, search_mode: SearchMode) -> None:
        self._cipher = cipher
        self._search_mode = search_mode

    def context_of(self, message: ClientMessage) -> bytes:
        """What binds a state to its request. A request to `call_tool` of the search mode counts as the call that it names."""
        if (
            message.method == "tools/call"
            and not message.is_rewritten
            and message.params_object().get("name") == CALL_TOOL
            and self._search_mode.is_on(message)
        ):
            message = self._search_mode.resolve_call_tool(message)
        params = message.original_params or message.params_object()
        return state_context(holder_of(message.caller), message.resource, message.method, params)

    def decrypt(self, message: ClientMessage) -> RequestState:
        """The state that a request carries. Raises BadEnvelope for one of another request, and for an expired one."""
        return self._cipher.decrypt(message.params["requestState"], self.context_of(message))

    def request_consent(self, message: ClientMessage, consent: ConsentNeeded) -> bytes:
        """The result that asks the person to connect an account, with a state for the next round where the client's era has one."""
        state = ""
        if message.is_modern:
            state = self._cipher.encrypt(RequestState(self._cipher.expiry_after(STATE_SECONDS)), self.context_of(message))
        return request_consent(message, consent, state)

    def seal_into_result(self, message: ClientMessage, result: bytes, decision_id: str) -> bytes:
        """A server's result; where the server asks something, the server's state is sealed in the gateway's.

        `decision_id` is the decision that used an approval or was counted, which the answers may go on with. Raises BadEnvelope where
        the client did not declare what the server asks for, and UpstreamFault for questions that can't be read.
        """
        members: dict[str, Any] = dict(_decode_members(result))
        if bytes(members.get("resultType", b"")) != UNFINISHED:
            return result
        check_askable(message.capabilities, questions_in(members))
        state = state_in(members)
        if state is not None or decision_id:
            sealed = RequestState(self._cipher.expiry_after(STATE_SECONDS), state, continues_decision_id=decision_id)
            members["requestState"] = self._cipher.encrypt(sealed, self.context_of(message))
        return encode(members)
