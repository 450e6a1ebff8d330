"""AWS's own client and service models, held against the adapters for Bedrock agents and AgentCore."""

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from tests.vendors.sdk.oracle import Json, Oracle, main

AGENT = re.compile(r"/agents/([^/]+)/agentAliases/([^/]+)/sessions/([^/]+)/text")
RUNTIME = re.compile(r"/runtimes/([^/]+)/(invocations|stopruntimesession)")
SESSION = "x-amzn-bedrock-agentcore-runtime-session-id"
USER = "x-amzn-bedrock-agentcore-runtime-user-id"


def repeat(url: str, exchange: Json) -> bool:
    path, _, query = exchange["path"].partition("?")
    body, headers = exchange["json"], exchange["headers"]
    if found := AGENT.fullmatch(path):
        answer = _client("bedrock-agent-runtime", url).invoke_agent(
            agentId=unquote(found[1]), agentAliasId=unquote(found[2]), sessionId=unquote(found[3]), **_with_bytes(body)
        )
        for _event in answer["completion"]:
            pass
        return True
    if not (found := RUNTIME.fullmatch(path)):
        return False
    told = {"agentRuntimeArn": unquote(found[1]), "runtimeSessionId": headers[SESSION]}
    if qualifiers := parse_qs(query).get("qualifier"):
        told["qualifier"] = qualifiers[0]
    client = _client("bedrock-agentcore", url)
    if found[2] == "stopruntimesession":
        client.stop_runtime_session(**told)
        return True
    told |= {"runtimeUserId": headers[USER]} if USER in headers else {}
    answer = client.invoke_agent_runtime(**told, payload=json.dumps(body), contentType=headers["content-type"], accept=headers["accept"])
    answer["response"].read()
    return True


def _client(service: str, url: str) -> Any:
    config = Config(retries={"total_max_attempts": 1}, inject_host_prefix=False)
    return get_session().create_client(
        service, region_name="eu-central-1", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="secret", config=config
    )


def _with_bytes(body: Json) -> Json:
    """The same parameters with content of files as bytes, as the client takes them."""
    files = body.get("sessionState", {}).get("files")
    if not files:
        return body
    whole: Json = json.loads(json.dumps(body))
    for file in whole["sessionState"]["files"]:
        content = file["source"]["byteContent"]
        content["data"] = base64.b64decode(content["data"])
    return whole


if __name__ == "__main__":
    main(Oracle(repeat, headers=(SESSION, USER, "content-type"), unlisted=("clientToken",), faults=(BotoCoreError, ClientError)))
