"""Names of subjects, such as customer:42. The facts about it are values of the board below customer/42/."""

from typing import Final

from registry.cards.effects import EFFECT_NAME, SUBJECT_NAME

SHOWN_CHARS: Final = 60


class BadSubject(ValueError):
    """The text names no subject; the message says what a name looks like."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:SHOWN_CHARS]!a} is not a subject such as customer:42: a kind of lower-case letters, digits and -, a colon, and an "
            "id that begins with a letter, a digit or _, and goes on with these or . @ -"
        )


class BadEffectName(BadSubject):
    """The text names no effect."""

    def __init__(self, text: str) -> None:
        ValueError.__init__(
            self, f"{text[:SHOWN_CHARS]!a} is not an effect such as outbound-email: lower-case letters, digits and -, or * for all effects"
        )


def check_subject(text: str) -> str:
    """Returns the name of a subject. Nothing is decoded, trimmed or normalized. Raises BadSubject."""
    if not SUBJECT_NAME.fullmatch(text):
        raise BadSubject(text)
    return text


def key_prefix_of(subject: str) -> str:
    """`customer/42/` for customer:42: the board's keys about the subject begin with it."""
    kind, _, own_id = subject.partition(":")
    return f"{kind}/{own_id}/"


def check_effect(text: str) -> str:
    """Returns the name of an effect, or `*` for all effects. Raises BadSubject."""
    if text != "*" and not EFFECT_NAME.fullmatch(text):
        raise BadEffectName(text)
    return text
