"""Permissions as options of commands."""

CEILING_HELP = "A permission it may have at most, as agent:sales or tool:crm.*; may be repeated. Replaces all; `none` for nothing."


def parse_permissions(texts_given: list[str] | None) -> list[str] | None:
    """Returns the permissions of one or several options; [] for `none`, None without an option."""
    if not texts_given:
        return None
    texts = [text for each in texts_given for text in each.split()]
    return [] if texts == ["none"] else texts
