"""Questions to people about values that miss their schema: an approval of the exact value, which expires."""

from typing import Final

import msgspec
from msgspec.structs import asdict
from sqlalchemy import func, select

from gateway.state.board.held_values.rows import HeldValue, hold_value
from gateway.state.board.permissions import act_of_writing
from gateway.state.board.problems import BoardFull, BoardValueTooLarge
from gateway.storage.batch import Batch
from gateway.tasks.log import to_rfc3339
from gateway.tasks.notices.feed import Notice, write_notice
from policies.delegation.approval import NotShowable, exact_content_of
from policies.delegation.approval_rows import write_pending
from policies.delegation.rulings import Grant
from policies.ids import new_id
from policies.tables import approvals

PENDING_MAX: Final = 50  # open questions of one person, to which those of policies count
_encode = msgspec.json.Encoder().encode


def ask_about(batch: Batch, held: HeldValue, grant: Grant, seconds: int) -> HeldValue:
    """Stores a value of `build_held_value`, and asks people for at most `seconds` whether it is written.

    Returns it with the id of the approval and its expiry. Raises BoardFull where the person has as many open questions as allowed, and
    BoardValueTooLarge for a value that can't be shown.
    """
    expires = held.at + seconds * 1_000_000
    _check_open_questions(batch, held, grant)
    shown = {"value": held.decode(), "replaces_version": held.base, "problem": held.problem}
    try:
        content = exact_content_of(shown, "")
    except NotShowable:
        raise BoardValueTooLarge(f"The value does not fit the schema of {held.key}, and is too large to be shown to people.") from None
    prompt = f"Write a value of {held.key} that misses its schema?"
    approval_id = new_id("ap")
    write_pending(
        batch,
        {
            "tenant": held.tenant,
            "id": approval_id,
            "owner": held.source.owner,
            "txn": grant.delegation.txn,
            "task_id": held.source.task_id,
            "grant_id": "",
            "decision_id": grant.decision.id,
            "act": _encode(asdict(act_of_writing(held.key))).decode(),
            "chain": _encode(held.source.chain).decode(),
            "definition": "",
            "arguments_hash": content.arguments_hash,
            "arguments": content.arguments,
            "described": f"The value is held back as {held.id}.",
            "policies": "[]",
            "prompt": prompt,
            "needed": 1,
            "created": held.at,
            "expires": expires,
            "errand": "{}",
        },
    )
    body = {"approval": approval_id, "prompt": prompt, "needed": 1, "expires": to_rfc3339(expires)}
    write_notice(batch, Notice(held.tenant, "approval.requested", approval_id, held.source.task_id, held.source.owner, body, held.at))
    return hold_value(batch, msgspec.structs.replace(held, approval_id=approval_id, expires=expires))


def _check_open_questions(batch: Batch, held: HeldValue, grant: Grant) -> None:
    mine = (approvals.c.tenant == held.tenant) & (approvals.c.owner == grant.delegation.principal.owner_key)
    mine &= (approvals.c.state == "pending") & (approvals.c.expires > held.at)
    if batch.connection.execute(select(func.count()).select_from(approvals).where(mine)).scalar_one() >= PENDING_MAX:
        raise BoardFull(f"{PENDING_MAX} questions to people are open in your name already. Have people decide on some of them.")
