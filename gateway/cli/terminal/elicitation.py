"""MCP elicitation at the terminal: a server asks the person during a call to fill in a form, or to open a URL."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.cli import output as screen

HINT = "(Ctrl-D: decline; Ctrl-C: cancel)"
YES_NO_WORDS = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
Action = str  # accept | decline | cancel, as MCP has it


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal. `write` prints text, and ends the line if its second argument is true.

    `read_line` returns a line with its end, or "" at the end of input.
    """

    write: Callable[[str, bool], None]
    read_line: Callable[[], str]

    def ask_form(self, server: str, message: str, schema: Mapping[str, Any]) -> tuple[Action, dict[str, Any] | None]:
        """Asks for the fields of a form (MCP 2026-07-28, elicitation in form mode). Returns the action and the values."""
        self.write(f"{server} asks: {message} {HINT}", True)
        required = schema.get("required") or ()
        content: dict[str, Any] = {}
        try:
            for name, field in (schema.get("properties") or {}).items():
                value = self._ask_field(name, field, name in required)
                if value is not None:
                    content[name] = value
        except (EOFError, KeyboardInterrupt) as end:
            return self._action_on_end(end), None
        if not content and not self._confirm_empty_form():
            return "decline", None
        return "accept", content

    def ask_to_open(self, server: str, message: str, url: str) -> Action:
        """Asks the person to open a URL. The command itself opens nothing."""
        self.write(f"{server} asks you to open a URL: {message} {HINT}", True)
        self.write(f"  {url}", True)
        try:
            self._prompt_line("  press Enter when done: ")
        except (EOFError, KeyboardInterrupt) as end:
            return self._action_on_end(end)
        return "accept"

    def _confirm_empty_form(self) -> bool:
        """Asks whether to send an empty form, which may also be meant as declining."""
        try:
            return YES_NO_WORDS.get(self._prompt_line("  send an empty answer? [y/N]: ").lower(), False)
        except (EOFError, KeyboardInterrupt):
            return False

    def _ask_field(self, name: str, field: Mapping[str, Any], required: bool) -> Any:
        """Asks until the value is valid. Returns None for an optional value that is left out."""
        while True:
            line = self._prompt_line(_field_prompt(name, field, required))
            if not line and "default" in field:
                return field["default"]
            if not line and not required:
                return None
            try:
                return parse_value(line, field)
            except ValueError as error:
                self.write(f"  {error}", True)

    def _prompt_line(self, prompt: str) -> str:
        self.write(prompt, False)
        line = self.read_line()
        if not line:
            raise EOFError
        return line.strip()

    def _action_on_end(self, interruption: BaseException) -> Action:
        self.write("", True)
        return "decline" if isinstance(interruption, EOFError) else "cancel"


def current_terminal() -> Terminal | None:
    """Returns the terminal of this command, or None unless standard input and standard error are a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return Terminal(_write_stderr, sys.stdin.readline)


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C end a question at once; the event loop's own handler would wait for the end of the line."""
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def _write_stderr(text: str, ends_line: bool) -> None:
    sys.stderr.write(screen.printable(text) + ("\n" if ends_line else ""))
    sys.stderr.flush()


def parse_value(text: str, field: Mapping[str, Any]) -> Any:
    """Returns the value of one field (MCP's PrimitiveSchemaDefinition). Raises ValueError with a message for the person."""
    kind = field.get("type")
    if kind == "array":
        return _parse_choices(text, field)
    if offered := choices(field):
        return _parse_choice(text, offered)
    if kind == "boolean":
        if text.lower() not in YES_NO_WORDS:
            raise ValueError("y or n is expected")
        return YES_NO_WORDS[text.lower()]
    if kind in ("integer", "number"):
        return _parse_number(text, field, is_integer=kind == "integer")
    return _parse_text(text, field)


def choices(field: Mapping[str, Any]) -> dict[str, str]:
    """Returns the selectable values with their titles."""
    titled = field.get("oneOf") or field.get("anyOf")
    if titled:
        return {str(option["const"]): str(option.get("title", option["const"])) for option in titled if "const" in option}
    values = [str(value) for value in field.get("enum") or ()]
    names = field.get("enumNames") or ()
    return dict(zip(values, names, strict=True)) if len(names) == len(values) else {value: value for value in values}


def _parse_choices(text: str, field: Mapping[str, Any]) -> list[str]:
    offered = choices(field.get("items") or {})
    chosen = list(dict.fromkeys(_parse_choice(part.strip(), offered) for part in text.split(",") if part.strip()))
    fewest, most = field.get("minItems", 0), field.get("maxItems", len(offered))
    if not fewest <= len(chosen) <= most:
        raise ValueError(f"choose {fewest} to {most} of them, separated by commas")
    return chosen


def _parse_choice(text: str, offered: Mapping[str, str]) -> str:
    """Returns the value of a choice given by position, value or title. Raises ValueError."""
    if text in offered:
        return text
    if re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= len(offered):
        return list(offered)[int(text) - 1]
    found = [value for value, words in offered.items() if words.lower() == text.lower()]
    if len(found) != 1:
        raise ValueError(f"choose one of: {', '.join(offered)}")
    return found[0]


def _parse_number(text: str, field: Mapping[str, Any], *, is_integer: bool) -> float:
    try:
        value = int(text) if is_integer else float(text)
    except ValueError:
        raise ValueError(f"a {'whole ' if is_integer else ''}number is expected") from None
    low, high = field.get("minimum", float("-inf")), field.get("maximum", float("inf"))
    if not low <= value <= high or value in (float("inf"), float("-inf")):
        raise ValueError(f"a number is expected, {_describe_bounds(field, 'minimum', 'maximum') or 'not infinity'}")
    return value


def _parse_text(text: str, field: Mapping[str, Any]) -> str:
    if not text or not field.get("minLength", 0) <= len(text) <= field.get("maxLength", len(text)):
        raise ValueError(f"a text of {_describe_bounds(field, 'minLength', 'maxLength') or 'one character or more'} is expected")
    return text


def _describe_bounds(field: Mapping[str, Any], low: str, high: str) -> str:
    words = [f"{word} {field[name]}" for word, name in (("at least", low), ("at most", high)) if name in field]
    return " and ".join(words)


def _field_prompt(name: str, field: Mapping[str, Any], required: bool) -> str:
    """Returns the prompt of a field: title, description, choices, and the meaning of an empty line."""
    lines = [f"  {field.get('title') or name}" + (f": {field['description']}" if field.get("description") else "")]
    offered = choices(field.get("items") or {}) if field.get("type") == "array" else choices(field)
    for number, (value, words) in enumerate(offered.items(), 1):
        lines.append(f"    {number}  {value}" + ("" if words == value else f"  {words}"))
    hint = "y/n" if field.get("type") == "boolean" else ""
    if "default" in field:
        hint = f"{hint} empty: {screen.format_value(field['default'])}".strip()
    elif not required:
        hint = f"{hint} empty: leave out".strip()
    return "\n".join(lines) + (f" [{hint}]: " if hint else ": ")
