"""Writes documents as YAML that people like to read, and that reads back as the same data."""

import re
from typing import Any, Final

import yaml

from gateway.cli.output import UNSAFE

PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./ -]{0,200}")
WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})  # of YAML 1.1 or 1.2, in any case
WIDTH: Final = 10_000  # no text is folded


class DocumentDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, quotes what a reader might take for another type, and has no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: DocumentDumper, text: str) -> yaml.ScalarNode:
    if UNSAFE.search(text):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    if "\n" in text:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    is_plain = PLAIN.fullmatch(text) and text.lower() not in WORDS and not text.endswith(" ")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain or "://" in text else '"')


DocumentDumper.add_representer(str, _represent_text)


def write_documents(documents: list[dict[str, Any]]) -> str:
    """Returns the documents as one text, with `---` between them. Marks that reorder or hide text are escaped: cards are from others."""
    text = yaml.dump_all(documents, Dumper=DocumentDumper, sort_keys=False, allow_unicode=True, width=WIDTH, explicit_start=True)
    return UNSAFE.sub(lambda found: f"\\U{ord(found[0]):08x}", text)  # they occur in quoted texts only
