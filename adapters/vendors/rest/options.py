"""The operator's description of an agent with a JSON API: request templates, and expressions for its responses."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters.contract import InvalidAnswer, Prompt, PromptKind, Turn, VendorRef
from adapters.task import Part
from adapters.vendors.rest.expressions import BadExpression, check_pointer_fits, compile_expression, fill_template
from adapters.vendors.sdk.agent import Features, OpenQuestions, VendorOptions
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.frames import UNREADABLE_TEXT

PATH_NAMES: Final = ("user", "session", "run", "prompt", "token")  # placeholders of a path
PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")


BOOLEAN_SCHEMA: Final = {"type": "boolean"}


class PathValueMissing(InvalidAnswer):
    """A path has a placeholder for a value that the agent did not send."""


def _check_expression(text: str) -> str:
    compile_expression(text)
    return text


def _check_path(path: str) -> str:
    rest = PLACEHOLDER.sub("", path)
    if not re.fullmatch(r"/[!-~]*", path) or any(letter in rest for letter in "{}#\\"):
        raise BadExpression("is not a path below the agent's URL")
    if not set(PLACEHOLDER.findall(path)) <= set(PATH_NAMES):
        raise BadExpression(f"has a placeholder other than: {', '.join(PATH_NAMES)}")
    return path


Expression = Annotated[str, AfterValidator(_check_expression)]
State = Annotated[str, Field(max_length=100)] | bool | int


class StrictRestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RequestTemplate(StrictRestModel):
    """A request: `body` with the values of `fill` at their pointers. Placeholders in the path are replaced by quoted values."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: Annotated[str, Field(max_length=500), AfterValidator(_check_path)]
    body: Any = None
    fill: Mapping[str, Expression] = Field({}, max_length=30)

    @model_validator(mode="after")
    def _check_fillable(self) -> "RequestTemplate":
        for pointer in self.fill:
            check_pointer_fits(self.body, pointer)
        return self

    def build_request(self, context: Mapping[str, Any], accepted_statuses: tuple[int, ...] = ()) -> Request:
        """The request with values of `context`. Raises PathValueMissing."""
        body = UNSET if self.body is None and not self.fill else fill_template(self.body, self.fill, context)
        return Request(
            self.method, PLACEHOLDER.sub(lambda found: _path_value(found[1], context), self.path), body, accepted_statuses=accepted_statuses
        )


def _path_value(name: str, context: Mapping[str, Any]) -> str:
    if not context.get(name):
        raise PathValueMissing(UNREADABLE_TEXT, f"the agent sent no {name}, which the path needs")
    return quote_segment(str(context[name]))


class PollTemplate(RequestTemplate):
    """The request that polls a turn, every `every` seconds, until the response says that it ended."""

    method: Literal["GET", "POST"] = "GET"
    every: float = Field(2.0, ge=0.02, le=600)


class CancelTemplate(RequestTemplate):
    """The request that cancels a turn. `confirms`: a 2xx response means that it stopped; otherwise its state or the next poll's does."""

    confirms: bool = False

    @property
    def needs_run_id(self) -> bool:
        """Whether it needs the turn's id."""
        return "{run}" in self.path or any("run" in each for each in self.fill.values())


class StateWords(StrictRestModel):
    """The values of a status, names of events, and texts such as [DONE] for each state."""

    done: tuple[State, ...] = ()
    failed: tuple[State, ...] = ()
    canceled: tuple[State, ...] = ()
    working: tuple[State, ...] = ()

    def state_for(self, *words: Any) -> str:
        """The state that has one of the words; empty for none. True does not equal 1."""
        for name in ("failed", "canceled", "done", "working"):
            known = [(type(word), word) for word in getattr(self, name)]
            if any((type(word), word) in known for word in words if isinstance(word, str | bool | int)):
                return name
        return ""


class QuestionExpressions(StrictRestModel):
    """Expressions for questions: `each` finds one question or a list; the others are evaluated on each question."""

    each: Expression
    id: Expression = "id"
    text: Expression = "text"
    data: Expression | None = None
    form: Expression | None = Field(None, alias="schema")
    url: Expression | None = None
    token: Expression | None = None
    kind: Literal["input", "approval", "auth"] = "input"

    def find_prompts(self, value: Any) -> Iterator[Prompt]:
        """Yields a response's questions. Without a schema, an approval is answered by a boolean, any other question by a text."""
        questions = compile_expression(self.each)(value) or []
        for number, each in enumerate(questions if isinstance(questions, list) else [questions], 1):
            found = {name: compile_expression(place)(each) for name, place in self if name not in ("each", "kind") and place is not None}
            schema = found.get("form") or (BOOLEAN_SCHEMA if self.kind == "approval" else None)
            name, text, url = str(found.get("id") or f"question-{number}"), str(found.get("text") or ""), str(found.get("url") or "")
            yield Prompt(name, text, found.get("data"), schema, PromptKind(self.kind), url, found.get("token"))


class UsageExpressions(StrictRestModel):
    model: Expression | None = None
    input_tokens: Expression | None = None
    output_tokens: Expression | None = None
    total_tokens: Expression | None = None

    def find_figures(self, value: Any) -> dict[str, Any]:
        found = {name: compile_expression(place)(value) for name, place in self if place is not None}
        return {name: each for name, each in found.items() if isinstance(each, str if name == "model" else int)}


class AnswerExpressions(StrictRestModel):
    """Expressions for a response, or for each event of a stream. `delta`: a piece of text; `output`: the whole output, of any type."""

    run: Expression | None = None
    session: Expression | None = None
    status: Expression | None = None
    states: StateWords = StateWords()
    error: Expression | None = None
    progress: Expression | None = None
    delta: Expression | None = None
    output: Expression | None = None
    files: Expression | None = None
    citations: Expression | None = None
    questions: QuestionExpressions | None = None
    usage: UsageExpressions = UsageExpressions()


class CardDescription(StrictRestModel):
    """The card's content; a GET of `path` checks whether the agent is there."""

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1, max_length=2000)
    path: Annotated[str, Field(max_length=500), AfterValidator(_check_path)] | None = None
    input: Mapping[str, Any] | None = None  # JSON Schema of its input


class RestOptions(VendorOptions):
    """Options. `start` begins a turn, `stream` one with a streamed response, `resume` one with answers (by default `start`).

    `questions`: `each` where an answer names its question or run, so that other questions of the session stay open.
    """

    about: CardDescription
    start: RequestTemplate
    stream: RequestTemplate | None = None
    resume: RequestTemplate | None = None
    poll: PollTemplate | None = None
    cancel: CancelTemplate | None = None
    answer: AnswerExpressions
    questions: Literal["one", "each"] = "one"

    def narrow_features(self, features: Features) -> Features:
        return replace(features, questions=OpenQuestions.EACH) if self.questions == "each" else features

    @model_validator(mode="after")
    def _check_poll_can_end(self) -> "RestOptions":
        if self.poll and not (self.answer.status and self.answer.states.done):
            raise BadExpression("needs answer.status and answer.states.done, since it is polled")
        return self


def build_context(turn: Turn, connection: VendorConnection[RestOptions], session: str) -> dict[str, Any]:
    """The context of the expressions in `fill`."""
    parts, first = turn.message.parts, turn.answers[0] if turn.answers else None
    return {
        "text": "\n".join(part.text for part in parts if isinstance(part.text, str)),
        "data": next((part.data for part in parts if not isinstance(part.text, str) and not _file_content(part)), None),
        "files": [{"name": part.filename, "mediaType": part.media_type, **_file_content(part)} for part in parts if _file_content(part)],
        "user": connection.user,
        "session": session,
        "run": run_id_of(turn.ref) if turn.ref else "",
        "seconds": int(connection.seconds_left),
        "answers": [{"id": each.prompt.id, "value": each.value, "token": each.prompt.token} for each in turn.answers],
        **({"answer": first.value, "prompt": first.prompt.id, "token": first.prompt.token} if first else {}),
    }


def run_id_of(ref: VendorRef) -> str:
    return "" if ref.task_id == ref.context_id else ref.task_id


def _file_content(part: Part) -> dict[str, str]:
    return {name: value for name, value in (("base64", part.raw), ("url", part.url)) if isinstance(value, str)}
