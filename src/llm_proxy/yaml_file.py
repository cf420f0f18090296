"""YAML whose every value knows its file and line, so that a mistake can be pointed at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from llm_proxy.errors import ConfigError
from llm_proxy.quantities import parse_duration

_LARGEST_FILE = 2**20
_DEEPEST = 20
_TAG = "tag:yaml.org,2002:"
_LONGEST_WAIT = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Value:
    """A node of the document; each method reads it as one kind or raises a ConfigError."""

    name: str  # of the file
    where: str  # in the file: "apis.openai.timeouts"
    node: yaml.Node
    key_line: int = 1  # of the key that this is the value of

    def error(self, rule: str) -> ConfigError:
        """`rule` completes: this value must be …"""
        where = self.where or "the document"
        return self.problem(f"{where} must be {rule}, not {self._shown()}")

    def problem(self, sentence: str) -> ConfigError:
        return ConfigError(f"{self.name}:{self.line}: {sentence}")

    def key_problem(self, sentence: str) -> ConfigError:
        """A problem of the key, or of what is missing under it."""
        return ConfigError(f"{self.name}:{self.key_line}: {sentence}")

    @property
    def line(self) -> int:
        return self.node.start_mark.line + 1

    def _shown(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        if self.is_null():
            return "empty"
        text = str(self.node.value)
        return repr(text if len(text) <= 60 else text[:60] + "…")

    def is_null(self) -> bool:
        return self._is_scalar("null")

    def _is_scalar(self, *kinds: str) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag in {_TAG + k for k in kinds}

    def mapping(self, known: Iterable[str] | None = None) -> dict[str, Value]:
        """By key; an unknown or repeated key is an error. Without `known` any key will do."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("a mapping of keys to values")
        found: dict[str, Value] = {}
        for key_node, value_node in self.node.value:
            key = Value(self.name, f"a key of {self.where or 'the document'}", key_node)
            name = key.text()
            where = f"{self.where}.{name}" if self.where else name
            if name in found:
                first = found[name].key_line
                raise key.problem(f"{where} is given twice, first on line {first}")
            if known is not None and name not in known:
                raise key.problem(f"{where} is no known key{_hint(name, known)}")
            found[name] = Value(self.name, where, value_node, key.line)
        return found

    def items(self) -> list[Value]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("a list")
        return [
            Value(self.name, f"{self.where}[{index}]", node)
            for index, node in enumerate(self.node.value)
        ]

    def text(self) -> str:
        if not self._is_scalar("str"):
            raise self.error("text (put quotes around it)")
        return str(self.node.value)

    def written(self) -> str:
        """A scalar of any kind as it stands in the file: 1, true, gpt-4o."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null():
            raise self.error("a single value")
        return str(self.node.value)

    def flag(self) -> bool:
        if not self._is_scalar("bool"):
            raise self.error("true or false")
        return str(self.node.value).lower() in ("true", "yes", "on")

    def whole(self, lowest: int, highest: int) -> int:
        rule = f"a whole number from {lowest} to {highest}"
        text = str(self.node.value) if self._is_scalar("int") else ""
        if not (text.isascii() and text.isdigit()) or not lowest <= int(text[:12]) <= highest:
            raise self.error(rule)
        return int(text)

    def duration(self) -> float:
        """Seconds."""
        rule = "a duration above zero and up to 24h, like 500ms, 30s or 5m"
        try:
            seconds = parse_duration(str(self.node.value)) if self._is_scalar("str") else math.nan
        except ValueError:
            raise self.error(rule) from None
        if not 0 < seconds <= _LONGEST_WAIT:
            raise self.error(rule)
        return seconds


def _hint(key: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    if close := get_close_matches(key, list(known), n=1):
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}"


def read_yaml(path: Path) -> Value:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror or exc}") from exc
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path} is larger than 1 MB; is it really a provider file?")
    return parse_yaml(content, name=str(path))


class _Loader(yaml.SafeLoader):
    """Gives up on nesting that no provider file has, before it costs seconds."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def parse_yaml(content: bytes, *, name: str) -> Value:
    """`name` is what errors call the document."""
    try:
        text = content.decode("utf-8-sig")
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{name}:{line}: this isn't UTF-8 text; save the file as UTF-8") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError(f"{name}:{line}: a control character isn't allowed in YAML") from exc
    except yaml.MarkedYAMLError as exc:
        raise ConfigError(f"{name}:{_line_of(exc)}: {_explained(exc)}") from exc
    if node is None:
        raise ConfigError(f"{name} is empty; `llm-proxy config show` prints an example")
    return Value(name, "", node)


def _line_of(exc: yaml.MarkedYAMLError) -> int:
    mark = exc.problem_mark or exc.context_mark
    return mark.line + 1 if mark else 1


def _explained(exc: yaml.MarkedYAMLError) -> str:
    words = [word for word in (exc.context, exc.problem) if word]
    return f"this isn't valid YAML: {', '.join(words)}"
