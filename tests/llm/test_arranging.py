"""Reasoning is separated from text, wherever the chunks are cut."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatstream import pieces
from chatstream.llm.arranging import Arranger, Tags
from chatstream.pieces import OpenReasoning, OpenText, Piece

THINK, TEXT = OpenReasoning(), OpenText()


def arranged(*said: str | tuple[str], tags: Tags = Tags.RECOGNISED) -> list[Piece]:
    """The pieces for this input: a string is text, a tuple is reasoning from a field of its own."""
    arranger = Arranger(tags)
    made: list[Piece] = []
    for one in said:
        made += arranger.text(one) if isinstance(one, str) else arranger.reasoning(one[0])
    made += arranger.end()
    assert "" not in made
    return made


@pytest.mark.parametrize(
    ("said", "made"),
    [
        (["Hi", " there"], ["Hi", " there"]),
        (["\n", "Hi"], ["\n", "Hi"]),
        (["<", "b>Hi"], ["<", "b>Hi"]),
        (["<thi"], ["<thi"]),
        (["", "Hi", ""], ["Hi"]),
        ([("Hm.",), "Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        ([("H",), ("m.",), "H", "i"], [THINK, "H", "m.", TEXT, "H", "i"]),
        (["<think>Hm.</think>Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["\n<th", "ink>\nH", "m.</th", "ink>", "\n\n", "Hi"], [THINK, "H", "m.", TEXT, "Hi"]),
        (["<THINKING>Hm.</Thinking> Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["[THINK]Hm.[/THINK]Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["◁think▷Hm.◁/think▷Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        # Models that write their tags letter by letter vary them.
        (["<think >Hm.</think >Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["< think>Hm.< / think>Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["<think", ' effort="low"', ">Hm.", "</think", "\n>Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["<think />Hi"], ["Hi"]),
        (["<think/>", "Hi"], ["Hi"]),
        (["<thinker>Hi"], ["<thinker>Hi"]),
        (["<think about it", " <b>"], ["<think about it", " <b>"]),
        (
            ["<|begin_of_thought|>Hm.<|end_of_thought|>\n<|begin_of_solution|>Hi<|end_of_solution|>"],
            [THINK, "Hm.", TEXT, "Hi"],
        ),
        (["<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        (["<think>Hm.</think>\n<answer>Hi</ans", "wer>\n"], [THINK, "Hm.", TEXT, "Hi"]),
        (["<think>Hm.</think><answer>Hi</answer> there"], [THINK, "Hm.", TEXT, "Hi", " there"]),
        (["<answer>Hi</answer>"], ["<answer>Hi</answer>"]),
        # gpt-oss, behind an endpoint that does not parse its format.
        (
            ["<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>"],
            [THINK, "Hm.", TEXT, "Hi"],
        ),
        (
            ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "H", "i <", "b", ">"],
            ["H", "i ", "<b", ">"],
        ),
        (["<|start|>assistant<|message|>Hi<|e"], ["Hi", "<|e"]),
        (
            ["<|channel|>analysis<|message|>Hm.<|channel|>final <|constrain|>json<|message|>{}"],
            [THINK, "Hm.", TEXT, "{}"],
        ),
        (
            ["<|channel|>commentary<|message|>So:<|end|><|start|>assistant<|channel|>final<|message|>Hi<|end|>\n"],
            ["So:", "\n\n", "Hi"],
        ),
        (
            ["<|channel|>commentary to=functions.odds <|constrain|>json<|message|>{}<|call|><|start|>assis"],
            [THINK, "{}"],
        ),
        (["<|channel|>final"], ["<|channel|>final"]),
        (["<|channel|>" + "a" * 300], ["<|channel|>" + "a" * 300]),
        # Only the closing tag that matches the opening one ends the reasoning; others are part of it.
        (["<think>a</thinking> < b </", "th"], [THINK, "a</thinking> < b ", "</th"]),
        # Reasoning that is switched off, or that came in a field of its own.
        (["<think>\n\n</think>\n\nHi"], ["Hi"]),
        (["</think>\n\nHi"], ["Hi"]),
        ([("Hm.",), "</think>", "Hi"], [THINK, "Hm.", TEXT, "Hi"]),
        ([("Hm.",), "<think> No.</think>Hi"], [THINK, "Hm.", " No.", TEXT, "Hi"]),
        # Anywhere else a tag is ordinary text of the answer.
        (["Write <think>so</think>."], ["Write <think>so</think>."]),
        (["`<think>` opens it"], ["`<think>` opens it"]),
        (["<think>a</think>b<think>c</think>"], [THINK, "a", TEXT, "b<think>c</think>"]),
        (["<think>never ends"], [THINK, "never ends"]),
        # Some models have several blocks of reasoning before their first word.
        (["<think>a</think><think>b</think>Hi"], [THINK, "a", "b", TEXT, "Hi"]),
        (["<think>a</think>\n", "\n<thi", "nking>b</thinking>\n", "Hi"], [THINK, "a", "b", TEXT, "Hi"]),
        (["<think>a</think></think>Hi"], [THINK, "a", TEXT, "Hi"]),
        (["<think>a</think>\n<", "b>Hi"], [THINK, "a", TEXT, "<", "b>Hi"]),
        (["<think>a</think>\n<th"], [THINK, "a", TEXT, "<th"]),
        # White space between two blocks of reasoning is not text.
        ([("a",), "\n", ("b",), "\n"], [THINK, "a", "b"]),
        ([("a",), "Hi", ("b",), " ", "there"], [THINK, "a", TEXT, "Hi", THINK, "b", TEXT, " ", "there"]),
        ([(" \n",), "Hi"], ["Hi"]),
        # Surrogate pairs that are cut, and lone surrogates.
        (["\ud83c", "\udf40"], ["🍀"]),
        (["a\ud83c"], ["a", "\ufffd"]),
        (["<think>\ud83c", "\udf40</think>a"], [THINK, "🍀", TEXT, "a"]),
        ([("\ud83c",), ("\udf40",), "a\ud83c", ("b",)], [THINK, "🍀", TEXT, "a", "\ufffd", THINK, "b"]),
        ([("b\ud83c",), "\udf40a"], [THINK, "b", "\ufffd", TEXT, "\ufffda"]),
    ],
)
def test_what_is_said_becomes_pieces(said: list[str | tuple[str]], made: list[Piece]) -> None:
    assert arranged(*said) == made


def test_a_prompt_may_have_opened_the_thinking() -> None:
    assert arranged("Hm.</thi", "nk>\n\nHi", tags=Tags.OPENED) == [THINK, "Hm.", TEXT, "Hi"]
    assert arranged("</think>Hi", tags=Tags.OPENED) == ["Hi"]
    assert arranged("<think>Hm.</think>Hi", tags=Tags.OPENED) == [THINK, "Hm.", TEXT, "Hi"]
    assert arranged("Hm.</thinking >Hi", tags=Tags.OPENED) == [THINK, "Hm.", TEXT, "Hi"]


def test_an_endpoint_may_tell_apart_what_a_prompt_has_opened() -> None:
    assert arranged(("Hm.",), "Hi", tags=Tags.OPENED) == [THINK, "Hm.", TEXT, "Hi"]


def test_many_tags_are_no_endless_work() -> None:
    text = "<think></think>" * 250_000  # the largest event; scanning the rest after each tag would take minutes
    assert arranged(text) == [text[32 * len("<think></think>") :]]


def test_tags_may_mean_nothing() -> None:
    assert arranged("<think>Hm.</think>Hi", tags=Tags.KEPT) == ["<think>Hm.</think>Hi"]


def test_no_white_space_is_held_for_ever() -> None:
    arranger = Arranger()
    held = 0
    while not arranger.text(" " * 64):
        held += 1
    assert held < 10
    assert arranger.plain


tokens = ["<think>", "</think>", "<thi", "nk>", " ", "\n", "a", "👩‍👩‍👧", "<", "</", "<answer>", "</answer >"]
tokens += ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "analysis", "final", "<|"]
words = st.lists(st.sampled_from(tokens), max_size=8)


@given(words, st.data())
@example(["<think>", "a", "</think>", "\n", "a"], None)
def test_it_does_not_matter_how_the_text_was_cut(parts: list[str], data: st.DataObject | None) -> None:
    text = "".join(parts)
    cuts = range(len(text) + 1) if data is None else sorted(data.draw(st.sets(st.integers(0, len(text)))))
    places = [0, *cuts, len(text)]
    cut = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert pieces.join(arranged(*cut)) == pieces.join(arranged(text))
