"""Texts that recommend a bet, and above all those that do not."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatstream.plugins.bets.demo import DEMO
from chatstream.plugins.bets.reader import Extractor, extract
from chatstream.plugins.bets.recommendation import Recommendation

Bet = tuple[float, str, str | None, str | None]
MINUS = "\N{MINUS SIGN}"


def bets(text: str) -> list[Bet]:
    return [(bet.odds, bet.odds_text, bet.selection, bet.stake) for bet in extract("answer", text)]


RECOMMENDED: list[tuple[str, Bet]] = [
    (
        "I'd recommend a bet on **Arsenal to win** at odds of 2.10, with a stake of €10.",
        (2.1, "2.10", "Arsenal to win", "€10"),
    ),
    # Opening words do not change the meaning.
    (
        "It is close. And I'd recommend a bet on **the draw** at odds of 3.40, with a stake of €5.",
        (3.4, "3.40", "draw", "€5"),
    ),
    ("But I'd still back Leeds at 5/2.", (3.5, "5/2", "Leeds", None)),
    ("That's why I'd recommend a bet on Leeds to win at odds of 3.00.", (3.0, "3.00", "Leeds to win", None)),
    ("If you ask me, back Leeds to win at odds of 2.40.", (2.4, "2.40", "Leeds to win", None)),
    ("While it is close, I'd recommend a bet on Leeds at odds of 2.40.", (2.4, "2.40", "Leeds", None)),
    ("My advice is to put €10 on Leeds to win at odds of 2.40.", (2.4, "2.40", "Leeds to win", "€10")),
    ("The bet I'd recommend is Leeds to win at odds of 2.40.", (2.4, "2.40", "Leeds to win", None)),
    ("I think you should back Leeds to win at odds of 3.00.", (3.0, "3.00", "Leeds to win", None)),
    # The stake is not part of the name, and points of a game are not a stake.
    ("I recommend placing €10 on Leeds to win at odds of 2.10.", (2.1, "2.10", "Leeds to win", "€10")),
    ("I recommend a €10 bet on Leeds to win at odds of 2.10.", (2.1, "2.10", "Leeds to win", "€10")),
    ("Take the over 210.5 points at -110.", (1.9091, "-110", "over 210.5 points", None)),
    (
        "I'd back the Lakers -4.5 points at -110, as they average 27 points.",
        (1.9091, "-110", "Lakers -4.5 points", None),
    ),
    ("I'd back Jokić to score 25 points at odds of 1.90.", (1.9, "1.90", "Jokić to score 25 points", None)),
    ("I'd back Leeds to win at odds of 2.10 (2 units).", (2.1, "2.10", "Leeds to win", "2 units")),
    # Decimal odds.
    ("I'd back Arsenal to win at 2.10.", (2.1, "2.10", "Arsenal to win", None)),
    ("Bet on Arsenal @ 2.10", (2.1, "2.10", "Arsenal", None)),
    ("Bet on Arsenal @2.10", (2.1, "2.10", "Arsenal", None)),
    ("I recommend Manchester City to win, priced at 1.45.", (1.45, "1.45", "Manchester City to win", None)),
    ("You could consider a bet on the draw at 3.40.", (3.4, "3.40", "draw", None)),
    ("I'd take the 2.10 odds on Arsenal to win.", (2.1, "2.10", "Arsenal to win", None)),
    ("I'd bet on Arsenal at around 2.10.", (2.1, "2.10", "Arsenal", None)),
    ("I'd suggest backing Djokovic in straight sets (odds: 1.95).", (1.95, "1.95", "Djokovic in straight sets", None)),
    ("I recommend a bet on Real Madrid with odds currently around 1.80.", (1.8, "1.80", "Real Madrid", None)),
    ("I recommend a bet on Sinner at odds of 2,10.", (2.1, "2,10", "Sinner", None)),
    ("Bet on **over 2.5 goals** at 1.85.", (1.85, "1.85", "over 2.5 goals", None)),
    ("I'd back Arsenal -1.5 on the handicap at 2.75.", (2.75, "2.75", "Arsenal -1.5 on the handicap", None)),
    ("Back Arsenal draw no bet at 1.65.", (1.65, "1.65", "Arsenal draw no bet", None)),
    ("I'd back Arsenal vs. Chelsea to end level at 3.30.", (3.3, "3.30", "Arsenal vs. Chelsea to end level", None)),
    ("I recommend a bet at odds of 2.10.", (2.1, "2.10", None, None)),
    ("I'd back `Arsenal` at **2.10**!", (2.1, "2.10", "Arsenal", None)),
    ("I'd back [Arsenal to win](https://example.com/a_b) at 2.10.", (2.1, "2.10", "Arsenal to win", None)),
    ("You could go for Haaland to score anytime at 4/5.", (1.8, "4/5", "Haaland to score anytime", None)),
    ("My top pick is the **Boston Celtics** at **-150** odds.", (1.6667, "-150", "Boston Celtics", None)),
    # Fractional odds.
    ("A bet on Red Rum to win at 5/2 looks sensible.", (3.5, "5/2", "Red Rum to win", None)),
    ("I'd back Leeds at 11/10.", (2.1, "11/10", "Leeds", None)),
    ("I recommend Red Rum at odds of 11-10.", (2.1, "11-10", "Red Rum", None)),
    ("I recommend Red Rum at odds of 5 to 1.", (6.0, "5 to 1", "Red Rum", None)),
    ("I like Brazil to win the World Cup at odds of 9/2.", (5.5, "9/2", "Brazil to win the World Cup", None)),
    ("I'd back Red Rum each way at 100/1.", (101.0, "100/1", "Red Rum each way", None)),
    # Even money, said in words.
    ("I'd back Arsenal at evens.", (2.0, "evens", "Arsenal", None)),
    ("I'd bet on Arsenal to win at even money.", (2.0, "even money", "Arsenal to win", None)),
    ("My pick is Liverpool (Evens).", (2.0, "Evens", "Liverpool", None)),
    # American odds.
    ("My pick: **Lakers -3.5** (-110)", (1.9091, "-110", "Lakers -3.5", None)),
    ("I'd take the Celtics moneyline (+150).", (2.5, "+150", "Celtics moneyline", None)),
    (f"I like the Chiefs at {MINUS}110.", (1.9091, f"{MINUS}110", "Chiefs", None)),
    ("Bet the Yankees at +100.", (2.0, "+100", "Yankees", None)),
    ("Best bet: Under 44.5 (-105)", (1.9524, "-105", "Under 44.5", None)),
    # The same odds in another notation are not a second bet.
    ("I'd back Arsenal at 2.10 (+110) with a €10 stake.", (2.1, "2.10", "Arsenal", "€10")),
    ("I'd back Arsenal at 11/10 (2.10).", (2.1, "11/10", "Arsenal", None)),
    # The recommendation comes after the bet.
    ("Arsenal to win at 2.10 is my best bet.", (2.1, "2.10", "Arsenal to win", None)),
    ("The draw looks good value at 3.40.", (3.4, "3.40", "draw", None)),
    ("Both teams to score at 1.75 is worth backing.", (1.75, "1.75", "Both teams to score", None)),
    ("There's value in Spurs at odds of 4.20.", (4.2, "4.20", "Spurs", None)),
    ("The value bet is Spurs to qualify at 4.20.", (4.2, "4.20", "Spurs to qualify", None)),
    # Stakes.
    ("Put €10 on Arsenal to win at 2.10.", (2.1, "2.10", "Arsenal to win", "€10")),
    ("Stake £5.50 on Leeds at 5/2.", (3.5, "5/2", "Leeds", "£5.50")),
    ("I'd back Arsenal at 2.10 - 2 units.", (2.1, "2.10", "Arsenal", "2 units")),
    ("I'd back Arsenal at 2.10 (1.5 units).", (2.1, "2.10", "Arsenal", "1.5 units")),
    ("I'd back Arsenal at 2.10 with a 1-unit stake.", (2.1, "2.10", "Arsenal", "1-unit")),
    ("I'd back Arsenal with a stake of $20 at 2.10.", (2.1, "2.10", "Arsenal", "$20")),
    ("I'd back Arsenal at 2.10, staking 2% of your bankroll.", (2.1, "2.10", "Arsenal", "2% of your bankroll")),
    (
        "I'd back Arsenal at 2.10, risking no more than 2% of your bankroll.",
        (2.1, "2.10", "Arsenal", "no more than 2% of your bankroll"),
    ),
    ("I'd back Arsenal at 2.10, for a potential profit of 2 units.", (2.1, "2.10", "Arsenal", None)),
    (
        "Go with Verstappen to win the race at 1.40 and put €25 on it.",
        (1.4, "1.40", "Verstappen to win the race", "€25"),
    ),
    ("My tip is a single on Benfica @ 1.55 with a stake of 5 units.", (1.55, "1.55", "Benfica", "5 units")),
    ("Here's what I'd bet:\n\n1. Napoli to win @ 1.85 (€10)", (1.85, "1.85", "Napoli to win", "€10")),
    ("My picks:\n\n- **City -1.5** @ 2.05 \u2013 1.5 units", (2.05, "2.05", "City -1.5", "1.5 units")),
    ("I recommend Arsenal @ 2.10 for €10.", (2.1, "2.10", "Arsenal", "€10")),
    ("I'd back Leeds to win at 2.10. A stake of €20 seems sensible.", (2.1, "2.10", "Leeds to win", "€20")),
    ("I'd back Leeds to win at 2.10, stake 3/10.", (2.1, "2.10", "Leeds to win", "3/10")),
    # A name in a heading, its odds below.
    ("**Bet 1: Leeds to win**\n- Odds: 2.10\n- Stake: €10", (2.1, "2.10", "Leeds to win", "€10")),
    # A sentence with "but": each half is read separately.
    ("I'd avoid Chelsea at 3.0, but back Arsenal at 2.10.", (2.1, "2.10", "Arsenal", None)),
    ("I'd back Arsenal at 2.10 because they haven't lost in ten.", (2.1, "2.10", "Arsenal", None)),
    ("I like Arsenal here. The odds are 2.10 at most bookmakers.", (2.1, "2.10", "Arsenal here", None)),
    ("Bet on Arsenal at 2.10. They were 2.30 last week!", (2.1, "2.10", "Arsenal", None)),
    ("Bet on Arsenal at 2.10. Odds were 2.30 last week.", (2.1, "2.10", "Arsenal", None)),
    # Markdown.
    (
        "**Bet:** Arsenal to win\n**Odds:** 2.10\n**Stake:** 2% of your bankroll",
        (2.1, "2.10", "Arsenal to win", "2% of your bankroll"),
    ),
    ("- **Selection:** Draw\n- **Odds:** 12/5\n- **Stake:** 1 unit\n", (3.4, "12/5", "Draw", "1 unit")),
    ("### Best Bet: Arsenal to win @ 2.10\n\nThey are in form.", (2.1, "2.10", "Arsenal to win", None)),
    ("### 🎯 Best Bet\n\n**Arsenal** \u2013 Odds: 2.10 \u2013 Stake: 2 units", (2.1, "2.10", "Arsenal", "2 units")),
    ("**Bet:** Arsenal | **Odds:** 2.10 | **Stake:** €10", (2.1, "2.10", "Arsenal", "€10")),
    ("> **Tip:** Arsenal to win (odds 2.10)", (2.1, "2.10", "Arsenal to win", None)),
    (
        "Recommended bets:\n\n1. **Arsenal to win**\n   - Odds: 5/2\n   - Stake: €10\n   - Reason: they haven't lost",
        (3.5, "5/2", "Arsenal to win", "€10"),
    ),
    (
        "| Match | Bet | Odds | Stake |\n|---|:--:|---|---|\n| ARS v CHE | **Arsenal to win** | 2.10 | €10 |",
        (2.1, "2.10", "Arsenal to win", "€10"),
    ),
    ("| Odds | Pick |\n|---|---|\n| +150 | Lakers |", (2.5, "+150", "Lakers", None)),
]


@pytest.mark.parametrize(("text", "bet"), RECOMMENDED, ids=[text[:50] for text, _ in RECOMMENDED])
def test_a_recommended_bet_is_found_as_it_was_written(text: str, bet: Bet) -> None:
    assert bets(text) == [bet]


NOT_RECOMMENDED = [
    # These texts could also be about a wine.
    "I think Arsenal at 2.10 offers great value.",
    # No bet, or no odds.
    "",
    "The alphabet has 26 letters.",
    "Arsenal are better than Chelsea.",
    "Betting is risky, so only bet what you can afford to lose.",
    "I'd bet on Arsenal to win.",
    "I'd recommend a bet on Arsenal, who won 2-1.",
    "I'd back Arsenal after that 2-1 win at Anfield.",
    "Bet on the match on 11/2.",
    "You can bet 24/7 on their site.",
    "I'd bet on Arsenal with a 55% chance of winning.",
    "Bet $2.50 on Arsenal.",
    "I'd back Arsenal at $2.50.",
    "I'd back Arsenal to win the 24/25 season.",
    "I'd back Arsenal at 24/25 season prices.",
    "I like how Arsenal press at 3/4 of the pitch.",
    "Bet on Arsenal, kick-off at 15:30.",
    "Bet on Arsenal, kick-off at 7.30.",
    "I'd back Arsenal at 7.30 pm.",
    "I'd bet on over 2.5 goals.",
    "I'd bet on the over at 2.5.",
    "Back the total goals line at 2.5.",
    "I recommend version 2.0 of the app.",
    "I'd take Arsenal at 1.85 goals per game.",
    "I'd bet on Arsenal (2.10).",
    "I'd bet on Arsenal (11/2).",
    "I'd take the Lakers (-3.5).",
    "I'd bet on Arsenal and Chelsea is at odds with that.",
    "Mail tips@2.10 for a bet.",
    "I recommend you back it up on 2026-11-22 at 10.0.0.1.",
    "This evens the score, so I'd bet on Arsenal.",
    # Impossible odds.
    "I'd bet on Arsenal at odds of 1.00.",
    "I'd bet on Arsenal at odds of 0.50.",
    "I'd bet on Arsenal at odds of 0/5.",
    "I'd bet on Arsenal at odds of 5/0.",
    "I'd bet on Arsenal at odds of 10001.0.",
    "I'd bet on Arsenal at odds of +50.",
    "I'd bet on Arsenal at odds of 2.",
    "I'd bet on Arsenal at odds of 150.",
    "I'd bet on Arsenal at odds of 1.80-2.10.",
    "I'd bet on Arsenal at odds of 1.80 to 2.10.",
    "I'd bet on Arsenal at odds of 5/1 on.",
    "I'd bet on Arsenal at odds of 2.10%.",
    "I'd bet on Arsenal at 2,10.",
    "I'd back Arsenal at odds of 2*1*0.5.",
    # Odds without a recommendation.
    "Arsenal are priced at 2.10 and Chelsea at 3.50.",
    "The odds of 2.10 on Arsenal imply a 47.6% chance.",
    "Arsenal are back home, at odds of 2.10.",
    "Arsenal - odds of 2.10.",
    "| Team | Odds |\n|---|---|\n| Arsenal | 2.10 |",
    "Here are the odds:\n- Arsenal (+150)\n- Chelsea (-110)",
    "Recommended bets:\n\nFirst some news.\n\n- Arsenal (+150)",
    "Bet on Arsenal; my confidence is at 7/10.",
    "I'd back Arsenal: they score at 2.10 a game.",
    "Back at 2.10, the share price fell.",
    "I suggest you look at odds of 2.10 or higher before you bet.",
    "I recommend comparing odds: 2.10 at one bookmaker, 2.15 at another.",
    "Arsenal win in 52% of cases, so odds of 2.10 represent value.",
    "I'd bet on Arsenal, fair odds 2.10.",
    # Negation, past, hypothesis, reports about others, questions.
    "I would not bet on Arsenal at 3.0.",
    "I wouldn't bet on Arsenal at odds of 3.0.",
    "I wouldn\N{RIGHT SINGLE QUOTATION MARK}t back Arsenal at 3.0.",
    "I cannot recommend a bet on Arsenal at 3.0.",
    "Avoid betting on Arsenal at 3.0.",
    "I'd steer clear of a bet on Arsenal at 3.0.",
    "Never bet on the draw at 3.40.",
    "Betting on Arsenal at 1.20 is risky.",
    "A bet on Arsenal at 1.20 is a bad bet.",
    "There is no value in backing Arsenal: no bet at 1.20.",
    "Arsenal's odds were 2.10 last week.",
    "I'd bet on Arsenal if the odds rise to 2.50, or at 2.40.",
    "I'd bet on Arsenal once the odds are 2.50.",
    "I'd have liked a bet on Arsenal when the odds were 2.10.",
    "I recommended Arsenal at 2.10 last week.",
    "If you bet €10 on Arsenal at 2.10, you get €21 back.",
    "A €10 bet on Arsenal at 2.10 would return €21.",
    "For example, a bet on Arsenal at 2.10 pays €21 for €10.",
    "Suppose you back Arsenal at 5/2.",
    "Most people bet on Arsenal at 2.10.",
    "Should you bet on Arsenal at 2.10?",
    "Bets to avoid:\n- Arsenal @ 2.10",
    "Recommended bets to avoid:\n- Arsenal @ 2.10",
    "| Bet | Odds |\n|---|---|\n| Draw | ? |\n\n| Team | Odds |\n|---|---|\n| Arsenal | 2.10 |",
]


def answers(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


@pytest.mark.parametrize("case", answers("answers"), ids=lambda case: case["name"])
def test_of_a_whole_answer_nothing_is_shown_that_it_does_not_recommend(case: dict[str, Any]) -> None:
    expected = {bet["odds"]: bet for bet in case["expected"]}
    for bet in extract("answer", case["text"]):
        assert bet.odds_text in expected
        assert all(word in (bet.selection or "") for word in expected[bet.odds_text]["selection"].split())
        assert bet.stake == expected[bet.odds_text]["stake"]


def test_of_what_whole_answers_recommend_most_is_found() -> None:
    wanted = found = 0
    for case in answers("answers"):
        wanted += len(case["expected"])
        found += len(extract("answer", case["text"]))
    assert (wanted, found) == (22, 19)  # the other three are Spanish, French and Arabic


@pytest.mark.parametrize("text", answers("not_recommended"))
def test_what_is_taught_reported_quoted_offered_passed_or_supposed_gives_nothing(text: str) -> None:
    assert bets(text) == []


def test_what_is_recommended_in_so_many_words_is_found() -> None:
    cases = answers("recommended")
    assert (
        sum([bet.odds_text for bet in extract("answer", case["text"])] == case["odds"] for case in cases)
        >= len(cases) - 2
    )
    for case in cases:
        assert {bet.odds_text for bet in extract("answer", case["text"])} <= set(case["odds"])


@pytest.mark.parametrize("text", NOT_RECOMMENDED)
def test_what_is_no_clear_recommendation_gives_nothing(text: str) -> None:
    assert bets(text) == []


def test_a_list_under_a_heading_that_recommends() -> None:
    text = """## Best bets for Saturday

1. **Arsenal to win** @ 2.10 - 2 units
   Chelsea are priced at 3.50.
2. **Over 2.5 goals** (odds: 1.85). Chelsea (+400) will attack.
3. Lakers (+150)

Chelsea (+400)
"""
    assert bets(text) == [
        (2.1, "2.10", "Arsenal to win", "2 units"),
        (1.85, "1.85", "Over 2.5 goals", None),
        (2.5, "+150", "Lakers", None),
    ]


def test_every_bet_of_an_enumeration_counts() -> None:
    text = "My advice: back Djokovic at 1.44, Sinner at 2.20 and Alcaraz at 3.00."
    assert [bet[:3] for bet in bets(text)] == [
        (1.44, "1.44", "Djokovic"),
        (2.2, "2.20", "Sinner"),
        (3.0, "3.00", "Alcaraz"),
    ]


def test_several_bets_in_one_sentence_have_no_common_stake() -> None:
    text = "Back Arsenal at 2.10 and Chelsea at 1.80 with a stake of €10, over Leeds at 9.0."
    assert bets(text) == [(2.1, "2.10", "Arsenal", None), (1.8, "1.80", "Chelsea", None)]


def test_a_summary_repeats_no_bet() -> None:
    text = """I'd back **Arsenal to win** at 2.10 with a €10 stake. I'd also back the draw at 3.40.

In summary: bet on Arsenal at odds of 2.10, and I recommend the draw at 3.40."""
    assert bets(text) == [(2.1, "2.10", "Arsenal to win", "€10"), (3.4, "3.40", "draw", None)]


def test_other_odds_or_another_selection_is_another_bet() -> None:
    text = "Bet on Arsenal at 2.10. Bet on Arsenal at 2.20. Bet on Chelsea at 2.10."
    assert [bet[:3] for bet in bets(text)] == [
        (2.1, "2.10", "Arsenal"),
        (2.2, "2.20", "Arsenal"),
        (2.1, "2.10", "Chelsea"),
    ]


def test_ids_number_the_bets_of_an_answer() -> None:
    found = extract("answer7", "Bet on Arsenal at 2.10. Bet on Chelsea at 3.50.")
    assert [bet.bet_id for bet in found] == ["bet-answer7-1", "bet-answer7-2"]


def test_there_are_twenty_bets_at_most() -> None:
    text = "\n".join(f"Bet on Horse {number} to win at {number}.5." for number in range(2, 40))
    assert len(extract("answer", text)) == 20


def test_what_takes_a_whole_answer_back_is_found_wherever_it_stands() -> None:
    """Jokes, invented bets, disclaimers, quotations, and picks of past years."""
    cases = json.loads((Path(__file__).parent / "taken_back.json").read_text())
    assert [text for text in cases["taken_back"] if bets(text)] == []
    assert [text for text in cases["not_taken_back"] if not bets(text)] == []


def test_a_tip_of_the_demo_model_is_one_though_it_says_that_its_match_is_made_up() -> None:
    assert [len(bets(text)) for text in DEMO.texts] == [1] * len(DEMO.texts)
    assert len(bets(DEMO.answer(DEMO.question))) == 1


def test_what_is_past_hangs_on_when_the_answer_was_written() -> None:
    picks = "## World Cup 2026\n\nMy pick: Brazil to win at odds of 5.50."
    table = "| Date | Pick | Odds |\n|---|---|---|\n| 2026-11-27 | Arsenal to win | 2.10 |"
    season = "## Season 2026/27\n\nMy pick: Leeds to win at odds of 5.50."
    before, after = "6a000000" + "0" * 16, "6b06f718" + "0" * 16  # ids of May and of November 2026
    later = "70000000" + "0" * 16  # of 2029
    for text, found in ((picks, (1, 1, 0)), (table, (1, 1, 0)), (season, (1, 1, 0))):
        assert tuple(len(extract(id_, text)) for id_ in (before, after, later)) == found
    assert extract("6c000000" + "0" * 16, table) == ()  # one day after the date is enough
    assert len(extract("not an id", picks)) == 1


def test_a_selection_is_short_or_left_out() -> None:
    long = " ".join(["Arsenal"] * 30)
    assert bets(f"Bet on {long} at odds of 2.10.") == [(2.1, "2.10", None, None)]


def test_a_very_long_answer_is_not_read_as_what_takes_a_bet_back_may_stand_anywhere() -> None:
    bet, much = "Bet on Arsenal at odds of 2.10.", " They are in form." * 1_000
    assert len(extract("answer", bet + much)) == 1
    assert extract("answer", bet + 12 * much) == ()


def test_another_extractor_can_take_its_place() -> None:
    def none(answer_id: str, text: str) -> tuple[Recommendation, ...]:
        return ()

    extractors: list[Extractor] = [extract, none]
    assert [len(extractor("answer", "Bet on Arsenal at 2.10.")) for extractor in extractors] == [1, 0]


# Any text of a model:

WORDS = [
    *(
        "I'd back",
        "bet on",
        "Best bet:",
        "recommend",
        "Arsenal",
        "over",
        "avoid",
        "**",
        "*",
        "_",
        "`",
        "[",
        "](",
        ")",
        "|",
    ),
    *(
        "odds of",
        "Odds:",
        "odds",
        "at",
        "@",
        "(",
        ")",
        "priced at",
        "stake of",
        "€",
        "%",
        "units",
        "bankroll",
        "and",
        "\n",
    ),
    *("2.10", "2,10", "5/2", "1/0", "+150", "-110", f"{MINUS}110", "evens", "even money", "5 to 1", "9", "0", ".", "/"),
    *(" ", "; ", ", ", ". ", "- ", "1. ", "# ", "\u0662", "\ud800", "\x00", "\u2028"),
]
ANSWERS = st.one_of(
    st.text(st.characters()),  # lone surrogates as well
    st.lists(st.sampled_from(WORDS), max_size=40).map("".join),
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
)


@given(ANSWERS)
@example("bet on Arsenal at odds of 2*1*0.5")
@example("bet on Arsenal at odds of [2](x)[1](x).5")
@example("bet on Arsenal at odds of 2[1](x).5")
def test_every_number_is_in_the_text(text: str) -> None:
    for bet in extract("answer", text):
        assert 1 < bet.odds <= 10_000
        assert re.sub(r"\s+", " ", bet.odds_text) == bet.odds_text
        assert all(number in re.findall(r"[0-9]+", text) for number in re.findall(r"[0-9]+", bet.odds_text))
        assert bet.selection is None or 0 < len(bet.selection) <= 200
        named = re.sub("^ACCA of [0-9]+", "", str(bet.selection))  # the number of combined bets
        assert all(number in text for number in re.findall(r"[0-9]+", f"{named} {bet.stake}"))


@given(ANSWERS)
def test_the_same_text_gives_the_same_bets(text: str) -> None:
    assert extract("answer", text) == extract("answer", text)


@given(st.one_of(st.text(st.characters(exclude_categories=["Nd"])), ANSWERS.map(lambda text: re.sub(r"\d", "x", text))))
def test_a_text_without_numbers_gives_nothing(text: str) -> None:
    assert extract("answer", re.sub("even", "EVERY", text, flags=re.IGNORECASE)) == ()


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            " ",
            "\n",
            "*",
            "_a",
            "[",
            "[a](",
            "|",
            "| a ",
            "1",
            "1.",
            "1/",
            "(",
            "@",
            "at ",
            "odds ",
            "odds of ",
            "bet on ",
        ),
        *(
            "odds: ( : ",
            "best ",
            "1-",
            "€1",
            "€1,",
            "1 to ",
            "I'd ",
            "bet a a a ",
            "at 1.5 ",
            "over at 1.5 ",
            "bet on 1u on ",
        ),
        *(
            "bet on x at 1.5, ",
            "Odds: 1.5\n",
            "- Odds\n",
            "Bet on x at 1.5.\n",
            "is a pick ",
            "x at 1.5 is a a a ",
            "-",
            ">",
        ),
        *("1. ", "stake of ", "stake 1% of a ", "evens", "`*", "a*", ". ", ", but ", "| 1.5 | Bet "),
    ],
)
def test_much_of_anything_is_read_in_linear_time(piece: str) -> None:
    def spent(length: int, form: str) -> float:
        """The CPU time of this thread, in seconds."""
        text = form.format(piece * (length // len(piece)))
        begin = time.thread_time()
        assert len(extract("answer", text)) <= 20
        return time.thread_time() - begin

    for form in ("Bet on {} at odds of 2.10", "| Bet | Odds |\n| {} | 2.10 |"):
        # Four times the text takes four times as long in linear time, sixteen times in quadratic time.
        assert spent(19_900, form) < 8 * spent(4_975, form) + 0.5
