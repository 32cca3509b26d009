"""What a model may call. Plain functions: their names, types and first lines say how."""

from typing import Annotated

from chatstream.plugins.bets import prices
from chatstream.plugins.tool import tool


@tool(effect="none")
async def best_price(
    selection: Annotated[str, "what to bet on, such as: Arsenal to win"],
) -> dict[str, str]:
    """The best price for a bet at the moment, as decimal odds, and which bookmaker has it.

    Raises `ValueError`, its text written for the model.
    """
    found = prices.best(selection)
    if found is None:
        raise ValueError(f"there is no price for that. There are prices for: {', '.join(prices.known())}")
    return found._asdict()


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
