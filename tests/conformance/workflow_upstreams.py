"""The public services that the workflow kit's documents call, answered in the process: nothing leaves the machine."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import httpx

from gateway.workflows.interpreter.effects import PreparedCall, StepKey
from gateway.workflows.interpreter.errors import standard_error
from gateway.workflows.rehearsal.effects import ScriptedEffects

PETSTORE, HTTPBIN = "petstore.swagger.io", "httpbin.org"
API = {
    "swagger": "2.0",
    "host": PETSTORE,
    "basePath": "/v2",
    "schemes": ["https"],
    "paths": {
        "/pet/findByStatus": {"get": {"operationId": "findPetsByStatus", "parameters": [{"name": "status", "in": "query"}]}},
        "/pet/{petId}": {"get": {"operationId": "getPetById", "parameters": [{"name": "petId", "in": "path"}]}},
    },
}
_PET = re.compile(r"/v2/pet/([0-9]+)")


def pet(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"pet {number}", "status": "available"}


def answer(request: httpx.Request) -> httpx.Response:
    """What the services answer; 404 for anything that the kit does not call."""
    path = request.url.path
    if request.url.host == HTTPBIN and path.startswith("/basic-auth/"):
        user, password = path.split("/")[2:4]
        wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        known = request.headers.get("authorization") == wanted
        return httpx.Response(200, json={"authenticated": True, "user": user}) if known else httpx.Response(401)
    if request.url.host == PETSTORE:
        if path == "/v2/swagger.json":
            return httpx.Response(200, json=API)
        if path == "/v2/pet/findByStatus" and request.url.params.get("status") == "available":
            return httpx.Response(200, json=[pet(1), pet(2)])
        if found := _PET.fullmatch(path):
            return httpx.Response(200, json=pet(int(found[1])))
    return httpx.Response(404, json={"message": "not found"})


class ServiceEffects(ScriptedEffects):
    """Effects whose calls of http and openapi reach the services; of others the script's answers."""

    async def call(self, key: StepKey, call: PreparedCall) -> Any:
        if call.function not in ("http", "openapi"):
            return await super().call(key, call)
        response = _answer_to(call)
        if not response.is_success:
            detail = f"{response.request.url} answered {response.status_code}"
            raise standard_error("communication", detail, key.pointer, response.status_code)
        return _output(response, str(call.arguments.get("output", "content")))


def _answer_to(call: PreparedCall) -> httpx.Response:
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        return client.send((_http_request if call.function == "http" else _operation)(client, call.arguments))


def _http_request(client: httpx.Client, given: Mapping[str, Any]) -> httpx.Request:
    headers = dict(given.get("headers") or {})
    if basic := given.get("authentication", {}).get("basic"):
        headers["authorization"] = "Basic " + base64.b64encode(f"{basic['username']}:{basic['password']}".encode()).decode()
    return client.build_request(given["method"].upper(), given["uri"], params=given.get("query"), headers=headers)


def _operation(client: httpx.Client, given: Mapping[str, Any]) -> httpx.Request:
    """The request of an operation of the document that the call names."""
    api = client.get(given["document"]["endpoint"]).json()
    for path, item in api["paths"].items():
        for method, operation in item.items():
            if operation["operationId"] == given["operationId"]:
                query = {}
                for parameter in operation["parameters"]:
                    value = given["parameters"][parameter["name"]]
                    if parameter["in"] == "path":
                        path = path.replace("{" + parameter["name"] + "}", str(value))
                    else:
                        query[parameter["name"]] = value
                return client.build_request(method.upper(), f"https://{api['host']}{api['basePath']}{path}", params=query)
    raise LookupError(given["operationId"])


def _output(response: httpx.Response, wanted: str) -> Any:
    """The output of a call in the form that the document asks for."""
    content = response.json()
    if wanted == "content":
        return content
    if wanted == "raw":
        return base64.b64encode(response.content).decode()
    request = response.request
    sent = {"method": request.method, "uri": str(request.url), "headers": dict(request.headers)}
    return {"request": sent, "headers": dict(response.headers), "statusCode": response.status_code, "content": content}
