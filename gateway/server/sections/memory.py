"""Settings of memory: whether agents are offered it as a server, and how much is remembered."""

from pydantic import BaseModel, ConfigDict, Field

from gateway.server.sections.switch import Switch


class MemorySettings(BaseModel):
    """What is remembered of people and of workflows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: Switch = "auto"  # the built-in MCP server `memory`; auto: where a role mentions memory
    facts: int = Field(2000, ge=1, le=1_000_000)  # most facts of one person, or of one workflow
