"""The operator's folder of policies: where something is wrong with one, whom it will never meet, and that it has changed."""

import os
import shutil
from pathlib import Path

import pytest

from policies.cedar.engine import BadPolicy, PolicyEngine, load_rules
from policies.cedar.files.folder import LINKS, folder_stamp, read_built_in, read_operator_files

ROLES = {"operator": ["*"], "support": ["agent:*"]}


def engine(folder: Path, text: str) -> PolicyEngine:
    (folder / "ours.cedar").write_text(text)
    return PolicyEngine(ROLES, folder)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('permit(principal, action, resource);\n\n// a note; with a "quote\npermit(principal, action resource);\n', 4),
        ('permit(principal, action, resource)\nwhen {\n  context.task == "a;b" &&\n};\npermit(principal, action, resource);', 4),
        ("permit(principal, action, resource);\npermt(principal, action, resource);", 2),
        ("permit(principal, action, resource);\n\nforbid(principal,\n  action", 4),
        ('permit(principal, action, resource);\n\nforbid(principal, action == Action::"call", resource);', 3),
        ("permit(principal, action, resource);\nforbid(principal, action, resource) when { context.scope == 1 };", 2),
    ],
    ids=["no comma", "half a condition", "no effect", "half a policy", "no such action", "no such attribute"],
)
def test_what_is_wrong_with_a_policy_is_said_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "ours.cedar").write_text(text)
    with pytest.raises(BadPolicy) as refused:
        load_rules(ROLES, tmp_path)
    assert (refused.value.file, refused.value.line) == ("ours.cedar", line)
    assert str(refused.value).startswith(f"ours.cedar:{line}: ")


def test_a_policy_about_nobody_is_doubted_with_its_line(tmp_path: Path) -> None:
    rest = ", action, resource);"
    text = f'permit(principal{rest}\nforbid(principal == User::"bob"{rest}\nforbid(principal in Role::"sails"{rest}'
    first, second = engine(tmp_path, text).rules.warnings
    assert first.startswith('ours.cedar:2: User::"bob" matches no principal') and 'principal.subject == "bob"' in first
    assert second.startswith('ours.cedar:3: Role::"sails"')


def test_a_policy_about_somebody_is_not_doubted(tmp_path: Path) -> None:
    rest = ", action, resource);"
    text = f'forbid(principal == User::"default|interlock-development|bob"{rest} forbid(principal in Role::"support"{rest}'
    assert engine(tmp_path, text).rules.warnings == ()


def test_an_engine_is_outdated_from_a_change_of_its_folder_until_it_reads_it(tmp_path: Path) -> None:
    rules = engine(tmp_path, "permit(principal, action, resource);")
    assert not rules.is_outdated
    for change in (
        lambda: (tmp_path / "more.cedar").write_text(""),
        lambda: (tmp_path / "more.cedar").unlink(),
        lambda: shutil.rmtree(tmp_path),
    ):
        change()
        assert rules.is_outdated
        rules.reload()
        assert not rules.is_outdated
    assert not rules.is_healthy
    assert not PolicyEngine(ROLES).is_outdated


def test_the_built_in_rules_are_files_of_cedar() -> None:
    found = dict(read_built_in())
    assert list(found) == sorted(found) and all(name.endswith(".cedar") for name in found)
    assert "forbid" in found["invariants.cedar"]


def test_an_operators_folder_is_its_policies_by_name_and_then_their_links(tmp_path: Path) -> None:
    for name in ("b.cedar", "links.yaml", "a.cedar", "notes.txt", "z.cedar", "other.yaml"):
        (tmp_path / name).write_text(f"of {name} ö", encoding="utf-8")
    assert list(read_operator_files(tmp_path)) == [(name, f"of {name} ö") for name in ("a.cedar", "b.cedar", "z.cedar", "links.yaml")]
    (tmp_path / LINKS).unlink()
    (tmp_path / LINKS).mkdir()  # which is no file of links
    assert [name for name, _ in read_operator_files(tmp_path)] == ["a.cedar", "b.cedar", "z.cedar"]
    (tmp_path / "b.cedar").unlink()
    (tmp_path / "b.cedar").mkdir()
    with pytest.raises(BadPolicy) as refused:
        list(read_operator_files(tmp_path))
    assert (refused.value.file, refused.value.line) == ("b.cedar", 0)


def test_a_file_that_leads_nowhere_is_seen_and_refused(tmp_path: Path) -> None:
    before = folder_stamp(tmp_path)
    (tmp_path / "gone.cedar").symlink_to(tmp_path / "nowhere")
    assert before == () and folder_stamp(tmp_path) == (("gone.cedar", 0, 0, 0),)
    with pytest.raises(BadPolicy, match=r"gone\.cedar"):
        list(read_operator_files(tmp_path))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(BadPolicy, match="is not a folder"):
            list(read_operator_files(path))


def test_a_stamp_changes_with_names_sizes_times_and_the_links(tmp_path: Path) -> None:
    seen = {folder_stamp(tmp_path)}
    for name, text in (("a.cedar", ""), ("a.cedar", "x"), ("b.cedar", ""), ("links.yaml", ""), ("links.yaml", "links: []")):
        (tmp_path / name).write_text(text)
        seen.add(folder_stamp(tmp_path))
    os.utime(tmp_path / "a.cedar", ns=(1, 1))
    seen.add(folder_stamp(tmp_path))
    shutil.copy2(tmp_path / "a.cedar", tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "a.cedar")  # of the same size and time
    seen.add(folder_stamp(tmp_path))
    assert len(seen) == 8
    (tmp_path / "notes.txt").write_text("")
    assert folder_stamp(tmp_path) in seen


def test_a_problem_is_said_with_its_file_and_the_line_it_has() -> None:
    assert str(BadPolicy("a.cedar", "is wrong")) == "a.cedar: is wrong"
    assert str(BadPolicy("a.cedar", "is wrong", 3)) == "a.cedar:3: is wrong"
    assert BadPolicy("a.cedar", "is wrong").line == 0
