"""Tokens of a fine-tuning server and what they cost, as people read them. Whatever the currency, it is not named."""

from __future__ import annotations


def cost_of(n_tokens: int, price_per_million: float | None) -> float | None:
    """Tell what tokens cost; None where the price is not known."""
    return None if price_per_million is None else n_tokens * price_per_million / 1e6


def tokens_text(n_tokens: int, money: float | None) -> str:
    """Say how many tokens are trained, and what they cost where that is known."""
    return f"{n_tokens:,} trained tokens" + ("" if money is None else f" (cost {money_text(money)})")


def money_text(money: float) -> str:
    """Write an amount: to the cent, or to two digits where that is less."""
    return f"{money:,.2f}" if money >= 1 or money == 0 else f"{money:.2g}"
