"""An agent whose model is scripted: it echoes, calls a tool, fails or takes its time, as the first word says."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.auth import AuthConfig, AuthCredential, AuthCredentialTypes, OAuth2Auth, OpenIdConnectWithConfig
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.tools import FunctionTool, LongRunningFunctionTool, ToolContext, request_input
from google.genai import types

ACCOUNT = AuthConfig(
    auth_scheme=OpenIdConnectWithConfig(
        authorization_endpoint="https://login.example/authorize",
        token_endpoint="http://127.0.0.1:9/token",
        token_endpoint_auth_methods_supported=["client_secret_basic"],
        scopes=["orders"],
    ),
    raw_auth_credential=AuthCredential(
        auth_type=AuthCredentialTypes.OPEN_ID_CONNECT, oauth2=OAuth2Auth(client_id="app", client_secret="none")
    ),
)
USED = types.GenerateContentResponseUsageMetadata(prompt_token_count=3, candidates_token_count=2, total_token_count=5)


def ask_approval(amount: int) -> dict[str, Any]:
    """Asks a person to approve an amount."""
    return {"status": "pending", "ticket": "T-1", "amount": amount}


def refund(amount: int) -> dict[str, Any]:
    """Refunds an amount."""
    return {"refunded": amount}


async def save_report(tool_context: ToolContext) -> dict[str, Any]:
    """Saves a file."""
    await tool_context.save_artifact("report.csv", types.Part.from_bytes(data=b"sku,left", mime_type="text/csv"))
    return {"saved": "report.csv"}


def look_up(tool_context: ToolContext) -> dict[str, Any]:
    """Needs an account of the person."""
    answer = tool_context.get_auth_response(ACCOUNT)
    if answer is None or answer.oauth2 is None:
        tool_context.request_credential(ACCOUNT)
        return {"status": "pending"}
    return {"came back to": answer.oauth2.auth_response_uri}


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "approve": ("ask_approval", {"amount": 42}),
    "confirm": ("refund", {"amount": 42}),
    "save": ("save_report", {}),
    "log": ("look_up", {}),
    "choose": ("adk_request_input", {"message": "Which size?", "response_schema": {"enum": ["S", "L"]}}),
}


class Scripted(BaseLlm):
    """Answers a tool's result by its text, a person by their first word."""

    async def generate_content_async(self, request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        parts = request.contents[-1].parts
        if result := parts[-1].function_response:
            yield _saying(f"tool said: {result.response}")
            return
        text = " ".join(part.text for part in parts if part.text)
        word = text.split()[0]
        if word in CALLS:
            name, arguments = CALLS[word]
            yield _whole(types.Part(function_call=types.FunctionCall(name=name, args=arguments)))
            return
        if stream and word == "hello":
            for piece in ("echo: ", text):
                yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=piece)]), partial=True)
        yield _saying(await _answer(word, text, request))


async def _answer(word: str, text: str, request: LlmRequest) -> str:
    match word:
        case "fail":
            raise RuntimeError("secret path /srv/agents/agent.py")
        case "slow":
            await slowly()
        case "count":
            return f"you said {sum(content.role == 'user' for content in request.contents)} things"
        case "see":
            return f"saw: {' '.join(part.inline_data.mime_type for part in request.contents[-1].parts if part.inline_data)}"
    return f"echo: {text}"


async def slowly() -> None:
    """Tells the log that it began, and that it was stopped."""
    print("slow began", flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("slow was stopped", flush=True)
        raise


def _saying(text: str) -> LlmResponse:
    return _whole(types.Part(text=text))


def _whole(part: types.Part) -> LlmResponse:
    return LlmResponse(content=types.Content(role="model", parts=[part]), usage_metadata=USED)


root_agent = LlmAgent(
    name="echo",
    description="Echoes, asks and fails.",
    model=Scripted(model="scripted"),
    tools=[LongRunningFunctionTool(ask_approval), FunctionTool(refund, require_confirmation=True), save_report, look_up, request_input],
)
