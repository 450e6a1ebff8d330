"""How settings are refused: by file, line, name and variable, in plain words, with bounds on every number."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.server.settings import BadSettings, Settings
from gateway.server.settings_sources import load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("INTERLOCK_SERVER__CORS_ORIGINS", "https://app.example.com"), ("INTERLOCK_ROLES", "{a"), ("INTERLOCK_IDENTITY__ISSUERS", "x")],
)
def test_a_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("INTERLOCK_HOST", "127.0.0.1")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as refused:
        load_settings(None)
    assert str(refused.value).startswith(f"{name}: ") and "JSON" in str(refused.value)


def test_a_list_as_json_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_SERVER__CORS_ORIGINS", '["https://app.example.com"]')
    assert list(load_settings(None).server.cors_origins) == ["https://app.example.com"]


def _leaves(model: type[BaseModel], *steps: str) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting that is not part of a list or a mapping, with the steps that lead to it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, *steps, name)
        else:
            yield (*steps, name), field


def _nested(steps: tuple[str, ...], value: object) -> object:
    return {steps[0]: _nested(steps[1:], value)} if steps else value


@pytest.mark.parametrize("value", [{"x": {"y": [1]}}, [{"x": 1}], "wrong value", 1.5, True, -1], ids=repr)
def test_no_words_of_the_validation_library_reach_an_operator(tmp_path: Path, value: object) -> None:
    texts = []
    for steps, _ in _leaves(Settings):
        (tmp_path / "interlock.yaml").write_text(json.dumps(_nested(steps, value)))
        try:
            load_settings(tmp_path / "interlock.yaml")
        except BadSettings as refused:
            texts.append(str(refused))
    assert len(texts) > 10
    assert [text for text in texts if re.search(r"Input|Value error|pydantic|unable to|Field required", text)] == []


def test_every_number_has_an_upper_bound() -> None:
    numbers = {".".join(steps): field for steps, field in _leaves(Settings) if field.annotation in (int, float)}
    assert len(numbers) > 20
    assert [name for name, field in numbers.items() if not any(isinstance(each, Le) for each in field.metadata)] == []


def test_a_variable_of_a_list_is_named_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_AGENTS", '[{"name": "a", "rank": "high"}]')
    with pytest.raises(BadSettings, match=r"agents\[0\]\.rank \(INTERLOCK_AGENTS or a flag\): must be a whole number"):
        load_settings(None)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"what": "agent:sales", "cost_per_run": 1}, "`cost_per_run` needs `what: workflow:NAME`"),
        ({"what": "workflow:refund", "rate": 2, "cost_per_day": 1}, "bounds its costs only, not rate"),
        ({"what": "flow:refund", "cost_per_day": 1}, "workflow:NAME"),
    ],
)
def test_a_limit_of_a_workflow_bounds_costs_only(tmp_path: Path, entry: dict[str, object], problem: str) -> None:
    (tmp_path / "interlock.yaml").write_text(json.dumps({"limits": {"per": [entry]}}))
    with pytest.raises(BadSettings) as refused:
        load_settings(tmp_path / "interlock.yaml")
    assert "limits.per" in str(refused.value) and problem in str(refused.value)
