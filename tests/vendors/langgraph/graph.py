"""A graph with a fake model: it echoes, asks, fails, takes its time or answers with data, as the first word says."""

import asyncio
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


class State(MessagesState, total=False):
    """`refund`: what a graph has beside its messages."""

    refund: dict[str, Any]


async def answer(state: State) -> dict[str, Any]:
    text = _text(state["messages"][-1].content)
    match text.split()[0]:
        case "approve":
            decision = interrupt({"question": "Refund 42 EUR?", "options": ["yes", "no"]})
            return {"messages": [AIMessage(f"decision was: {decision}")]}
        case "fail":
            raise ValueError("secret path /srv/agents/graph.py")
        case "slow":
            return {"messages": [AIMessage("one moment")]}
        case "struct":
            return {"refund": {"amount": 42, "currency": "EUR"}, "messages": [AIMessage("see the data")]}
        case "see":
            kinds = [block["type"] for block in state["messages"][-1].content]
            return {"messages": [AIMessage(f"saw: {' '.join(kinds)}")]}
        case "count":
            people = sum(message.type == "human" for message in state["messages"])
            return {"messages": [AIMessage(f"you said {people} things")]}
    model = GenericFakeChatModel(messages=iter([AIMessage(f"echo: {text}")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


def rest(state: State) -> str:
    return "linger" if state["messages"][-1].content == "one moment" else END


async def linger(_: State) -> None:
    """Tells the log that it began, and that it was stopped."""
    print("slow began", flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("slow was stopped", flush=True)
        raise


def fork(state: State) -> list[str]:
    return ["first", "second"] if _text(state["messages"][-1].content).startswith("both") else ["answer"]


def first(_: State) -> dict[str, Any]:
    return {"messages": [AIMessage(f"first: {interrupt('Which colour?')}")]}


def second(_: State) -> dict[str, Any]:
    return {"messages": [AIMessage(f"second: {interrupt('Which size?')}")]}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)


builder = StateGraph(State)
for node in (answer, linger, first, second):
    builder.add_node(node.__name__, node)
builder.add_conditional_edges(START, fork)
builder.add_conditional_edges("answer", rest)
graph = builder.compile()
