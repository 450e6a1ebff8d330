"""A Dockerfile as a list of stages, and what is wrong with it."""

import json
import re
from dataclasses import dataclass, field

SECRETS = re.compile(r"password|secret|token|api_?key|credential|private", re.IGNORECASE)


@dataclass
class Stage:
    """One FROM and what follows it, as (word, rest) pairs."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for given, rest in self.steps if given == word]


def stages(text: str) -> list[Stage]:
    """Comments are dropped, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    found: list[Stage] = []
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].steps.append((word, rest.strip()))
    return found


def problems(text: str) -> list[str]:
    """What would make the image unsafe to run: root, secrets in layers, packages without hashes, a shell as first process."""
    found = stages(text)
    last = found[-1]
    return [*_steps(found), *_user(last), *_process(last)]


def _steps(found: list[Stage]) -> list[str]:
    problems = []
    for stage in found:
        problems += [f"a secret in a layer: {rest}" for word, rest in stage.steps if word in ("ENV", "ARG") and SECRETS.search(rest)]
        problems += [f"ADD fetches or unpacks: {rest}" for rest in stage.all("ADD")]
        problems += [f"copies everything: {rest}" for rest in stage.all("COPY") if rest.split()[-2] in (".", "./")]
        for rest in stage.all("RUN"):
            problems += [f"an install without hashes: {part}" for part in rest.split("&&") if _installs(part) and not _locked(part)]
            problems += [f"an unchecked download: {rest}" for _ in re.findall(r"\b(?:curl|wget)\b", rest)]
    return problems


def _installs(command: str) -> bool:
    return re.search(r"\bpip (?:install|wheel)\b", command) is not None


def _locked(command: str) -> bool:
    """With hashes, or a file that is here already and brings nothing with it."""
    return "--require-hashes" in command or ("--no-deps" in command and ("--no-index" in command or "--no-build-isolation" in command))


def _user(last: Stage) -> list[str]:
    users = last.all("USER")
    if not users or not users[-1].isdigit() or int(users[-1]) < 10000:
        return ["runs as root, or as a user that an orchestrator can't check"]
    after = [word for word, _ in last.steps[last.steps.index(("USER", users[-1])) :]]
    return ["writes into the image as the user that runs it"] if {"RUN", "COPY"} & set(after) else []


def _process(last: Stage) -> list[str]:
    problems = []
    for word in ("ENTRYPOINT", "CMD"):
        given = last.all(word)
        if not given or not given[-1].startswith("["):
            problems.append(f"{word} is no list: a shell would swallow SIGTERM")
    if not any("[" in rest for rest in last.all("HEALTHCHECK")):
        problems.append("no healthcheck, or one that needs a shell")
    return problems


def command(text: str) -> list[str]:
    """What the container runs: ENTRYPOINT and CMD."""
    last = stages(text)[-1]
    return [*json.loads(last.all("ENTRYPOINT")[-1]), *json.loads(last.all("CMD")[-1])]
