"""More than 1,600 real operations as tools: those of 21 services of AWS, as botocore (Apache-2.0, a dependency of ours) describes them."""

import html
import re
from typing import Any, Final

from botocore.session import Session

SERVICES: Final = (
    *("s3", "lambda", "iam", "sqs", "sns", "dynamodb", "rds", "kms", "secretsmanager", "ecs", "route53", "cloudformation", "cloudwatch"),
    *("logs", "cognito-idp", "sesv2", "ecr", "translate", "rekognition", "polly", "transcribe"),
)
PROSE_MAX: Final = 4000  # characters
_TAG: Final = re.compile(r"<[^>]*>")


def tools() -> list[dict[str, Any]]:
    """Their definitions, named as `/mcp` names the tools of servers."""
    session = Session()
    models = {service: session.get_service_model(service) for service in SERVICES}
    return [_tool(service, model.operation_model(name)) for service, model in models.items() for name in model.operation_names]


def _tool(service: str, operation: Any) -> dict[str, Any]:
    described = " ".join(html.unescape(_TAG.sub(" ", operation.documentation or "")).split())[:PROSE_MAX]
    members = operation.input_shape.members if operation.input_shape else {}
    schema = {"type": "object", "properties": {name: {} for name in members}}
    return {"name": f"{service}_{operation.name}", "description": described, "inputSchema": schema}
