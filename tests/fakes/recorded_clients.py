"""What the clients that people use send when a person signs in: metadata documents, registrations, and authorization requests.

The documents are those that the clients publish (autumn of 2026), apart from logos. Redirects and registrations are those that servers
have logged of them; the states have the clients' shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CODES: Final = {"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]}
PUBLIC: Final = {"token_endpoint_auth_method": "none"}
VS_CODE_GRANTS: Final = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"]
CLAUDE_CODE: Final = "https://claude.ai/oauth/claude-code-client-metadata"
CLAUDE: Final = "https://claude.ai/oauth/mcp-oauth-client-metadata"
VS_CODE: Final = "https://vscode.dev/oauth/client-metadata.json"
CHATGPT: Final = "https://chatgpt.com/oauth/client.json"
CHATGPT_KEYS: Final = "https://chatgpt.com/oauth/jwks.json"
DOCUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    CLAUDE_CODE: {
        "client_id": CLAUDE_CODE,
        "client_name": "Claude Code",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "application_type": "native",
        **CODES,
        **PUBLIC,
    },
    CLAUDE: {
        "client_id": CLAUDE,
        "client_name": "Claude",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
        **CODES,
        **PUBLIC,
    },
    VS_CODE: {
        "client_id": VS_CODE,
        "client_name": "Visual Studio Code",
        "client_uri": "https://vscode.dev/product",
        "redirect_uris": ["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
        "grant_types": VS_CODE_GRANTS,
        "response_types": ["code"],
        "application_type": "native",
        **PUBLIC,
    },
    CHATGPT: {
        "client_id": CHATGPT,
        "client_name": "ChatGPT",
        "client_uri": "https://chatgpt.com/",
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg": "RS256",
        "jwks_uri": CHATGPT_KEYS,
        **CODES,
    },
}
REGISTRATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Claude Code": {"redirect_uris": ["http://localhost:3118/callback"], "application_type": "native", **CODES, **PUBLIC},
    "Visual Studio Code": {
        "client_uri": "https://code.visualstudio.com",
        "grant_types": VS_CODE_GRANTS,
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "scope": "agent:* tool:*",
        "application_type": "native",
        **PUBLIC,
    },
    "Cursor": {
        "redirect_uris": [
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ],
        **CODES,
        **PUBLIC,
    },
    "ChatGPT": {
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect", "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct"],
        "token_endpoint_auth_method": "client_secret_post",
        **CODES,
    },
    "Claude": {"redirect_uris": ["https://claude.ai/api/mcp/auth_callback"]},
}


@dataclass(frozen=True)
class Recording:
    """One sign-in of a client. `document` is its metadata document, "" where it registers as `name`. `more`: of its authorization request.

    `discovery` are the paths that it reads, in its order. Those in `missing` are answered with 404, and it goes on.
    """

    name: str
    redirect: str
    state: str
    document: str = ""
    discovery: tuple[str, ...] = ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server")
    missing: tuple[str, ...] = ()
    more: Mapping[str, str] = field(default_factory=dict)


OPENID: Final = "/.well-known/openid-configuration"
RECORDINGS: Final = (
    Recording("Claude Code", "http://localhost:3118/callback", "Zk3xQx0hH8yq", CLAUDE_CODE, more={"prompt": "consent"}),
    Recording("Claude Code", "http://127.0.0.1:51034/callback", "Zk3xQx0hH8yq", CLAUDE_CODE),
    Recording("Claude Code", "http://localhost:3118/callback", "Zk3xQx0hH8yq"),
    Recording("Claude", "https://claude.ai/api/mcp/auth_callback", "q8W-cN0_5dM", CLAUDE),
    Recording("Claude", "https://claude.ai/api/mcp/auth_callback", "q8W-cN0_5dM"),
    Recording("Visual Studio Code", "http://127.0.0.1:33418/", "gXVXo0/iMD8WMolDHKxSTg==", VS_CODE),
    Recording("Visual Studio Code", "http://127.0.0.1:59656/", "ey/lnTwSm9FUcQN/Qds=", VS_CODE),
    Recording("Visual Studio Code", "https://vscode.dev/redirect", "vscode://vscode.authentication/x?nonce=1&windowId=1"),
    Recording("Visual Studio Code", "http://127.0.0.1:59656/", "ey/lnTwSm9FUcQN/Qds="),
    Recording("Cursor", "http://localhost:8787/callback", "eyJpZCI6ImFiYyJ9"),
    Recording("Cursor", "cursor://anysphere.cursor-mcp/oauth/callback", "eyJpZCI6ImFiYyJ9"),
    Recording("Cursor", "https://www.cursor.com/agents/mcp/oauth/callback", "eyJpZCI6ImFiYyJ9"),
    Recording(
        "ChatGPT",
        "https://chatgpt.com/connector_platform_oauth_redirect",
        "oauth_s_68f0c1",
        CHATGPT,
        discovery=("/.well-known/oauth-protected-resource/mcp", OPENID, "/.well-known/oauth-authorization-server"),
        missing=(OPENID,),
    ),
    Recording("ChatGPT", "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct", "oauth_s_68f0c1"),
)
