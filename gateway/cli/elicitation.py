"""What a server asks of the person at the terminal in the middle of a call (MCP elicitation): a form, or to open an address."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.cli import output as screen

HINT = "(Ctrl-D: say no; Ctrl-C: break off)"
YES_NO_WORDS = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
Action = str  # accept | decline | cancel, as MCP has it


@dataclass(frozen=True, slots=True)
class Terminal:
    """`say` shows a line, or the beginning of one; `read` gives the next line with its end, "" when the person ended their input."""

    write: Callable[[str, bool], None]
    read_line: Callable[[], str]

    def ask_form(self, server: str, message: str, schema: Mapping[str, Any]) -> tuple[Action, dict[str, Any] | None]:
        """What the person did, and the values that they gave: MCP 2026-07-28, elicitation in form mode."""
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
        """Nothing is opened here: the person reads the address first."""
        self.write(f"{server} asks you to open an address: {message} {HINT}", True)
        self.write(f"  {url}", True)
        try:
            self._prompt_line("  press Enter when you have done so: ")
        except (EOFError, KeyboardInterrupt) as end:
            return self._action_on_end(end)
        return "accept"

    def _confirm_empty_form(self) -> bool:
        """A form that was left empty may as well be a no."""
        try:
            return YES_NO_WORDS.get(self._prompt_line("  go on? [y/N]: ").lower(), False)
        except (EOFError, KeyboardInterrupt):
            return False

    def _ask_field(self, name: str, field: Mapping[str, Any], required: bool) -> Any:
        """The value, asked for until it fits; None where one that isn't needed is left out."""
        while True:
            given = self._prompt_line(_field_prompt(name, field, required))
            if not given and "default" in field:
                return field["default"]
            if not given and not required:
                return None
            try:
                return parse_value(given, field)
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
    """The terminal that this command runs at, or None where nobody could read a question or answer it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return Terminal(_write_stderr, sys.stdin.readline)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a question, as everywhere; the loop's own handler would wait for the line to end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write_stderr(text: str, ends_line: bool) -> None:
    sys.stderr.write(screen.printable(text) + ("\n" if ends_line else ""))
    sys.stderr.flush()


def parse_value(text: str, field: Mapping[str, Any]) -> Any:
    """The value of one field (MCP's PrimitiveSchemaDefinition); ValueError tells the person what it has to be."""
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
        return _parse_number(text, field, whole=kind == "integer")
    return _parse_text(text, field)


def choices(field: Mapping[str, Any]) -> dict[str, str]:
    """The values that may be chosen, with the words for each."""
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
        raise ValueError(f"choose {fewest} to {most} of them, with commas between")
    return chosen


def _parse_choice(text: str, offered: Mapping[str, str]) -> str:
    """By its place in the list, its value or its words."""
    if text in offered:
        return text
    if re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= len(offered):
        return list(offered)[int(text) - 1]
    found = [value for value, words in offered.items() if words.lower() == text.lower()]
    if len(found) != 1:
        raise ValueError(f"one of these is expected: {', '.join(offered)}")
    return found[0]


def _parse_number(text: str, field: Mapping[str, Any], *, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"a {'whole ' if whole else ''}number is expected") from None
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
    """The field's title, what it is for, what may be chosen and what an empty line means."""
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
