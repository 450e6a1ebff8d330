"""Settings of costs: the currency, and what calls of unknown cost reserve."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from registry.cards.prices import parse_price


def as_text(value: Any) -> Any:
    """Numbers of a YAML file as the text that was written, so that none becomes a double."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_price(text: str) -> str:
    """Returns the text of a price. Raises ValueError for a text that is none."""
    parse_price(text)
    return text


Price = Annotated[str, BeforeValidator(as_text), AfterValidator(_check_price)]  # an amount such as 0.02


class CostSettings(BaseModel):
    """The currency in which costs are counted, and what calls of unknown cost reserve. The prices of tokens are in US dollars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    usd_rate: Annotated[Decimal | None, BeforeValidator(as_text)] = Field(None, gt=0, le=1_000_000)  # what one US dollar is in it
    reservation: Price = "0.01"  # what a turn of an agent reserves about whose cost nothing is known
    reservation_max: Price = "10"  # the most that an estimate reserves
    tokens_max: int = Field(10_000_000, ge=1, le=1_000_000_000)  # of a kind in one turn; a report of more is not believed
