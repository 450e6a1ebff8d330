"""Member names: JSON has camelCase, and readers also accept those of the .proto file, as ProtoJSON requires (A2A 1.0 s5.5)."""

import re
from typing import Any, Final

OPAQUE_MEMBERS: Final = frozenset({"data", "metadata"})  # their members are the sender's own
_SNAKE: Final = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")


def with_json_names(value: Any) -> Any:
    """The JSON with every member renamed to its JSON name; the same object if nothing changes."""
    return _rename_members(value) if _has_proto_names(value) else value


def to_json_name(name: str) -> str:
    return _SNAKE.sub(lambda found: found[1].upper(), name)


def _has_proto_names(value: Any) -> bool:
    if type(value) is dict:
        for name, member in value.items():
            if "_" in name:
                return True
            if (type(member) is dict or type(member) is list) and name not in OPAQUE_MEMBERS and _has_proto_names(member):
                return True
        return False
    return any(_has_proto_names(member) for member in value if type(member) is dict or type(member) is list)


def _rename_members(value: Any) -> Any:
    if isinstance(value, dict):
        renamed = {
            to_json_name(name): member if name in OPAQUE_MEMBERS else _rename_members(member)
            for name, member in value.items()
            if "_" in name
        }
        return {
            **renamed,
            **{name: member if name in OPAQUE_MEMBERS else _rename_members(member) for name, member in value.items() if "_" not in name},
        }
    return [_rename_members(member) for member in value] if isinstance(value, list) else value
