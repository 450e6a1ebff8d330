"""What costs are added up by. The command line imports it, so it needs no database."""

from enum import StrEnum


class CostGroup(StrEnum):
    """What costs are added up by."""

    PERSON = "person"
    AGENT = "agent"
    TOOL = "tool"
    WORKFLOW = "workflow"
    RUN = "run"
    STEP = "step"
    TENANT = "tenant"
    DAY = "day"
