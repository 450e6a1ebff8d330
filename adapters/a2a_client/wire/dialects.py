"""Deviations of single A2A servers from the specification, detected by their responses."""

from adapters.contract import VendorRef


def resumes_by_context(ref: VendorRef) -> bool:
    """Whether an answer reaches whichever question is open in the task's context, rather than the task that asked.

    LangGraph's A2A server resumes the thread, which is the context, and names its tasks `{contextId}:{run}`.
    """
    return bool(ref.context_id) and ref.task_id.startswith(f"{ref.context_id}:")
