"""keys create: the first signing key of gateways on several machines."""

from pathlib import Path

from tests.gateway.cli.conftest import CommandLine


def test_the_first_key_is_made_once_and_only_its_owner_reads_it(interlock: CommandLine, tmp_path: Path) -> None:
    made = interlock("keys", "create", "--json")
    (file,) = (tmp_path / "home" / "keys").glob("*.json")
    assert (made.code, file.stem, file.stat().st_mode & 0o077) == (0, made.json["kid"], 0)
    again = interlock("keys", "create")
    assert again.code == 1 and "there are keys in" in again.err and "interlock keys rotate" in again.err
    assert [made.json["kid"]] == [each["kid"] for each in interlock("keys", "list", "--json").json["items"] if each["use"] == "sign"]
