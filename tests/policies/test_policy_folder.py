"""The operator's folder of policies: where something is wrong with one, whom it will never meet, and that it has changed."""

import shutil
from pathlib import Path

import pytest

from policies.cedar import BadPolicy, PolicyEngine, load

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
        load(ROLES, tmp_path)
    assert (refused.value.file, refused.value.line) == ("ours.cedar", line)
    assert str(refused.value).startswith(f"ours.cedar:{line}: ")


def test_a_policy_about_nobody_is_doubted_with_its_line(tmp_path: Path) -> None:
    rest = ", action, resource);"
    text = f'permit(principal{rest}\nforbid(principal == User::"bob"{rest}\nforbid(principal in Role::"sails"{rest}'
    first, second = engine(tmp_path, text).doubts
    assert first.startswith('ours.cedar:2: User::"bob" is nobody') and 'principal.subject == "bob"' in first
    assert second.startswith('ours.cedar:3: Role::"sails"')


def test_a_policy_about_somebody_is_not_doubted(tmp_path: Path) -> None:
    rest = ", action, resource);"
    text = f'forbid(principal == User::"default|interlock-development|bob"{rest} forbid(principal in Role::"support"{rest}'
    assert engine(tmp_path, text).doubts == ()


def test_an_engine_is_outdated_from_a_change_of_its_folder_until_it_reads_it(tmp_path: Path) -> None:
    rules = engine(tmp_path, "permit(principal, action, resource);")
    assert not rules.outdated
    for change in (
        lambda: (tmp_path / "more.cedar").write_text(""),
        lambda: (tmp_path / "more.cedar").unlink(),
        lambda: shutil.rmtree(tmp_path),
    ):
        change()
        assert rules.outdated
        rules.reload()
        assert not rules.outdated
    assert not rules.healthy
    assert not PolicyEngine(ROLES).outdated
