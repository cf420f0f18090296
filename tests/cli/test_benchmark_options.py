from __future__ import annotations

import inspect
from dataclasses import fields

from llm_proxy.cli.benchmark import benchmark
from llm_proxy.cli.benchmark_options import Given, was_given


def test_every_option_is_carried_with_the_default_of_the_command() -> None:
    parameters = dict(inspect.signature(benchmark).parameters)
    del parameters["context"]
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        field.name: field.default for field in fields(Given)
    }


def test_what_is_empty_was_not_given() -> None:
    given = Given(base_url="", token=[], requests=5, mock=True)
    names = [field.name for field in fields(Given) if was_given(given, field.name)]
    assert {"requests", "mock"} <= set(names)
    assert not {"base_url", "token", "rate", "find_max"} & set(names)
