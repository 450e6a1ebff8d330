"""Environment variables of lists and mappings: JSON, or an error that names the variable."""

import pytest

from gateway.server.settings import BadSettings
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
