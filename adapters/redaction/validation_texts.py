"""Says in plain words what a value that pydantic refused must be, for settings, options of agents and requests to /api."""

from collections.abc import Mapping
from typing import Any, Final

TEXTS: Final = {  # by pydantic's error type; the members of `ctx` fill the braces
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "none_required": "must be left out",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of at most 19 digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must fit the pattern {pattern}",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "dict_type": "must be a mapping of names to values",
    "mapping_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "json_invalid": "must be JSON",
}


def describe_problem(error: Mapping[str, Any]) -> str:
    """What follows the name of the value in a sentence. `error`: one of `ValidationError.errors()`, with its context."""
    context, text = error.get("ctx") or {}, TEXTS.get(error["type"])
    if text is not None:
        return text.format_map(context)
    problem = str(error["msg"]).removeprefix("Value error, ")
    return problem[:1].lower() + problem[1:]
