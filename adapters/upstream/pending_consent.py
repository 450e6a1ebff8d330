"""Tasks that wait for a person's consent: the unsent message is stored in the task's ref, so that any process can continue it."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, structs

from adapters.contract import Ask, Call, ConsentNeeded, Prompt, RefLearned, Turn, VendorRef
from adapters.task import Message, Part, Role

PENDING_KEY: Final = "waits_for_consent"
_decode_message: Final = msgspec.json.Decoder(Message).decode


class UnsentMessage(Struct, frozen=True):
    """A message that waits, with the options of its request. `skill` is empty for a server's tool."""

    message: Message
    skill: str = ""
    accepted_output_modes: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def is_pending(ref: VendorRef) -> bool:
    """Whether a task waits for a consent, and not for its agent."""
    return PENDING_KEY in ref.extra


def is_unsent(ref: VendorRef) -> bool:
    """Whether a task waits for a consent with its first message, so that its agent has got nothing of it."""
    return is_pending(ref) and ref_before_consent(ref) == VendorRef()


def pending_ref(turn: Turn, call: Call, consent: ConsentNeeded) -> RefLearned:
    """The turn in the form in which it is stored. The consent's id replaces the agent's task id."""
    ref, act = turn.ref or VendorRef(), call.grant.decision.act
    pending = {
        "message": msgspec.json.encode(turn.message).decode(),
        "task_id": ref.task_id,
        "extra": dict(ref.extra),
        "prompts": msgspec.to_builtins(ref.prompts or ()),
        "skill": act.resource.partition("/")[2] if act.kind == "Agent" else "",
        "accepted_output_modes": list(turn.accepted_output_modes),
        "metadata": turn.metadata,
    }
    waiting_ref = VendorRef(ref.context_id, consent.id, {PENDING_KEY: pending}, kept=ref.kept, is_unused=ref.is_unused, session=ref.session)
    return RefLearned(waiting_ref, consent.id)


def consent_question(consent: ConsentNeeded) -> Ask:
    """The question with the consent page for the person."""
    parts = (Part(text=str(consent)), Part(url=consent.url, media_type="text/html"))
    return Ask(Message(f"m-{consent.id}", Role.AGENT, parts), auth=True)


def ref_before_consent(ref: VendorRef) -> VendorRef:
    """The agent's own ids and open prompts, as they were before the consent was needed."""
    pending = ref.extra[PENDING_KEY]
    prompts = msgspec.convert(pending.get("prompts", ()), tuple[Prompt, ...])
    own = VendorRef(ref.context_id, pending["task_id"], pending["extra"], prompts or UNSET, ref.kept)
    return structs.replace(own, is_unused=ref.is_unused, session=ref.session)


def agent_ref(ref: VendorRef) -> VendorRef:
    """The agent's own ids and open prompts, whether or not a consent is pending. Without a task id, the agent has no task yet."""
    return ref_before_consent(ref) if is_pending(ref) else ref


def unsent_message(ref: VendorRef) -> UnsentMessage:
    """The stored message of a pending ref."""
    pending = ref.extra[PENDING_KEY]
    modes, message = tuple(pending.get("accepted_output_modes", ())), _decode_message(pending["message"].encode())
    return UnsentMessage(message, pending.get("skill", ""), modes, pending.get("metadata"))


def with_pending_message(turn: Turn) -> Turn:
    """The turn with the stored message: messages during a pending consent are for the gateway."""
    if turn.ref is None or not is_pending(turn.ref):
        return turn
    own = ref_before_consent(turn.ref)
    return structs.replace(turn, message=unsent_message(turn.ref).message, ref=own if own != VendorRef() else None)
