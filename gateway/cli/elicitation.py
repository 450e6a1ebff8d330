"""What a server asks of the person at the terminal in the middle of a call (MCP elicitation): a form, or to open an address."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.cli import output as screen

HOW = "(Ctrl-D: say no; Ctrl-C: break off)"
YES = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
Action = str  # accept | decline | cancel, as MCP has it


@dataclass(frozen=True, slots=True)
class Terminal:
    """`say` shows a line, or the beginning of one; `read` gives the next line with its end, "" when the person ended their input."""

    say: Callable[[str, bool], None]
    read: Callable[[], str]

    def form(self, who: str, message: str, schema: Mapping[str, Any]) -> tuple[Action, dict[str, Any] | None]:
        """What the person did, and the values that they gave: MCP 2026-07-28, elicitation in form mode."""
        self.say(f"{who} asks: {message} {HOW}", True)
        required = schema.get("required") or ()
        content: dict[str, Any] = {}
        try:
            for name, field in (schema.get("properties") or {}).items():
                value = self._field(name, field, name in required)
                if value is not None:
                    content[name] = value
        except (EOFError, KeyboardInterrupt) as end:
            return self._ended(end), None
        if not content and not self._agreed():
            return "decline", None
        return "accept", content

    def address(self, who: str, message: str, url: str) -> Action:
        """Nothing is opened here: the person reads the address first."""
        self.say(f"{who} asks you to open an address: {message} {HOW}", True)
        self.say(f"  {url}", True)
        try:
            self._line("  press Enter when you have done so: ")
        except (EOFError, KeyboardInterrupt) as end:
            return self._ended(end)
        return "accept"

    def _agreed(self) -> bool:
        """A form that was left empty may as well be a no."""
        try:
            return YES.get(self._line("  go on? [y/N]: ").lower(), False)
        except (EOFError, KeyboardInterrupt):
            return False

    def _field(self, name: str, field: Mapping[str, Any], required: bool) -> Any:
        """The value, asked for until it fits; None where one that isn't needed is left out."""
        while True:
            given = self._line(_prompt(name, field, required))
            if not given and "default" in field:
                return field["default"]
            if not given and not required:
                return None
            try:
                return value_of(given, field)
            except ValueError as error:
                self.say(f"  {error}", True)

    def _line(self, prompt: str) -> str:
        self.say(prompt, False)
        line = self.read()
        if not line:
            raise EOFError
        return line.strip()

    def _ended(self, end: BaseException) -> Action:
        self.say("", True)
        return "decline" if isinstance(end, EOFError) else "cancel"


def here() -> Terminal | None:
    """The terminal that this command runs at, or None where nobody could read a question or answer it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return Terminal(_show, sys.stdin.readline)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a question, as everywhere; the loop's own handler would wait for the line to end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(text: str, ends: bool) -> None:
    sys.stderr.write(screen.plain(text) + ("\n" if ends else ""))
    sys.stderr.flush()


def value_of(text: str, field: Mapping[str, Any]) -> Any:
    """The value of one field (MCP's PrimitiveSchemaDefinition); ValueError tells the person what it has to be."""
    kind = field.get("type")
    if kind == "array":
        return _several(text, field)
    if offered := choices(field):
        return _choice(text, offered)
    if kind == "boolean":
        if text.lower() not in YES:
            raise ValueError("y or n is expected")
        return YES[text.lower()]
    if kind in ("integer", "number"):
        return _number(text, field, whole=kind == "integer")
    return _text(text, field)


def choices(field: Mapping[str, Any]) -> dict[str, str]:
    """The values that may be chosen, with the words for each."""
    titled = field.get("oneOf") or field.get("anyOf")
    if titled:
        return {str(option["const"]): str(option.get("title", option["const"])) for option in titled if "const" in option}
    values = [str(value) for value in field.get("enum") or ()]
    names = field.get("enumNames") or ()
    return dict(zip(values, names, strict=True)) if len(names) == len(values) else {value: value for value in values}


def _several(text: str, field: Mapping[str, Any]) -> list[str]:
    offered = choices(field.get("items") or {})
    chosen = list(dict.fromkeys(_choice(part.strip(), offered) for part in text.split(",") if part.strip()))
    fewest, most = field.get("minItems", 0), field.get("maxItems", len(offered))
    if not fewest <= len(chosen) <= most:
        raise ValueError(f"choose {fewest} to {most} of them, with commas between")
    return chosen


def _choice(text: str, offered: Mapping[str, str]) -> str:
    """By its place in the list, its value or its words."""
    if text in offered:
        return text
    if re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= len(offered):
        return list(offered)[int(text) - 1]
    found = [value for value, words in offered.items() if words.lower() == text.lower()]
    if len(found) != 1:
        raise ValueError(f"one of these is expected: {', '.join(offered)}")
    return found[0]


def _number(text: str, field: Mapping[str, Any], *, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"a {'whole ' if whole else ''}number is expected") from None
    low, high = field.get("minimum", float("-inf")), field.get("maximum", float("inf"))
    if not low <= value <= high or value in (float("inf"), float("-inf")):
        raise ValueError(f"a number is expected, {_within(field, 'minimum', 'maximum') or 'not infinity'}")
    return value


def _text(text: str, field: Mapping[str, Any]) -> str:
    if not text or not field.get("minLength", 0) <= len(text) <= field.get("maxLength", len(text)):
        raise ValueError(f"a text of {_within(field, 'minLength', 'maxLength') or 'one character or more'} is expected")
    return text


def _within(field: Mapping[str, Any], low: str, high: str) -> str:
    words = [f"{word} {field[name]}" for word, name in (("at least", low), ("at most", high)) if name in field]
    return " and ".join(words)


def _prompt(name: str, field: Mapping[str, Any], required: bool) -> str:
    """The field's title, what it is for, what may be chosen and what an empty line means."""
    lines = [f"  {field.get('title') or name}" + (f": {field['description']}" if field.get("description") else "")]
    offered = choices(field.get("items") or {}) if field.get("type") == "array" else choices(field)
    for number, (value, words) in enumerate(offered.items(), 1):
        lines.append(f"    {number}  {value}" + ("" if words == value else f"  {words}"))
    hint = "y/n" if field.get("type") == "boolean" else ""
    if "default" in field:
        hint = f"{hint} empty: {screen.brief(field['default'])}".strip()
    elif not required:
        hint = f"{hint} empty: leave out".strip()
    return "\n".join(lines) + (f" [{hint}]: " if hint else ": ")
