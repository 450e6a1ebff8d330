"""An MCP server of the legacy era on its standard streams, written by hand; run as a program."""

import json
import os
import subprocess
import sys
from typing import Any

declared: list[Any] = []
answers: dict[int, Any] = {}


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def ask(number: int, method: str, params: Any) -> Any:
    say(id=number, method=method, params=params)
    while number not in answers:
        take(json.loads(sys.stdin.readline()))
    return answers.pop(number)


def called(name: str, arguments: Any, meta: Any) -> str:
    if name == "greet":
        answer = ask(70, "elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}})
        return json.dumps(answer)
    if name == "count":
        for number in (1, 2):
            say(method="notifications/progress", params={"progressToken": meta.get("progressToken"), "progress": number})
        say(method="notifications/message", params={"level": "info", "data": "a secret of this call"})
    if name == "change":
        say(method="notifications/tools/list_changed")
    if name == "big":
        sys.stdout.write("x" * arguments["size"] + "\n")
        sys.stdout.flush()
    if name == "leave":
        os._exit(0)
    if name == "child":
        return str(subprocess.Popen(["/bin/sleep", "600"]).pid)
    return json.dumps(declared)


def take(message: Any) -> None:
    method, number, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method is None:
        answers[number] = message.get("result", message.get("error"))
    elif method == "initialize":
        declared.append(params["capabilities"])
        offered = {"tools": {"listChanged": True}}
        say(id=number, result={"protocolVersion": "2025-06-18", "capabilities": offered, "serverInfo": {"name": "old", "version": "1"}})
    elif method == "tools/list":
        say(id=number, result={"tools": [{"name": "greet", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        text = called(params["name"], params.get("arguments", {}), params.get("_meta", {}))
        say(id=number, result={"content": [{"type": "text", "text": text}]})
    elif number is not None:
        say(id=number, error={"code": -32601, "message": "unknown"})


if __name__ == "__main__":
    print("welcome to a program that prints", flush=True)
    for line in sys.stdin:
        take(json.loads(line))
