"""The tools for the model. A function's name, parameter types and docstring become the tool's description."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, NamedTuple

from chatstream.plugins.bets import prices
from chatstream.plugins.tool import Ask, Caller, tool

_STAKE: Final = re.compile(r"(?P<before>[€£$])?\s?(?P<amount>[0-9]{1,4}(?:[.,][0-9]{1,2})?)\s?(?P<after>[€£$])?")
# Highest stake, in any currency. The bookmakers are invented, so the value is arbitrary.
_HIGHEST_STAKE: Final = Decimal(1000)
# Allowed difference between the clocks of two processes.
_CLOCKS: Final = timedelta(minutes=1)
# Maximum number of bets that `placed_bets` returns: as many as a person reads in one answer.
_MOST_BETS: Final = 20


@tool(effect="none")
async def best_price(
    selection: Annotated[str, "what to bet on, such as: Arsenal to win"],
) -> dict[str, str]:
    """The best price for a bet at the moment, as decimal odds, which bookmaker has it, and until when it is good.

    Raises `ValueError`, its text written for the model.
    """
    return _price(selection)._asdict() | {"good_until": _text(datetime.now(UTC) + prices.HELD)}


@tool(effect="none")
async def recommend_bet(
    selection: Annotated[str, "what to bet on, such as: Arsenal to win"],
    odds: Annotated[str, "the odds, written as in your answer: 2.10, 11/8 or +150"],
    stake: Annotated[str | None, "how much to stake, such as: €10"] = None,
) -> str:
    """Show a betting slip under your answer. Call it once for each bet that you recommend, and for no other; name the
    same odds and the same stake in your answer.

    It changes nothing: the slip is made of the call when the answer is complete (see `calls`). Raises `ValueError`,
    its text written for the model.
    """
    from chatstream.plugins.bets.reader import decimal

    if not selection.strip():
        raise ValueError("selection must name what to bet on")
    if decimal(odds) is None:
        raise ValueError("odds must be decimal (2.10), fractional (11/8) or American (+150)")
    staked = f", with a stake of {stake}" if stake else ""
    return f"The slip for {selection} at {odds}{staked} is shown when your answer names these odds."


class _Bet(NamedTuple):
    """A bet that can be placed now."""

    price: prices.Price
    stake: str
    pays: str
    left: timedelta  # until the price expires


def _ask(selection: str, odds: str | float, stake: str | float, good_until: str | None = None) -> Ask:
    """Return the question for the user's approval, which ends when the price expires.

    Raises `ValueError` if the bet cannot be placed: then the user is not asked.
    """
    bet = _bet(selection, odds, stake, good_until)
    text = (
        f"Place {bet.stake} on {bet.price.selection} ({bet.price.match}) at {bet.price.odds} with "
        f"{bet.price.bookmaker}. If it wins, {bet.pays} is paid back. The bookmaker and the price are made up."
    )
    return Ask(text=text, seconds=bet.left.total_seconds())


@tool(effect="once", approval="always", approval_timeout=prices.HELD.total_seconds(), ask=_ask)
async def place_bet(
    selection: Annotated[str, "what to bet on, as best_price has just named it"],
    odds: Annotated[str | float, "the odds that best_price has just given"],
    stake: Annotated[str | float, "how much to stake, such as: €10"],
    caller: Caller,
    good_until: Annotated[str | None, "until when that price is good, as best_price has just said"] = None,
) -> dict[str, str]:
    """Place a bet, at a price that best_price has just given. Call best_price first. The user is asked to agree before
    anything is placed, and can do so only as long as the price is good.

    Raises `ValueError`, its text written for the model.
    """
    bet = _bet(selection, odds, stake, good_until)  # checked again: the approval may have taken long
    placed = {
        "bet": caller.key,
        "selection": bet.price.selection,
        "match": bet.price.match,
        "odds": bet.price.odds,
        "bookmaker": bet.price.bookmaker,
        "stake": bet.stake,
        "pays": bet.pays,
        "placed_at": _text(datetime.now(UTC)),
    }
    kept = await caller.storage.put(caller.key, placed)  # a repeated call has the same key, so places no second bet
    found: dict[str, str] = kept.data
    return found


@tool(effect="none")
async def placed_bets(caller: Caller) -> list[dict[str, Any]]:
    """The bets that the user has placed, the newest first."""
    return [bet.data for bet in await caller.storage.newest(_MOST_BETS)]


def _price(selection: str) -> prices.Price:
    found = prices.best(selection)
    if found is None:
        raise ValueError(f"there is no price for that. There are prices for: {', '.join(prices.known())}")
    return found


def _bet(selection: str, odds: str | float, stake: str | float, good_until: str | None) -> _Bet:
    """Check the arguments and return the bet. Raises `ValueError`, its text written for the model."""
    price = _price(selection)
    try:
        same = Decimal(str(odds).strip()) == Decimal(price.odds)
    except InvalidOperation:
        same = False
    if not same:
        raise ValueError(f"the price is {price.odds}, and not {odds}: ask for the best price again")
    try:  # without a time, assume that the price was just quoted
        left = prices.HELD if good_until is None else datetime.fromisoformat(good_until) - datetime.now(UTC)
    except (ValueError, TypeError):
        raise ValueError("good_until must be the time that best_price gave") from None
    if not timedelta() < left <= prices.HELD + _CLOCKS:
        raise ValueError("this price is not good any more: ask for the best price again")
    found = _STAKE.fullmatch(str(stake).strip())
    amount = Decimal(found["amount"].replace(",", ".")) if found else Decimal(0)
    if found is None or (found["before"] and found["after"]) or not 0 < amount <= _HIGHEST_STAKE:
        raise ValueError(f"stake must be an amount of money from €0.01 to €{_HIGHEST_STAKE}, such as €10")
    currency = found["before"] or found["after"] or "€"
    paid = (amount * Decimal(price.odds)).quantize(Decimal("0.01"))
    staked = f"{amount:.2f}" if amount % 1 else f"{amount:.0f}"
    return _Bet(price, f"{currency}{staked}", f"{currency}{paid}", left)


def _text(moment: datetime) -> str:
    """`moment` in RFC 3339. Without fractions of a second, so that a model repeats it correctly."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
