"""interlock check reads the documents of the folder of workflows."""

from pathlib import Path

import pytest

from tests.fakes.workflows import document
from tests.gateway.cli.conftest import CommandLine


def test_check_tells_every_mistake_of_every_document(interlock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "interlock.yaml").write_text("workflows: ./flows\n")
    (tmp_path / "flows" / "good.yaml").write_text(document("good", "do:\n- say: {set: {a: 1}}\n"))
    (tmp_path / "flows" / "good.test.yaml").write_text("cases: []\n")
    assert interlock("check").code == 0
    found = {each["name"]: each for each in interlock("check", "--json").json["checks"]}
    assert found["workflows"]["ok"] and found["workflows"]["detail"].startswith("1 without mistakes")
    (tmp_path / "flows" / "bad.yaml").write_text(document("schema", "do:\n- a: {set: {a: '${ .a | }'}}\n- b: {wait: PT1S, then: c}\n"))
    (tmp_path / "flows" / "torn.yaml").write_bytes(b"\xff")
    checked = interlock("check", "--json")
    found = {each["name"]: each for each in checked.json["checks"]}
    assert checked.code == 1
    assert all(each in found["workflow bad.yaml"]["detail"] for each in ("line 4  /do/0/a/set/a", "line 5  /do/1/b/then", "/document/name"))
    assert "UTF-8" in found["workflow torn.yaml"]["detail"] and "torn.yaml" in found["workflow torn.yaml"]["todo"]


@pytest.mark.parametrize(("made", "said"), [("", "does not exist"), ("file", "is not a folder")])
def test_a_folder_that_is_none_is_told_before_the_start(interlock: CommandLine, tmp_path: Path, made: str, said: str) -> None:
    if made:
        (tmp_path / "flows").write_text("")
        (tmp_path / "flows").chmod(0o700)
    (tmp_path / "interlock.yaml").write_text("workflows: ./flows\n")
    assert said in interlock("check", "--json").out
    served = interlock("serve", "--port", "1")
    assert served.code == 78 and said in served.err
