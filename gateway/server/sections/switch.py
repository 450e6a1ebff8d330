"""A setting that is `auto`, `on` or `off`. YAML reads an unquoted `on` or `off` as true or false."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def _read_switch(value: Any) -> Any:
    """Returns the word for a boolean, and every other value as it is."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_read_switch)]
