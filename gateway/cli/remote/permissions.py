"""Permissions as options of commands take them."""

CEILING_HELP = "What it may do at most, as agent:sales or tool:crm.*; may be given again. All are replaced; `none` for nothing."


def parse_permissions(texts_given: list[str] | None) -> list[str] | None:
    """Several in one text or in several options; `none` for none at all, None where nothing is given."""
    if not texts_given:
        return None
    texts = [text for each in texts_given for text in each.split()]
    return [] if texts == ["none"] else texts
