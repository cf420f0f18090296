from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError
from llm_proxy.yaml_file import Value, parse_yaml, read_yaml


def _value(text: str) -> Value:
    """The value of the key `k`."""
    return parse_yaml(f"k: {text}\n".encode(), name="f.yaml").mapping()["k"]


def _refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as refused:
        read()
    return str(refused.value)


def test_values_are_read_as_their_kind() -> None:
    assert _value("some text").text() == "some text"
    assert _value("'1'").text() == "1"
    assert _value("7").whole(0, 10) == 7
    assert _value("yes").flag() is True
    assert _value("false").flag() is False
    assert _value("1m30s").duration() == 90
    assert [item.text() for item in _value("[a, b]").items()] == ["a", "b"]
    assert [_value(text).written() for text in ("1.5", "true", "gpt")] == ["1.5", "true", "gpt"]


@pytest.mark.parametrize(
    ("text", "read", "complaint"),
    [
        ("1", Value.text, "k must be text (put quotes around it), not '1'"),
        ("[1]", Value.text, "k must be text (put quotes around it), not a list"),
        ("", Value.text, "k must be text (put quotes around it), not empty"),
        ("{a: 1}", Value.items, "k must be a list, not a mapping"),
        ("a", Value.mapping, "k must be a mapping of keys to values, not 'a'"),
        ("maybe", Value.flag, "k must be true or false, not 'maybe'"),
        ("[]", Value.written, "k must be a single value, not a list"),
    ],
)
def test_wrong_kind_is_refused(text: str, read: Callable[[Value], object], complaint: str) -> None:
    assert _refusal(lambda: read(_value(text))) == f"f.yaml:1: {complaint}"


@pytest.mark.parametrize("text", ["11", "-1", "1.5", "a", "0x5", "'5'", "1_0", "9" * 5000])
def test_whole_number_out_of_bounds_is_refused(text: str) -> None:
    assert "k must be a whole number from 0 to 10, not" in _refusal(
        lambda: _value(text).whole(0, 10)
    )


@pytest.mark.parametrize("text", ["30", "0s", "25h", ".inf", ".nan", "-1s", "soon", "[1s]"])
def test_duration_without_sense_is_refused(text: str) -> None:
    assert "k must be a duration above zero and up to 24h" in _refusal(
        lambda: _value(text).duration()
    )


def test_error_names_the_path_and_line_within_lists_and_mappings() -> None:
    text = "apis:\n  one:\n    paths:\n      - /a\n      - 5\n"
    document = parse_yaml(text.encode(), name="f.yaml")
    items = document.mapping()["apis"].mapping()["one"].mapping()["paths"].items()
    assert _refusal(items[1].text).startswith("f.yaml:5: apis.one.paths[1] must be text")


def test_unknown_and_repeated_keys_are_refused() -> None:
    document = parse_yaml(b"timeouts:\n  conect: 1\nother:\n  a: {x: 1}\n  a: 2\n", name="f")
    keys = document.mapping(["timeouts", "other"])
    assert _refusal(lambda: keys["timeouts"].mapping(["connect", "idle"])) == (
        "f:2: timeouts.conect is no known key; did you mean connect?"
    )
    assert _refusal(lambda: keys["timeouts"].mapping(["zzz"])).endswith("; known are zzz")
    assert _refusal(keys["other"].mapping) == "f:5: other.a is given twice, first on line 4"


def test_key_that_is_no_text_is_refused() -> None:
    assert _refusal(parse_yaml(b"\n1: a\n", name="f").mapping) == (
        "f:2: a key of the document must be text (put quotes around it), not '1'"
    )


def test_alias_stands_for_its_anchor() -> None:
    keys = parse_yaml(b"a: &x [1]\nb: *x\n", name="f").mapping()
    assert keys["b"].items()[0].whole(0, 9) == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a: [1,\n b: 2", "f:2: this isn't valid YAML: while parsing a flow sequence"),
        (b"ok: 1\n\tb: 1", "f:2: this isn't valid YAML: while scanning"),
        (b"", "f is empty"),
        (b"# nothing\n", "f is empty"),
        (b"a: 1\n---\nb: 1", "f:2: this isn't valid YAML: expected a single document"),
        (b"a: 1\nb: \x01", "f:2: a control character isn't allowed"),
        (b"a: 1\nb: \xff", "f:2: this isn't UTF-8 text"),
        (b"a: *no", "f:1: this isn't valid YAML: found undefined alias"),
        (b"\n" + b"[" * 5000, "f:2: this isn't valid YAML: it is nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(content: bytes, complaint: str) -> None:
    assert _refusal(lambda: parse_yaml(content, name="f")).startswith(complaint)


def test_python_tags_are_only_text(tmp_path: Path) -> None:
    value = _value(f"!!python/object/apply:os.mkdir [{tmp_path}/made]")
    assert "k must be text" in _refusal(value.text)
    assert not (tmp_path / "made").exists()


def test_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    assert "no.yaml can't be read: No such file" in _refusal(
        lambda: read_yaml(tmp_path / "no.yaml")
    )
    assert "can't be read: Is a directory" in _refusal(lambda: read_yaml(tmp_path))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (2**20 + 1))
    assert "larger than 1 MB" in _refusal(lambda: read_yaml(large))


def test_long_value_is_cut_in_the_message() -> None:
    assert len(_refusal(lambda: _value("x" * 5000).flag())) < 150


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_refused(content: bytes) -> None:
    try:
        assert parse_yaml(content, name="f").line >= 1
    except ConfigError as refused:
        assert str(refused).startswith("f")
