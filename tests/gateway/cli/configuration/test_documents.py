"""Documents are read from files, folders and standard input; each problem has its file and line, and the gateway is not asked."""

from pathlib import Path

import pytest

from gateway.cli.configuration.documents import Declared, DocumentReader
from gateway.cli.configuration.kinds import AGENT, KINDS, SERVER, VIRTUAL_SERVER
from gateway.cli.configuration.problems import DocumentsRefused
from gateway.cli.configuration.references import resolve_secrets
from gateway.ingress.admin.registry.agents import AgentBody
from gateway.ingress.admin.registry.changes import AgentPatch, ServerPatch
from gateway.ingress.admin.registry.servers import ServerBody
from gateway.ingress.admin.registry.virtual_servers import SelectionBody
from tests.gateway.cli.conftest import CommandLine

FLOW = "document: {dsl: 1.0.3, namespace: n, name: flow, version: 1.0.0}\ndo:\n- a: {set: {b: 1}}\n"
BAD = {
    "kind: Agent\nname: x\nspec: {}\n": ":3: spec needs url or card",
    "kind: Agent\nname: Large\nspec: {url: http://a}\n": ":2: name must be of a-z, 0-9 and -",
    "name: x\nspec: {}\n": ":1: kind must be one of: Agent, Server",
    "kind: Policy\nname: x\nspec: {}\n": ":1: kind must be one of: Agent, Server",
    "kind: Agent\nname: x\nspec: {url: http://a}\nstatus: active\n": ":4: status is no member of a document",
    "kind: Agent\nname: x\nspec:\n  url: http://a\n  status: active\n": ":5: spec.status is no member of the spec of Agent",
    "kind: Server\nname: x\nspec:\n  url: http://a\n  command: sh\n": ":5: spec.command is no member",
    "kind: Agent\nname: x\nspec: [1]\n": ":3: spec must be a mapping",
    "- 1\n": ":1: document must be a mapping",
    "kind: [\n": "is not YAML",
    "kind: Workflow\nname: other\nspec:\n  document: |\n    document: {name: flow}\n": ":4: spec.document must be a workflow whose",
    "kind: Workflow\nname: flow\nspec:\n  document: {a: 1}\n": ":4: spec.document must be the text of the workflow",
    "kind: Workflow\nname: flow\nspec:\n  file: nowhere.yaml\n": ":4: spec.file can't be read: No such file",
    "kind: Workflow\nname: flow\nspec: {document: a, paused: often}\n": ":3: spec.paused must be true or false",
    "kind: Agent\nname: x\nspec:\n  card: file:nowhere.json\n": ":4: spec.card can't be read",
}


def read(*sources: Path | str) -> list[Declared]:
    return DocumentReader().read(map(str, sources))


@pytest.mark.parametrize("text", BAD)
def test_a_problem_names_file_and_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(DocumentsRefused) as refused:
        read(file)
    assert str(file) in refused.value.message and BAD[text] in refused.value.message


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path, interlock: CommandLine) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("kind: Agent\nname: X\nspec: {}\n---\nkind: Nothing\n")
    ran = interlock("apply", "-f", ".", "--json")
    assert (ran.code, ran.err.count("a.yaml") >= 2, ran.err.count("b.yaml") >= 2) == (2, True, True)
    assert '"line":2,"path":"/name"' in ran.err and '"line":5,"path":"/kind"' in ran.err


def test_a_folder_is_read_with_its_folders_in_the_order_of_application(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "front.yaml").write_text("kind: VirtualServer\nname: front\nspec: {tools: [a.b]}\n")
    (tmp_path / "flow.yaml").write_text("kind: Workflow\nname: flow\nspec: {file: inner/text.yaml}\n")
    (tmp_path / "inner" / "text.yaml").write_text(FLOW)
    (tmp_path / "two.yml").write_text(
        "kind: Server\nname: s\nspec: {url: http://s}\n---\n---\nkind: Agent\nname: a\nspec: {url: http://a}\n"
    )
    (tmp_path / ".hidden.yaml").write_text("no: document\n")
    (tmp_path / "notes.txt").write_text("no document")
    found = read(tmp_path)
    assert [each.title for each in found] == ["Agent a", "Server s", "VirtualServer front", "Workflow flow"]
    assert found[-1].spec == {"document": FLOW}


def test_a_file_of_a_folder_that_is_no_document_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Agent\nname: a\nspec: {url: http://a}\n")
    (tmp_path / "values.yaml").write_text("a: 1\n")
    with pytest.raises(DocumentsRefused, match="has no kind, and no document names the file"):
        read(tmp_path)


def test_a_name_may_be_declared_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Agent\nname: a\nspec: {url: http://a}\n---\nkind: Server\nname: a\nspec: {url: http://a}\n")
    with pytest.raises(DocumentsRefused, match=r"a\.yaml:6: name is declared before, as Agent, in .*a\.yaml:1"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("upstream", "where"),
    [
        ("{headers: {Authorization: Bearer abc}}", "spec.upstream.headers.Authorization"),
        ("{auth: {issuer: https://i, client_id: c, client_secret: abc}}", "spec.upstream.auth.client_secret"),
        ("{aws: {secret_access_key: abc}}", "spec.upstream.aws.secret_access_key"),
    ],
)
def test_a_secret_in_a_document_is_refused(upstream: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"kind: Agent\nname: a\nspec:\n  url: http://a\n  upstream: {upstream}\n")
    with pytest.raises(DocumentsRefused, match=f":5: {where} is a secret: write env:NAME") as refused:
        read(tmp_path)
    assert "abc" not in refused.value.message


def test_references_are_replaced_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("KEY", "from-environment")
    given = {"headers": {"A": "env:KEY", "B": "file:key", "C": "stored:", "D": "plain"}, "timeout": 3}
    expected = {"headers": {"A": "from-environment", "B": "from-file", "C": "stored:", "D": "plain"}, "timeout": 3}
    assert resolve_secrets(given, tmp_path) == expected


def test_a_card_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Agent\nname: a\nspec: {card: 'file:cards/a.card'}\n")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "a.card").write_text('{"name": "a"}')
    assert read(tmp_path)[0].spec == {"card": {"name": "a"}}


def test_nothing_to_read_is_wrong_usage(interlock: CommandLine, tmp_path: Path) -> None:
    for arguments in (["apply"], ["diff", "-f", "."], ["diff", "-f", "nowhere.yaml"], ["apply", "-f", "-"]):
        ran = interlock(*arguments)
        assert (ran.code, "documents" in ran.err or "can't be read" in ran.err) == (2, True)


def test_every_member_that_operators_may_set_over_http_can_be_declared() -> None:
    unlisted = {"name", "label", "status"}
    for kind, models in ((AGENT, (AgentBody, AgentPatch)), (SERVER, (ServerBody, ServerPatch)), (VIRTUAL_SERVER, (SelectionBody,))):
        known = {name for model in models for name in model.model_fields} - unlisted - ({"delegation"} if kind is SERVER else set())
        assert known == set(kind.members), kind.name
    assert len(KINDS) == 4
