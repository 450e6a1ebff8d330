"""A reference MCP server with all kinds of content, templates and completion, and one whose list is another each time."""

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    Completion,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    PromptReference,
    TextContent,
    TextResourceContents,
)

PIXEL = "iVBORw0KGgo="


def corners() -> MCPServer:
    """Tools: mixed (every kind of content), big (so many bytes), visit (asks to visit an address). A prompt, a template, completion."""
    server = MCPServer("corners")

    @server.tool(structured_output=False)
    def mixed() -> list[ContentBlock]:
        return [
            TextContent(type="text", text="words"),
            ImageContent(type="image", data=PIXEL, mime_type="image/png"),
            AudioContent(type="audio", data=PIXEL, mime_type="audio/wav"),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="doc://a", text="inside")),
            EmbeddedResource(type="resource", resource=BlobResourceContents(uri="doc://b", blob=PIXEL)),
        ]

    @server.tool(structured_output=False)
    def big(size: int) -> str:
        return "x" * size

    @server.tool()
    async def visit(context: Context) -> str:
        return (await context.elicit_url("Sign in", "https://sign.example/in", "e-1")).action

    @server.prompt()
    def write(topic: str) -> list[Any]:
        """With text and an image."""
        return [
            {"role": "user", "content": {"type": "text", "text": f"About {topic}"}},
            {"role": "assistant", "content": {"type": "image", "data": PIXEL, "mimeType": "image/png"}},
        ]

    @server.resource("doc://{name}/page")
    def page(name: str) -> str:
        return f"page of {name}"

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        kind = "prompt" if isinstance(ref, PromptReference) else "page"
        return Completion(values=[f"{kind} {argument.value}{end}" for end in ("a", "b")], total=2, has_more=False)

    return server
