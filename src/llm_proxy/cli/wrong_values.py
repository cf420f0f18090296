"""What was wrong with a number on the command line: Typer tells the rule, but not the value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

# By type of the validation error that Typer raises from.
_RULES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "int_parsing": lambda limits: "a whole number",
    "int_parsing_size": lambda limits: "a whole number of no more than 4300 digits",
    "float_parsing": lambda limits: "a number",
    "greater_than_equal": lambda limits: f"{limits['ge']:g} or more",
    "less_than_equal": lambda limits: f"{limits['le']:g} or less",
}


def explained(cause: BaseException | None) -> str | None:
    """None: it is none of these."""
    errors: Callable[[], list[dict[str, Any]]] | None = getattr(cause, "errors", None)
    found = errors() if callable(errors) else []
    if not found or found[0]["type"] not in _RULES:
        return None
    rule = _RULES[found[0]["type"]](found[0].get("ctx", {}))
    value = repr(found[0]["input"])
    return f"must be {rule}, not {value if len(value) <= 60 else value[:60] + '…'}"
