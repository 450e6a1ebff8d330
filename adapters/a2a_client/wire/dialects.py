"""What single A2A servers do otherwise than the specification has it, told from what they answered."""

from adapters.contract import VendorRef


def resumes_by_context(ref: VendorRef) -> bool:
    """Whether an answer goes to whichever question is open in the task's context, not to the task that asked.

    LangGraph's A2A resumes the thread. There the thread is the context, and names its tasks: `{contextId}:{run}`.
    """
    return bool(ref.context_id) and ref.task_id.startswith(f"{ref.context_id}:")
