"""Declared effects: templates of subjects, what arguments make of them, and what is refused."""

from typing import Any

import pytest

from registry.cards.effects import BadEffect, EffectDeclaration, SubjectMissing, effect_documents, parse_effects

MAIL = {"subject": "customer:{arguments.to.customer-id}", "effect": "outbound-email"}


def declared(**members: Any) -> EffectDeclaration:
    return parse_effects({"send": {**MAIL, **members}})["send"]


@pytest.mark.parametrize(("value", "subject"), [(42, "customer:42"), ("42", "customer:42"), ("a.b@c-d_e", "customer:a.b@c-d_e")])
def test_a_text_and_a_whole_number_name_the_same_subject(value: Any, subject: str) -> None:
    assert declared().subject_of({"to": {"customer-id": value}}) == subject


def test_a_subject_has_literals_and_several_arguments() -> None:
    effect = declared(subject="order:{arguments.region}-{arguments.number}")
    assert effect.subject_of({"region": "eu", "number": 7}) == "order:eu-7"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"to": {}},
        {"to": "42"},
        {"to": {"customer-id": None}},
        {"to": {"customer-id": True}},
        {"to": {"customer-id": 4.0}},
        {"to": {"customer-id": ""}},
        {"to": {"customer-id": ["42"]}},
        {"to": {"customer-id": "4/2"}},
        {"to": {"customer-id": "..", "x": 1}},
        {"to": {"customer-id": "4\u0662"}},
        {"to": {"customer-id": "42\n"}},
        {"to": {"customer-id": "x" * 201}},
        {"to": {"customer-id": 10**300}},
    ],
)
def test_arguments_that_name_no_subject_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SubjectMissing):
        declared().subject_of(arguments)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"subject": "customer"}, "subject"),
        ({"subject": "customer:42"}, "subject"),
        ({"subject": "customer:{input.id}"}, "subject"),
        ({"subject": "customer:{arguments}"}, "subject"),
        ({"subject": "customer:{arguments.a"}, "subject"),
        ({"subject": "customer:{arguments.a}}"}, "subject"),
        ({"subject": "{arguments.kind}:{arguments.id}"}, "subject"),
        ({"subject": "c:" + "{arguments.a}" * 5}, "subject"),
        ({"subject": "c:{arguments." + "a." * 9 + "b}"}, "subject"),
        ({"subject": "c:{arguments.a}" + "x" * 200}, "subject"),
        ({"subject": None}, "subject"),
        ({"effect": "Mail"}, "effect"),
        ({"purpose": "a\nb"}, "purpose"),
        ({"claim": 1}, "claim"),
        ({"priority": 1001}, "priority"),
        ({"priority": True}, "priority"),
        ({"cool_down": 60}, "cool_down"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_declaration_that_says_something_else_is_refused(members: dict[str, Any], field: str) -> None:
    with pytest.raises(BadEffect) as refused:
        declared(**members)
    assert refused.value.field == f"effects.send.{field}"


def test_documents_of_declarations_are_what_they_were_made_of() -> None:
    documents = {"send": {**MAIL, "claim": True, "cool_down": 60, "once": True, "priority": 7, "purpose": "x"}, "*": MAIL}
    assert effect_documents(parse_effects(documents)) == documents
