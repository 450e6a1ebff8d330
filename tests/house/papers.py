"""What may not stand in any file: hosts of package registries, paths of somebody's machine, addresses in locks."""

import re

# Written in two halves, so that this file keeps its own rule.
HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(?:org|com)", "crates" + r"\.io", "proxy\\.golang" + r"\.org"])
)
PLACES = re.compile(r"(?<![\w.:}/-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me|opt/wh" + r"eels|opt/py" + r"pi)/")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,-]+\])?)==\S+(?: ;.*)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def strangers(path: str, text: str) -> list[str]:
    lines = enumerate(text.splitlines(), 1)
    return [f"{path}:{number}: a host or a place of one machine" for number, line in lines if HOSTS.search(line) or PLACES.search(line)]


def loose_pins(path: str, text: str) -> list[str]:
    """Lines of a lock that are neither an exact pin with hashes after it, nor a hash, nor a comment."""
    lines = text.splitlines()
    problems = [f"{path}:{number}: an address" for number, line in enumerate(lines, 1) if "://" in line]
    for number, line in enumerate(lines, 1):
        if line.strip().startswith("#") or HASH.match(line):
            continue
        following = lines[number] if number < len(lines) else ""
        if not (PIN.match(line) and HASH.match(following)):
            problems.append(f"{path}:{number}: no exact pin with its hashes")
    return problems


def pinned(text: str) -> dict[str, str]:
    """Name to exact version, of a lock."""
    pins = (line.removesuffix(" \\").partition(" ;")[0] for line in text.splitlines() if PIN.match(line))
    return dict(pin.split("==") for pin in pins)
