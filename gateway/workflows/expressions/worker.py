"""The worker process that evaluates jq expressions: `python -I worker.py`, with an empty environment.

Reads one JSON object a line, `{"expressions": [text], "input": value, "variables": {name: value}}`, and answers one a line:
`{"values": [value]}`, or `{"failed": index, "problem": text}` for the first expression that failed. With `"compile": true` the
expressions are compiled and not evaluated; the values are null. An expression without a result has the value null; of several results
the first counts. jq can read the environment and files,
run without end and exhaust memory, so the process gives up its rights first and the gateway ends it when it is late.
`"seconds"` of a request is the processor time that it may take; a worker that needs more is ended by SIGPROF.
This file imports nothing of the gateway.
"""

import json
import re
import resource
import signal
import sys
from functools import lru_cache

import jq

MEMORY_MAX = 512 << 20  # bytes of address space
PROBLEM_MAX = 300  # characters of what jq says
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# jq evaluates the same expression to the same value at any time and place: what depends on the clock, the process or files is an error.
FORBIDDEN = (
    "now", "env", "input", "inputs", "debug", "debug(f)", "stderr", "halt", "halt_error", "halt_error(f)", "localtime",
    "strflocaltime(f)", "mktime_local", "input_filename", "input_line_number", "get_search_list", "modulemeta", "getpath_env",
)  # fmt: skip
SHADOWS = "".join(f'def {name}: error("{name.partition("(")[0]} is not available in a workflow");' for name in FORBIDDEN)


def give_up_rights() -> None:
    """Leaves this process its three open files and its memory, and nothing else."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@lru_cache(maxsize=2000)
def compiled(expression: str, names: tuple[str, ...]) -> "jq._Program":
    """The program of an expression in which the variables have these names. Raises ValueError for what is no jq."""
    if any(NAME.fullmatch(name) is None for name in names):
        raise ValueError("a variable has a name that jq does not know")
    bound = "".join(f".variables.{name} as ${name}|" for name in names)
    return jq.compile(f"{SHADOWS}{{}} as $ENV|{bound}.input|(\n{expression}\n)")


def answer(line: str) -> str:
    """The answer to one request, as JSON without its line end."""
    request = json.loads(line)
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # no handler: jq can't be interrupted, so the signal ends the process
    names = tuple(sorted(request["variables"]))
    shared = json.dumps({"input": request["input"], "variables": request["variables"]})
    values = []
    for index, expression in enumerate(request["expressions"]):
        try:
            program = compiled(expression, names)
            first = None if request.get("compile") else next(iter(program.input_text(shared)), None)
            values.append(json.dumps(first, allow_nan=False))
        except (ValueError, RecursionError, MemoryError) as error:
            problem = " ".join(str(error).split())[:PROBLEM_MAX] or type(error).__name__
            return json.dumps({"failed": index, "problem": problem})
    return f'{{"values": [{", ".join(values)}]}}'


def main() -> None:
    give_up_rights()
    for line in sys.stdin:
        sys.stdout.write(answer(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
