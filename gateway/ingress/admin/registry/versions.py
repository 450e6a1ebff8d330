"""Versions of agents' cards and servers' definitions, and what each of them changed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.tasks.log import to_rfc3339
from registry.card_history import CardVersion
from registry.drift.comparison import SHOWN_MAX, compare_documents

DEFINITION_LISTS = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}


def version_document(version: CardVersion) -> dict[str, Any]:
    """Returns a version without its content."""
    shown = {"seq": version.seq, "at": to_rfc3339(version.at), "hash": version.hash, "signature": version.signature}
    return shown | {"status": version.status.value, "note": version.note}


def difference_document(versions: Sequence[CardVersion]) -> dict[str, Any]:
    """Returns the first of one or two versions, with what it changed since the other, which is the one before it.

    `previous` is the number of that; None where there is none, or where it is no longer stored.
    """
    version, before = versions[0], versions[1] if len(versions) > 1 else None
    changes = [] if before is None else compare_documents(_comparable(before.card), _comparable(version.card))
    return version_document(version) | {
        "previous": None if before is None else before.seq,
        "differences": [change.to_document() for change in changes[:SHOWN_MAX]],
        "left_out": max(0, len(changes) - SHOWN_MAX),
    }


def _comparable(text: str) -> Mapping[str, Any]:
    """Returns the content of a version as an object in which definitions stand by their names; an empty one for what is no object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    lists = {kind: _by_name(content[kind], key) for kind, key in DEFINITION_LISTS.items() if isinstance(content.get(kind), list)}
    return {**content, **lists}


def _by_name(definitions: list[Any], key: str) -> dict[str, Any]:
    return {str(each[key]): each for each in definitions if isinstance(each, dict) and key in each}
