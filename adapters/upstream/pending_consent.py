"""What waits for a person's consent: the message that was not sent, in the ref of its task, which whichever process goes on with."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, structs

from adapters.contract import Ask, Call, ConsentNeeded, Prompt, Ref, Turn, VendorRef
from adapters.task import Message, Part, Role

WAITS: Final = "waits_for_consent"
_waiting: Final = msgspec.json.Decoder(Message).decode


class Unsent(Struct, frozen=True):
    """A message that waits, and what its sending said beside it. `skill` is empty for the tool of a server."""

    message: Message
    skill: str = ""
    accepted_output_modes: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def waits(ref: VendorRef) -> bool:
    """Whether a task waits for a consent, and not for its agent."""
    return WAITS in ref.extra


def parked(turn: Turn, call: Call, needed: ConsentNeeded) -> Ref:
    """The turn as it is kept. The id of the consent stands in place of the agent's own of the task."""
    ref, act = turn.ref or VendorRef(), call.grant.decision.act
    kept = {
        "message": msgspec.json.encode(turn.message).decode(),
        "task_id": ref.task_id,
        "extra": dict(ref.extra),
        "prompts": msgspec.to_builtins(ref.prompts or ()),
        "skill": act.resource.partition("/")[2] if act.kind == "Agent" else "",
        "accepted_output_modes": list(turn.accepted_output_modes),
        "metadata": turn.metadata,
    }
    return Ref(VendorRef(ref.context_id, needed.id, {WAITS: kept}, kept=ref.kept, session=ref.session))


def question(needed: ConsentNeeded) -> Ask:
    """What the person is told."""
    parts = (Part(text=str(needed)), Part(url=needed.url, media_type="text/html"))
    return Ask(Message(f"m-{needed.id}", Role.AGENT, parts), auth=True)


def before(ref: VendorRef) -> VendorRef:
    """The agent's own ids and open prompts, which a consent stands in front of."""
    kept = ref.extra[WAITS]
    prompts = msgspec.convert(kept.get("prompts", ()), tuple[Prompt, ...])
    return VendorRef(ref.context_id, kept["task_id"], kept["extra"], prompts or UNSET, ref.kept, session=ref.session)


def at_agent(ref: VendorRef) -> VendorRef:
    """The agent's own ids and open prompts, whether or not a consent stands in front of them. No task id: it knows no task yet."""
    return before(ref) if waits(ref) else ref


def unsent(ref: VendorRef) -> Unsent:
    """What waits, of a ref that says so."""
    kept = ref.extra[WAITS]
    modes, message = tuple(kept.get("accepted_output_modes", ())), _waiting(kept["message"].encode())
    return Unsent(message, kept.get("skill", ""), modes, kept.get("metadata"))


def unparked(turn: Turn) -> Turn:
    """With the message that waited: what is said meanwhile is for the gateway, which has asked."""
    if turn.ref is None or not waits(turn.ref):
        return turn
    own = before(turn.ref)
    return structs.replace(turn, message=unsent(turn.ref).message, ref=own if own != VendorRef() else None)
