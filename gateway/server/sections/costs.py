"""Settings of costs: the currency, and what calls of unknown cost reserve."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from registry.cards.prices import as_price_text, check_price

Price = Annotated[str, BeforeValidator(as_price_text), AfterValidator(check_price)]  # an amount such as 0.02


def limit_problem(what: str, bounds: Iterable[str]) -> str:
    """What is wrong with the bounds of one limit of `limits.per`; empty for nothing."""
    if not what.startswith("workflow:"):
        return "`cost_per_run` needs `what: workflow:NAME`" if "cost_per_run" in bounds else ""
    wrong = sorted({*bounds} - {"cost_per_day", "cost_per_run"})
    return f"a limit of a workflow bounds its costs only, not {', '.join(wrong)}; limit its calls with `what: agent:NAME`" if wrong else ""


class TokenPriceSettings(BaseModel):
    """What a million tokens of a model cost by a contract, in `currency`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Price
    output: Price
    cached: Price | None = None  # of input that the vendor had cached; as other input if left out


class CostSettings(BaseModel):
    """The currency in which costs are counted, and what calls of unknown cost reserve. The prices of tokens are in US dollars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    usd_rate: Annotated[Decimal | None, BeforeValidator(as_price_text)] = Field(None, gt=0, le=1_000_000)  # what one US dollar is in it
    reservation: Price = "0.01"  # what a turn of an agent reserves about whose cost nothing is known
    reservation_max: Price = "10"  # the most that an estimate reserves
    models: dict[str, TokenPriceSettings] = {}  # by the name of the model that agents report
    kept_days: int = Field(400, ge=2, le=3650)  # after which the cost of a call is deleted, once its task and its run have ended
    tokens_max: int = Field(10_000_000, ge=1, le=1_000_000_000)  # of a kind in one turn; a report of more is not believed
