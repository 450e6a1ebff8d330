"""workflow init: writes a small document with comments, and its rehearsal."""

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, WrongUsage

DOCUMENT: Final = """\
# yaml-language-server: $schema=workflow.schema.json
# The line above lets an editor check this file, once this was run: interlock workflow schema >workflow.schema.json
#
#   interlock workflow test {name}.yaml    rehearses this document with the cases of {name}.test.yaml; nothing leaves this machine
#   interlock workflow add {name}.yaml     publishes it, or a new version of it
#   interlock workflow run {name} '{{"items": [{{"cents": 250, "quantity": 2}}]}}'
document:
  dsl: 1.0.3  # the version of the Open Workflow Specification
  namespace: examples
  name: {name}  # what clients call it, also as an agent
  version: 1.0.0  # yours; the gateway tells versions apart by their content
  title: Order
  summary: Adds up an order, and asks a person about a large one.

# What a run takes. An input that does not fit is refused before any step.
input:
  schema:
    document:
      type: object
      properties:
        items:
          type: array
          items:
            type: object
            properties: {{cents: {{type: integer}}, quantity: {{type: integer, minimum: 1}}}}
            required: [cents, quantity]
      required: [items]

# Tasks follow each other. Each has a name and works on what the one before it returned, the first one on the input.
do:
# A fixed step: texts of the form ${{ … }} are jq. `export` keeps a value for later tasks, as $context.
- total:
    set: {{cents: '${{ [.items[] | .cents * .quantity] | add // 0 }}'}}
    export: {{as: '$context + {{cents: .cents}}'}}

# Goes to the first task whose condition holds, else to the next one.
- size:
    switch:
    - small: {{when: .cents <= 100000, then: accept}}

# Asks a person. The run waits for days and takes no memory; a denial, or no answer, ends it as failed.
- ask:
    call: gateway.approve
    with:
      prompt: ${{ "Accept an order of \\($context.cents) cents?" }}
      expires: P7D

# An agent of the registry would be asked like this; `interlock agent list` shows the ones that you may use.
# Its answer must fit the schema, or the step fails. Then `words: {{output: {{text: Thank you}}}}` belongs to the answers of the cases.
# - words:
#     call: gateway.agent
#     metadata: {{gateway: {{kind: ai}}}}
#     input: {{schema: {{document: {{type: object}}}}}}
#     with: {{agent: AGENT, input: '${{ {{task: "Thank for the order", cents: $context.cents}} }}'}}
#     output: {{schema: {{document: {{type: object, properties: {{text: {{type: string}}}}, required: [text]}}}}}}

# What the last task returns is what the run returns.
- accept:
    set: {{accepted: true, cents: '${{ $context.cents }}'}}
"""
CASES: Final = """\
# Cases of {name}.yaml: interlock workflow test {name}.yaml
# `answers` are given to steps by their names, an output or an error, after some time, which does not really pass.
cases:
- name: a small order is accepted at once
  input: {{items: [{{cents: 250, quantity: 2}}]}}
  expect: {{output: {{accepted: true, cents: 500}}, notRan: [ask]}}
- name: a large order is accepted once a person approves of it
  input: &large {{items: [{{cents: 90000, quantity: 2}}]}}
  answers: {{ask: {{output: {{approved: true}}, after: P2D}}}}
  expect: {{output: {{accepted: true, cents: 180000}}, ran: [ask]}}
- name: a large order that a person denies is not accepted
  input: *large
  answers: {{ask: {{error: {{type: 'urn:interlock:error:denied', status: 403}}}}}}
  expect: {{status: faulted, notRan: [accept]}}
"""


def init(
    name: Annotated[str, typer.Argument(help="The workflow's name, and the names of the files.", metavar="[NAME]")] = "order",
    as_json: screen.AsJson = False,
) -> None:
    """Write a small workflow to begin with, NAME.yaml, and its rehearsal, NAME.test.yaml. It needs no gateway."""
    _check_name(name)
    files = {Path(f"{name}.yaml"): DOCUMENT, Path(f"{name}.test.yaml"): CASES}
    if existing := [str(file) for file in files if file.exists()]:
        raise CommandFailed(f"{' and '.join(existing)} exist already; nothing is written", f"choose another name: {_command('init')} NAME")
    for file, template in files.items():
        _write_new(file, template.format(name=name))
    document, cases = map(str, files)
    if as_json:
        screen.print_json({"document": document, "cases": cases})
        return
    screen.print_text(f"wrote {document} and {cases}")
    screen.print_note(f"rehearse it: {_command('test', document)}")
    screen.print_note(f"publish it:  {_command('add', document)}")


def _command(*words: str) -> str:
    return shlex.join(["interlock", "workflow", *words])


def _check_name(name: str) -> None:
    """Raises WrongUsage for what no workflow can be called."""
    from gateway.workflows.publishing.files import RESERVED_NAME
    from registry.names import BadName, check_name

    try:
        check_name(name)
    except BadName as error:
        raise WrongUsage(f"no workflow can have the name {name}: {error}", f"for example: {_command('init', 'order')}") from error
    if name == RESERVED_NAME:
        raise WrongUsage(f"{name} is the path of the JSON Schema of documents", f"for example: {_command('init', 'order')}")


def _write_new(file: Path, text: str) -> None:
    """Raises CommandFailed for a file that exists by now, and where none can be written."""
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(text)
    except OSError as error:
        raise CommandFailed(f"{file} was not written: {error.strerror or error}") from error
