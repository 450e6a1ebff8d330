"""Claims of tasks in documents: what is refused at the upload, what they permit, and how rehearsals play them."""

import pytest

from gateway.workflows.dsl.checks import check_document
from gateway.workflows.dsl.loading import read_document
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.state_rights import state_permissions
from gateway.workflows.rehearsal.rehearse import rehearse
from gateway.workflows.rehearsal.script import Rehearsal
from tests.gateway.workflows.documents import source_of

BLOCK = """
- care:
    metadata: {gateway: {claim: {subject: '${ "customer:\\(.id)" }', wait: PT1H}}}
    do:
    - pause: {wait: PT2H}
    - token: {set: {token: '${ $claim.token }'}}
"""


async def problems(evaluator: Evaluator, claim: str) -> list[tuple[str, str]]:
    source = source_of(f"- step: {{set: {{a: '${{ $claim.token }}'}}, metadata: {{gateway: {{claim: {claim}}}}}}}")
    try:
        await check_document(read_document(source), source, evaluator)
    except DocumentRefused as refused:
        return [(each.path.removeprefix("/do/0/step/metadata/gateway/claim/"), each.reason) for each in refused.problems]
    return []


@pytest.mark.parametrize(
    ("member", "claim", "reason"),
    [
        ("subject", "{subject: customer}", "is no subject such as customer:42"),
        ("subject", """{subject: '${ "customer:\\($claim.token)" }'}""", "`$claim` is not defined"),
        ("effect", "{subject: 'customer:42', effect: Mail}", "is no effect such as outbound-email"),
        ("lease", "{subject: 'customer:42', lease: PT1S}", "is not 30 seconds to a day"),
        ("wait", "{subject: 'customer:42', wait: soon}", "is no ISO 8601 duration"),
        ("purpose", '{subject: "customer:42", purpose: "a\\nb"}', "is not one line of text"),
        ("priority", "{subject: 'customer:42', priority: 1001}", "1000"),
    ],
)
async def test_a_bad_claim_is_refused_at_the_upload(evaluator: Evaluator, member: str, claim: str, reason: str) -> None:
    ((place, words),) = await problems(evaluator, claim)
    assert place == member and reason in words


async def test_the_task_of_a_claim_may_use_its_token(evaluator: Evaluator) -> None:
    assert await problems(evaluator, "{subject: 'customer:42', effect: outbound-email, coolDown: P2D}") == []


@pytest.mark.parametrize(
    ("subject", "permission"),
    [
        ("customer:42", "state:write:customer/42/claims"),
        ('${ "customer:\\(.id)" }', "state:write:customer/*"),
        ("${ .subject }", "state:write:*"),
    ],
)
def test_a_claim_permits_the_claims_on_the_subjects_that_it_can_name(subject: str, permission: str) -> None:
    task = f"- step: {{set: {{a: 1}}, metadata: {{gateway: {{claim: {{subject: '{subject}'}}}}}}}}"
    assert list(state_permissions(read_document(source_of(task)))) == [permission]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, {"output": {"token": 1}, "within": "PT2H"}),
        ({"care": {"denied": True}}, {"status": "faulted", "error": {"type": "urn:interlock:error:claim-denied"}, "within": "PT1H"}),
        (
            {"/do/0/care": {"lostAfter": "PT1H"}},
            {"status": "faulted", "error": {"type": "urn:interlock:error:claim-lost"}, "notRan": ["token"]},
        ),
    ],
)
async def test_a_rehearsal_plays_what_becomes_of_a_claim(claims: object, expected: object) -> None:
    case = {"name": "a case", "input": {"id": 42}, "claims": claims, "expect": expected}
    (outcome,) = await rehearse(read_document(source_of(BLOCK)), Rehearsal.model_validate({"cases": [case]}))
    assert outcome.problems == ()
