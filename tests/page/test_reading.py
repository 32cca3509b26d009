"""Reading an answer: Markdown, code to copy, a stable scroll position, a screen reader that speaks each text once."""

import json
import random
import re

from playwright.sync_api import BrowserContext, Page, Route, expect

from chatstream import auth
from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Held, Model, more
from tests.support.processes import SECRET
from tests.support.upstream import answer, beginning, delta, ending, event, head, http_chunk, whole

MARKDOWN = """# Form

Some *emphasis*, some **weight**, a [link][1] and `odds`.

1. first
2. second
   - nested

| Team | Odds |
|------|-----:|
| Leeds | 3.00 |

```python
stake = 10 < 20
```

> quoted

[1]: https://example.com/form
"""


def test_markdown_comes_out_the_same_however_it_was_cut(open_page: OpenPage, model: Model) -> None:
    model.reply(beginning(*MARKDOWN), ending())  # character by character
    tab = open_page()
    tab.ask("Show me everything.")
    prose = tab.prose
    expect(prose.get_by_role("link", name="link")).to_have_attribute("href", "https://example.com/form")
    expect(prose.get_by_role("link", name="link")).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(prose.get_by_role("heading", level=3)).to_have_text("Form")
    expect(prose.get_by_role("cell")).to_have_text(["Leeds", "3.00"])
    expect(prose.locator("ol > li > ul > li")).to_have_text(["nested"])
    expect(prose.get_by_role("blockquote")).to_have_text("quoted")
    expect(prose.locator(".hljs-number")).to_have_count(2)
    streamed = prose.inner_html()
    tab.page.reload()
    expect(prose.get_by_role("blockquote")).to_have_text("quoted")
    expect(prose.locator(".hljs-number")).to_have_count(2)
    assert prose.inner_html() == streamed


def test_code_can_be_copied(open_page: OpenPage, model: Model) -> None:
    model.reply(answer(MARKDOWN))
    tab = open_page()
    tab.ask("Code, please.")
    tab.button("Copy the code").click()
    expect(tab.button("Copy the code")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "stake = 10 < 20\n"
    tab.button("Copy the code").click()  # once more, before the text is back
    expect(tab.button("Copy the code")).to_have_text("Copy")
    tab.button("Copy the answer").click()
    expect(tab.button("Copy the answer")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == MARKDOWN


# What models write, and the HTML that its reader means.
MEANT = {
    "これは**「強調」**です。": "これは<strong>「強調」</strong>です。",
    "中文**“加粗”**后面。": "中文<strong>“加粗”</strong>后面。",
    '한국어는 **"강조"**를 씁니다': '한국어는 <strong>"강조"</strong>를 씁니다',
    "中文**a *b* c。**的": "中文<strong>a <em>b</em> c。</strong>的",
    "`**中` と `文**` です": "<code>**中</code> と <code>文**</code> です",
    "1~2 or 3~4 hours, ~~gone~~": "1~2 or 3~4 hours, <del>gone</del>",
    "2**3 and **(x)**y": "2**3 and **(x)**y",
}
# Tables: the texts of their cells.
CELLS = {
    "| A | B |\n|---|---|\n| `a | b` | 1 |\n| \\(|x|\\) | `` c || d `` |": ["A", "B", "a | b", "1", "|x|", "c || d"],
    "| A | B |\n|---|---|\n| `x \\| y` | 1 |\n| ` | ` |": ["A", "B", "x | y", "1", "`", "`"],
    "a | b\n---|---\nc | `x|y` \n\nMore": ["a", "b", "c", "x|y"],
    "| a | b |\n|---|---|\nc | `x|y` \n\nMore": ["a", "b", "c", "x|y"],
    "| `a | b` |\n|---|\n| 1 |\n\nA | line": ["a | b", "1"],
}
DRAW_MEANT = """async ([texts, tables]) => {
  const { Prose } = await import("/page/prose.js");
  const draw = (text) => {
    const prose = new Prose(document.createElement("div"));
    for (let end = 1; end < text.length; end++) prose.show(text.slice(0, end), { whole: false });
    prose.show(text, { whole: true });
    return prose.root;
  };
  return {
    texts: texts.map((text) => draw(text).querySelector("p").innerHTML),
    tables: tables.map((table) => Array.from(draw(table).querySelectorAll("th, td"), (cell) => cell.textContent)),
  };
}"""


def test_what_models_write_is_read_as_they_mean_it(open_page: OpenPage) -> None:
    drawn = open_page().page.evaluate(DRAW_MEANT, [[*MEANT], [*CELLS]])
    assert dict(zip(MEANT, drawn["texts"], strict=True)) == MEANT
    assert dict(zip(CELLS, drawn["tables"], strict=True)) == CELLS


def scrolled(page: Page) -> float:
    """The scroll position of the messages, in pixels."""
    return float(page.locator("#scroller").evaluate("box => box.scrollTop"))


def test_the_end_is_followed_until_the_reader_goes_up(open_page: OpenPage, model: Model) -> None:
    first, second = model.gate(), model.gate()
    lines = "a line\n\n" * 60
    model.reply(
        beginning(lines + "The top half."),
        first,
        more(f"\n\n{lines}The middle."),
        second,
        more("\n\nThe end."),
        ending(),
    )
    tab = open_page()
    tab.ask("Tell me much.")
    expect(tab.page.get_by_text("The top half.")).to_be_in_viewport()
    tab.page.get_by_role("log", name="Messages").hover()
    tab.page.mouse.wheel(0, -300)
    expect(tab.button("To the end")).to_be_visible()
    place = scrolled(tab.page)
    first.open()
    expect(tab.prose).to_contain_text("The middle.")
    assert scrolled(tab.page) == place
    tab.button("To the end").click()
    expect(tab.page.get_by_text("The middle.")).to_be_in_viewport()
    second.open()
    expect(tab.page.get_by_text("The end.", exact=True)).to_be_in_viewport()
    expect(tab.button("To the end")).to_be_hidden()


# Shows messages as if from the stream, and counts the changes that each further chunk makes in the document.
CHANGES_PER_CHUNK = """async (count) => {
  const { MessagesView } = await import("/page/messages.js");
  const view = new MessagesView({});
  view.clear();
  const timestamp = "2026-11-28T10:00:00Z";
  const asked = (id) => ({ id, role: "user", content: "And?", timestamp });
  const said = (id, content, status, data) => ({
    ...{ id, role: "assistant", content, status, streaming: status === "streaming", timestamp },
    ...{ replyTo: "q", attempt: 1, finishReason: null, usage: null, error: null, recommendations: [] },
    parts: [{ type: "data", kind: "note", id: "n", data }, { type: "text", text: content }],
  });
  const all = [], text = "**Some** text.\\n\\n- more";
  for (let i = 0; i < count; i += 2) all.push(asked(`q${i}`), said(`a${i}`, text, "complete", {}));
  all.push(asked("q"));
  const show = (content) => {
    view.show([...all, said("a", content, "streaming", { a: "card" })]);
    view.focusVersion("none", "next"); // it is drawn now
  };
  let content = "A first block.\\n\\nA block that";
  show(content);
  const list = document.getElementById("messages");
  const newest = () => list.lastChild.lastChild;
  const kept = [newest().querySelector(".prose > div"), newest().querySelector(".card")];
  let records = 0, outside = 0;
  const observer = new MutationObserver((found) => {
    records += found.length;
    const open = newest().querySelector(".prose > div:last-child");
    outside += found.filter(({ target }) => !open.contains(target)).length;
  });
  observer.observe(list, { childList: true, subtree: true, characterData: true, attributes: true });
  for (let chunk = 0; chunk < 30; chunk++) {
    show((content += " grows"));
    await null; // the observer hears of it
  }
  observer.disconnect();
  return { records, outside, kept: kept.every((node) => node?.isConnected),
    items: list.querySelectorAll(".message").length,
    whole: list.children.length - list.querySelectorAll(".settled").length, groups: list.children.length };
}"""


# Returns how long nothing is drawn after a draw that took 2 s, with simulated time and frames.
REST_AFTER_A_LONG_DRAW = """async () => {
  const { sparing } = await import("/page/dom.js");
  const frames = [], real = [performance.now, requestAnimationFrame];
  let now = 0, drawn = 0, waited = 0;
  performance.now = () => now;
  window.requestAnimationFrame = (frame) => frames.push(frame);
  const draw = sparing(() => (now += ++drawn === 1 ? 2_000 : 1));
  draw();
  frames.shift()();
  draw();
  for (; drawn < 2 && waited < 20_000; waited += 16, now += 16) frames.shift()();
  [performance.now, window.requestAnimationFrame] = real;
  return waited;
}"""


def test_a_chunk_changes_the_open_block_alone_however_long_the_chat_is(open_page: OpenPage) -> None:
    tab = open_page()
    short, long = (tab.page.evaluate(CHANGES_PER_CHUNK, count) for count in (10, 500))
    assert (short["items"], long["items"]) == (12, 502)
    assert short["outside"] == long["outside"] == 0
    assert short["kept"]
    assert long["kept"]
    assert 30 <= short["records"] == long["records"] <= 90
    # The first drawing of a long chat takes a while; the following chunks must not be delayed for as long.
    assert tab.page.evaluate(REST_AFTER_A_LONG_DRAW) <= 500
    # Earlier messages are not laid out or painted again: of the groups out of sight, all but the newest are skipped.
    assert (long["groups"], long["whole"], short["whole"]) == (26, 1, 1)
    skipped = "all => all.filter((one) => !one.checkVisibility({ contentVisibilityAuto: true })).length"
    expect(tab.page.locator("#messages .message")).to_have_count(502)
    tab.page.wait_for_function(f"({skipped})([...document.querySelectorAll('#messages .message')]) >= 440")


# Lets each kind of block grow, and counts what is parsed and what is replaced in the document for each of the chunks.
GROWTH = """async (growing) => {
  const { Prose } = await import("/page/prose.js");
  const { Lexer } = await import("/vendor/marked.js");
  const lex = Lexer.prototype.lex;
  let parsed = 0;
  Lexer.prototype.lex = function (text) { parsed += text.length; return lex.call(this, text); };
  const results = {};
  for (const [name, [head, line]] of Object.entries(growing)) {
    const root = document.getElementById("messages").appendChild(document.createElement("div"));
    const prose = new Prose(root);
    let text = head, changed = 0, shown = true;
    const costs = [];
    const observer = new MutationObserver(() => {});
    observer.observe(root, { childList: true, subtree: true, characterData: true });
    for (let number = 1; text.length < 24_000; number++) {
      text += line.replaceAll("#", number);
      parsed = 0;
      prose.show(text, { whole: false });
      const records = observer.takeRecords();
      const nodes = new Set(records.flatMap(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes])).size;
      costs.push({ parsed, nodes });
      if (number % 40 === 0) shown &&= root.textContent.includes(`no. ${number}`);
    }
    const [early, late] = [costs.slice(0, costs.length / 4), costs.slice(-costs.length / 4)];
    const most = (all, what) => Math.max(...all.map((one) => one[what]));
    const grown = root.innerHTML;
    const kept = root.querySelector("p, li, tr, pre, blockquote");
    prose.show(text, { whole: true });
    const whole = document.createElement("div");
    new Prose(whole).show(text, { whole: true });
    const plain = (html) => html.replaceAll(/<span class="hljs[^>]*>|<\\/span>/g, "");
    results[name] = {
      shown, parsed: most(late, "parsed"), nodes: most(late, "nodes") / most(early, "nodes"),
      same: plain(root.innerHTML) === plain(whole.innerHTML), kept: kept.isConnected, grown: grown.length > 20_000,
    };
    root.remove();
  }
  Lexer.prototype.lex = lex;
  return results;
}"""
GROWING = {
    "paragraph": [
        "",
        "Some **bold** text, *emphasis*, `code` and a [link](https://a.example/#), no. # as it goes on. ",
    ],
    "paragraph without spaces": ["", "这是一个很长的段落。它不停地继续下去。no. #。而且**没有**空格。"],
    "lines": ["", "A line with a price of $5, a_name and no. # of them,\n"],
    "numbers": ["", "#. A point, **bold**, no. #\n"],
    "list": ["", "- A point, no. #\n  - a part of it\n"],
    "loose list": ["", "- A point, no. #\n\n"],
    "table": ["| Name | Note |\n|---|--:|\n", "| no. # | **bold** and `code` |\n"],
    "code": ["```python\n", "value = compute('no. #') < 3 & 4\n\n"],
    "quote": ["", "> A paragraph, no. #\n>\n"],
}


def test_a_chunk_costs_the_same_however_long_its_block_is(open_page: OpenPage) -> None:
    for name, cost in open_page().page.evaluate(GROWTH, GROWING).items():
        assert cost["parsed"] < 12_000, name  # a block of 24,000 characters, parsed twice, would be 48,000
        assert cost["nodes"] <= 2, name  # no more than where it was short
        assert cost["grown"], name
        assert cost["shown"], name
        assert cost["kept"], name  # at the end nothing is drawn again: a selection stays
        assert cost["same"], name  # as if it had come at once


# Draws what an attacker, or a model that repeats itself, may send. What marked does in quadratic time, it may only do
# with short texts: parsing the inside of a paragraph, and joining a paragraph that it has taken apart.
REPEATED = """async (all) => {
  const { Prose } = await import("/page/prose.js");
  const { Lexer, Tokenizer } = await import("/vendor/marked.js");
  const [inlineTokens, paragraph] = [Lexer.prototype.inlineTokens, Tokenizer.prototype.paragraph];
  let longest = 0, paragraphs = 0;
  Lexer.prototype.inlineTokens = function (text, tokens) {
    longest = Math.max(longest, text.length);
    return inlineTokens.call(this, text, tokens);
  };
  Tokenizer.prototype.paragraph = function (text) {
    paragraphs++;
    return paragraph.call(this, text);
  };
  const results = all.map((text) => {
    longest = paragraphs = 0;
    return [true, false].map((whole) => {
      const root = document.createElement("div");
      new Prose(root).show(text, { whole });
      return { longest, paragraphs, shown: root.textContent.includes("word") };
    });
  });
  Object.assign(Lexer.prototype, { inlineTokens });
  Object.assign(Tokenizer.prototype, { paragraph });
  return results;
}"""
ENDLESS = ["[", "![", "**_a ", "`", "<b>", "<a ", "<!--", "<!--\n", "<?\n", "<pre>\n", "<form>\n"]
ENDLESS += ["\\(", "\\[\n", "$", "$a=", "($x^2 ", "a_", "!"]
DEEP = ["> ", ">", "- ", "1. ", "* - ", "> - "]


# How many times as long it takes to parse bars as to parse dots: the shortest of three times each.
TIMES_AS_LONG = """async (length) => {
  const { lex } = await import("/page/markdown.js");
  const time = (text) => Math.min(...[1, 2, 3].map(() => {
    const begun = performance.now();
    lex(text);
    return performance.now() - begun;
  }));
  return time("|".repeat(length)) / time(".".repeat(length));
}"""


def test_what_repeats_without_an_end_is_drawn_in_linear_time(open_page: OpenPage) -> None:
    texts = ["word " + mark * (12_000 // len(mark)) for mark in ENDLESS]
    texts += [mark * 5_000 + "word" for mark in DEEP]
    page = open_page().page
    assert page.evaluate(TIMES_AS_LONG, 60_000) < 20  # hundreds, if each bar is a place to look back to
    drawn = page.evaluate(REPEATED, texts)
    for mark, costs in zip([*ENDLESS, *DEEP], drawn, strict=True):
        for cost in costs:
            assert cost["longest"] <= 4_000, mark
            assert cost["paragraphs"] <= 10, mark
            assert cost["shown"] or costs[0]["shown"], mark  # half of a formula is not shown while it grows


PROSE = " ".join(f"word{number} goes on and on." for number in range(80))
# Texts, with the numbers of characters that come at once.
STREAMED = {
    f"Intro <div>BOX</div> {PROSE}": [97],
    f"Intro **<h3>BOX</h3>** {PROSE}": [97],
    f"Intro <ul><li>BOX</li></ul> {PROSE}": [97],
    f"Intro <b>{PROSE[:1430]}</b> {PROSE}": [1_450],
    "Intro:\n\n1. one\n2. two\n\n3. three": [1, 7],
    "* a\n* **b** and *c*\n* d": [1, 7],
    "Intro:\n- a\n- b\n\nMore": [1, 7],
    "> 1. a\n> 2. b": [1, 7],
    "1. x\n   ```py\n   print(1)": [1, 7],
    "> ```sh\n> kill $$\n> echo later": [1, 7],
    "- x\n\n  ```sh\n  kill $$\n  ```\n- later": [1, 7],
    "Use `$$` for the pid, `$HOME` for the rest": [1, 7],
    "It cost $$ and then $5 more": [1, 7],
    "It cost $5, $x^2$, $7 and $f(x)$, and that *is* it": [1, 7],
    f"It cost $5. {PROSE} And $a_1 = b_1$, {PROSE}": [1, 97],
}
# Draws each text while it grows. Returns the HTML at the end of that, once it is whole, and if it had come at once; and
# how many lists, headings and rules there were at most, and how many there are.
STREAM = """async (texts) => {
  const { Prose } = await import("/page/prose.js");
  const drawn = (text, step) => {
    const prose = new Prose(document.createElement("div"));
    let most = 0;
    const count = () => prose.root.querySelectorAll("ol, ul, hr, h3, h4").length;
    for (let end = step; end < text.length + step; end += step) {
      prose.show(text.slice(0, end), { whole: false });
      most = Math.max(most, count());
    }
    const grown = prose.root.innerHTML;
    prose.show(text, { whole: true });
    return { grown, html: prose.root.innerHTML, most, count: count() };
  };
  return Object.entries(texts).flatMap(([text, steps]) => {
    const prose = new Prose(document.createElement("div"));
    prose.show(text, { whole: true });
    return steps.map((step) => ({ text, step, whole: prose.root.innerHTML, ...drawn(text, step) }));
  });
}"""


def test_a_text_that_grew_looks_as_if_it_had_come_at_once(open_page: OpenPage) -> None:
    wrong = []
    for one in open_page().page.evaluate(STREAM, STREAMED):
        kinds = {
            "grown": one["grown"] == one["whole"],
            "whole": one["html"] == one["whole"],
            "split": one["most"] <= one["count"],
        }
        wrong += [(one["text"][:60], one["step"], kind) for kind, right in kinds.items() if not right]
    assert wrong == []


def test_a_screen_reader_is_told_each_answer_once(open_page: OpenPage, model: Model) -> None:
    words = ["I'd ", "recommend ", "a ", "bet ", "on ", "**Leeds** ", "at ", "odds ", "of ", "3.00."]
    model.reply(beginning(*words), ending())
    model.reply(whole("400 Bad Request", {"error": {"code": "context_length_exceeded", "message": "Too long."}}))
    tab = open_page()
    live = tab.page.locator("[aria-live=polite]")
    expect(live).to_have_count(1)
    tab.page.evaluate(
        """() => {
            window.spoken = [];
            const live = document.querySelector("[aria-live=polite]");
            new MutationObserver(() => live.textContent && window.spoken.push(live.textContent))
                .observe(live, { childList: true, characterData: true, subtree: true });
        }"""
    )
    tab.ask("Say it.")
    expect(live).to_have_text("Answer: I'd recommend a bet on Leeds at odds of 3.00. Recommended bet Leeds Odds 3.00")
    tab.ask("And something that fails at once?")
    expect(live).to_contain_text("too long")
    assert tab.page.evaluate("window.spoken.length") == 2


# A conversation with earlier messages is left while its last changes still have to be drawn.
DRAWN_AFTER_LEAVING = """async () => {
  const { MessagesView } = await import("/page/messages.js");
  const view = new MessagesView({}), older = document.getElementById("older-messages");
  view.show([{ id: "q", role: "user", content: "And?", timestamp: "2026-11-28T10:00:00Z" }], { hasEarlier: true });
  view.clear();
  older.hidden = true;
  view.focusVersion("none", "next"); // it is drawn now
  return older.hidden;
}"""


def of_two(page: Page) -> None:
    """Make a page of the history two messages long."""
    page.route(
        "**/messages?limit=200", lambda route: route.continue_(url=route.request.url.replace("limit=200", "limit=2"))
    )


def test_a_long_history_comes_in_pages(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Said."))
    tab = open_page()
    for number in range(3):
        tab.ask(f"Question {number}")
        expect(tab.answers).to_have_count(number + 1)
        expect(tab.stop).to_be_hidden()
    of_two(tab.page)
    tab.page.reload()
    expect(tab.questions).to_have_text(["Question 2"])
    tab.button("Show earlier messages").click()
    expect(tab.questions).to_have_text(["Question 0", "Question 1", "Question 2"])
    expect(tab.button("Show earlier messages")).to_be_hidden()
    assert tab.page.evaluate(DRAWN_AFTER_LEAVING)


def test_earlier_messages_leave_the_reader_where_they_were(open_page: OpenPage, model: Model) -> None:
    tab = open_page()
    for number in range(3):
        model.reply(answer("a line\n\n" * 30))
        tab.ask(f"Question {number}")
        expect(tab.answers).to_have_count(number + 1)
        expect(tab.stop).to_be_hidden()
    of_two(tab.page)
    tab.page.reload()
    expect(tab.questions).to_have_text(["Question 2"])
    tab.page.locator("#scroller").evaluate("box => { box.scrollTop = 0; }")
    top = "question => question.getBoundingClientRect().top"
    before = tab.questions.last.evaluate(top)
    tab.button("Show earlier messages").click()
    expect(tab.questions).to_have_count(3)
    expect(tab.button("Show earlier messages")).to_be_hidden()  # what stood above has gone, too
    expect(tab.page.locator("#scroller")).to_be_focused()
    assert abs(tab.questions.last.evaluate(top) - before) <= 1


def test_an_empty_page_shows_its_heading(open_page: OpenPage) -> None:
    tab = open_page()
    tab.page.set_viewport_size({"width": 320, "height": 400})
    tab.page.reload()
    expect(tab.page.get_by_role("heading", name="What shall we look at?")).to_be_in_viewport()
    tab.page.locator("#scroller").evaluate("""async (box) => {
        for (const top of [60, 10]) {
            box.scrollTop = top;
            await new Promise((scrolled) => box.addEventListener("scroll", scrolled, { once: true }));
        }
    }""")
    expect(tab.button("To the end")).to_be_hidden()


def test_a_theme_is_remembered(open_page: OpenPage) -> None:
    tab = open_page()
    tab.button("Theme: auto").click()
    tab.button("Theme: light").click()
    expect(tab.button("Theme: dark")).to_be_visible()
    tab.page.reload()
    expect(tab.button("Theme: dark")).to_be_visible()
    assert tab.page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"


def test_numbered_lists_go_on_and_tables_are_aligned(open_page: OpenPage, model: Model) -> None:
    text = "1. one\n\n```\ncode\n```\n\n2. two\n\nA word.\n\n3. three\n\n| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | 3 |\n"
    model.reply(beginning(*text), ending())
    tab = open_page()
    tab.ask("Count.")
    expect(tab.prose.get_by_role("cell")).to_have_count(3)
    assert tab.prose.locator("ol").evaluate_all("lists => lists.map((list) => list.start)") == [1, 2, 3]
    aligned = "cells => cells.map((cell) => getComputedStyle(cell).textAlign)"
    assert tab.prose.locator("td").evaluate_all(aligned) == ["left", "center", "right"]


def test_blocks_of_html_are_on_lines_of_their_own(open_page: OpenPage, model: Model) -> None:
    text = "<h1>Big</h1>\n<div>one</div><div>two</div>\n\n<details><summary>More</summary>Hidden</details>\n\n"
    model.reply(answer(text + "<dl><dt>Term</dt><dd>Meaning</dd></dl>"))
    tab = open_page()
    tab.ask("HTML?")
    expect(tab.prose).to_contain_text("Meaning")
    lines = [line for line in tab.prose.inner_text().splitlines() if line]
    assert lines == ["Big", "one", "two", "More", "Hidden", "Term", "Meaning"]
    expect(tab.prose.get_by_role("heading", level=3)).to_have_text("Big")


# Answers about HTML, each with the text that its reader sees.
TAGS = {
    "The <title> tag sets the title, and the <script> tag loads code. Then the body follows.": "",
    "Put a <style> or <template>; **after it** text goes on.": "Put a <style> or <template>; after it text goes on.",
    "<script> starts a **script**.\n\nMore.": "<script> starts a script. More.",
    "- item with <video> tag and more\n- second item <textarea> more\n- <b> for bold\n- last": (
        "item with <video> tag and more second item <textarea> more <b> for bold last"
    ),
    "<!-- unfinished and then words\n\nA second.\n\nA third.": "<!-- unfinished and then words A second. A third.",
    "Replace <your-name>; in Java use List<String>, in Rust Vec<T> and Box<dyn Fn(A) -> B>.": "",
    "If a<b and c>d then x<y>z is what? <b and c>, </b>, <br and hr>.": "",
    "some <center>centred</center> words <!-- and a comment --> and <?php echo 1 ?> too": "",
    "<p> is a paragraph, <pre> is **not**\n\nMore": "<p> is a paragraph, <pre> is not More",
    "<pre>\nnever closed\n\nMore": "<pre> never closed More",
    "<div>\nnever closed\n\nMore": "<div> never closed More",
    "| Type | Use |\n|--|--|\n| Vec<T> | <li> |": "Type Use Vec<T> <li>",
    "# The <h1> tag\n\n> a <q> quote": "The <h1> tag a <q> quote",
    "H<sub>2</sub>O, <kbd>a < b</kbd>, <code>List<T></code>, <script>1 <b": "H2O, a < b, List<T>, <script>1 <b",
    "<div>one <title> & <b>two</b></div>\n\nMore": "one <title> & two More",
    '<p class="failure" data-x=1>Red</p>': "Red",
    "Use the <tit": "",
    '<img src="x" alt="&lt;">': "",
}
# Draws each text at once, then while it grows. Returns the visible text, and the words that were missing while it grew.
DRAW_TAGS = """async (texts) => {
  const { Prose } = await import("/page/prose.js");
  const seen = (root) => [...root.querySelectorAll("p, li, td, th, pre, h3, div")]
    .reduce((all, block) => (block.before(" "), block.append(" "), all), root).textContent.replace(/\\s+/g, " ").trim();
  return texts.map((text) => {
    const root = document.createElement("div");
    new Prose(root).show(text, { whole: true });
    const missing = [];
    const prose = new Prose(document.createElement("div"));
    for (let end = 1; end <= text.length; end += 3) {
      prose.show(text.slice(0, end), { whole: false });
      const words = prose.root.textContent;
      missing.push(...(text.slice(0, end).match(/\\bword\\d+/g) ?? []).filter((word) => !words.includes(word)));
    }
    return { seen: seen(root), missing };
  });
}"""


def test_tags_that_are_not_drawn_are_shown_as_written(open_page: OpenPage) -> None:
    drawn = open_page().page.evaluate(DRAW_TAGS, [*TAGS])
    assert [one["seen"] for one in drawn] == [seen or text for text, seen in TAGS.items()]


def test_no_word_is_lost_beside_tags_even_while_the_answer_grows(open_page: OpenPage) -> None:
    chance = random.Random(7)  # noqa: S311 - no secret; the same texts in each run
    names = ["b", "p", "div", "li", "pre", "table", "td", "script", "style", "title", "textarea", "a-name", "T", "!--"]
    kinds = ["<{}>", "</{}>", "<{} ", "<{} and c>", '<{} a="1">', "<{}/>", "<{}>word{{}}</{}>"]
    texts = []
    for _ in range(60):
        pieces = []
        for number in range(12):
            tag = chance.choice(kinds).replace("{{}}", str(number + 100)).replace("{}", chance.choice(names))
            pieces.append(chance.choice([" ", "\n", "\n\n", "\n- ", "\n> "]) + f"word{number} {tag}")
            pieces.append(chance.choice([" ", "\n", "\n\n", "\n- "]) + f"{tag} word{number + 200}")
        texts.append("".join(pieces) + "\n\nword999")
    drawn = open_page().page.evaluate(DRAW_TAGS, texts)
    lost = [
        (text, missing)
        for text, one in zip(texts, drawn, strict=True)
        if (missing := [word for word in re.findall(r"word\d+", text) if word not in one["seen"]] + one["missing"])
    ]
    assert lost == []


def test_maths_is_drawn_and_never_half(open_page: OpenPage, model: Model) -> None:
    gate = model.gate()
    rest = "}\\]\n\n$$\\sum_i x_i$$\n\nIt costs $5 or $6, `\\(x\\)`."
    text = ["It is \\(a^2 + ", "b_2\\) and\n\n\\[\\frac{1}{2", rest]
    model.reply(beginning(text[0]), gate, more(text[1]), more(text[2]), ending())
    tab = open_page()
    tab.ask("Maths?")
    expect(tab.prose).to_have_text("It is")
    gate.open()
    expect(tab.prose.locator("math")).to_have_count(3)
    expect(tab.prose.locator("msup")).to_have_count(1)
    expect(tab.prose.locator("mfrac")).to_have_count(1)
    expect(tab.prose.locator("p").last).to_have_text("It costs $5 or $6, \\(x\\).")


# Texts with formulas between single dollars, and what they hold; then texts in which each dollar is money, or a name.
FORMULAS = {
    "So $x^2$, and ($n$).": ["x^2", "n"],
    "The $n$th is **$a_n$** of $n - 1$.": ["n", "a_n", "n - 1"],
    "It costs $5 for $\\text{stake} \\times 2$ and $P(A)$; $10^{-3}$ of $7.": [
        "\\text{stake} \\times 2",
        "P(A)",
        "10^{-3}",
    ],
    "Since $p_{home} = \\frac{1}{2.10}$。$E = mc^2$": ["p_{home} = \\frac{1}{2.10}", "E = mc^2"],
    "公式$a*b*c$是": ["a*b*c"],
    "**Bold: \\(f^* = 1\\)** and *\\(a*b\\)*": ["f^* = 1", "a*b"],
    "| A | B |\n|---|---|\n| $x_1$ | $5 |\n| $|x| < 1$ | $6 |": ["x_1", "|x| < 1"],
    "**Bold: $f^* = 1$** and *$a*b$* and **$2^{10}$ = 1024**": ["f^* = 1", "a*b", "2^{10}"],
    "`$x$` and $y$": ["y"],
    "$$x$$ and $y$": ["x", "y"],
}
MONEY = [
    "$5 and $10",
    "$5-$10, or $5/$10, or ($5) ($10).",
    "A $10 stake at 2.5 returns $25 (profit = $15).",
    "Stake: $10 x 2.5 = $25, less 5% = $23.75",
    "Bet $10 x 2.5 = 25$",
    "$1,000 = £790 = 900$",
    "US$5 = A$8, 5$ = 5 US$",
    "\\$5^2 and \\$6",
    "**$5** and **$10**",
    "$20_000 or $30_000",
    "Win $X = $Y + $Z, from $X+$Y",
    "I'd put $X (or more) on it, you have 100$",
    "$HOME/my_bin:$PATH, $my_var/$other, ${a}_${b}, $(a)=$(b)",
    "jQuery: $('a')+$('b') and $a->b($c)",
    "A line $x\n+ y$ and $",
    "$ x^2 $ and $5",
]
DRAW_FORMULAS = """async (texts) => {
  const { Prose } = await import("/page/prose.js");
  return texts.map((text) => {
    const prose = new Prose(document.createElement("div"));
    const grown = [];
    for (let end = 1; end <= text.length; end++) {
      prose.show(text.slice(0, end), { whole: false });
      grown.push(prose.root.textContent.trim());
    }
    prose.show(text, { whole: true });
    const found = prose.root.querySelectorAll(".language-math, .language-math-display");
    return { found: Array.from(found, ({ textContent }) => textContent), grown, text: prose.root.textContent.trim() };
  });
}"""


def test_single_dollars_hold_a_formula_only_where_they_are_no_money(open_page: OpenPage) -> None:
    drawn = open_page().page.evaluate(DRAW_FORMULAS, [*FORMULAS, *MONEY])
    assert {text: one["found"] for text, one in zip(FORMULAS, drawn, strict=False)} == FORMULAS
    amounts = drawn[len(FORMULAS) :]
    assert [text for text, one in zip(MONEY, amounts, strict=True) if one["found"]] == []
    for text, one in zip(MONEY, amounts, strict=True):
        assert one["text"].count("$") == text.count("$"), text
    assert "$" not in "".join(drawn[0]["grown"])  # never half
    assert amounts[0]["grown"][1] == "$5"  # at once


def test_a_formula_that_cannot_be_drawn_stays_as_it_was_written(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("Not \\(\\frac{1\\), but \\(x\\)."))
    tab = open_page()
    tab.ask("Maths?")
    expect(tab.prose.locator("math")).to_have_count(1)
    expect(tab.prose.get_by_role("code")).to_have_text("\\frac{1")


def test_code_is_coloured_once_it_is_whole(open_page: OpenPage, model: Model) -> None:
    gate = model.gate()
    model.reply(beginning("```python\ndef f():\n"), gate, more("    return 1\n```\n\n```nonsense\nx\n```"), ending())
    tab = open_page()
    tab.ask("Code.")
    expect(tab.prose.get_by_role("code")).to_contain_text("def f():")
    expect(tab.prose.locator("span[class^=hljs]")).to_have_count(0)
    gate.open()
    expect(tab.prose.locator(".hljs-keyword")).to_have_text(["def", "return"])
    tab.button("Copy the code").first.click()
    assert tab.page.evaluate("navigator.clipboard.readText()") == "def f():\n    return 1\n"


def test_a_formula_that_is_drawn_late_does_not_hide_the_end(open_page: OpenPage, model: Model) -> None:
    matrix = "\\\\ ".join(str(row) for row in range(30))
    lines = "a line\n\n" * 30
    model.reply(answer(f"{lines}$$\\begin{{matrix}}{matrix}\\end{{matrix}}$$\n\nThe end."))
    tab = open_page()
    held = Held("GET")
    tab.page.route("**/temml.js", held)
    with tab.page.expect_request("**/temml.js"):
        tab.ask("Maths?")
    expect(tab.page.get_by_text("The end.", exact=True)).to_be_in_viewport()
    expect(tab.button("Regenerate the answer")).to_be_in_viewport()
    held.end(Route.continue_)
    expect(tab.prose.locator("math")).to_be_attached()
    expect(tab.button("Regenerate the answer")).to_be_in_viewport()
    expect(tab.button("To the end")).to_be_hidden()


def test_each_block_reads_in_its_own_direction(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("مرحبا بالعالم.\n\nHello.\n\n- شكرا\n\n```\nx = 1\n```"))
    tab = open_page()
    tab.ask("كيف الحال؟")
    expect(tab.prose.get_by_role("listitem")).to_be_visible()
    direction = "blocks => blocks.map((block) => getComputedStyle(block).direction)"
    assert tab.prose.locator("p, li, pre").evaluate_all(direction) == ["rtl", "ltr", "rtl", "ltr"]
    assert tab.questions.evaluate_all(direction) == ["rtl"]
    # Each block is aligned to the side where its text begins.
    sides = """blocks => blocks.map((block) => {
        const words = document.createRange();
        words.selectNodeContents(block);
        const { left, right } = block.getBoundingClientRect();
        const { left: first, right: last } = words.getBoundingClientRect();
        return first - left < right - last ? "left" : "right";
    })"""
    assert tab.prose.locator("p, li").evaluate_all(sides) == ["right", "left", "right"]
    # Not "auto", with which the browser goes through all of a long text at each letter.
    for text, expected in (("1. «مرحبا» hello", "rtl"), ("hello مرحبا", "ltr"), ("…", "ltr")):
        tab.field.fill(text)
        expect(tab.field).to_have_attribute("dir", expected)


def test_what_holds_blocks_has_their_direction_and_a_question_stays_at_its_side(
    open_page: OpenPage, model: Model
) -> None:
    arabic = "1. أولا\n2. ثانيا\n\n- واحد\n\n> اقتباس\n\n| اسم | رقم |\n|---|---:|\n| أ | 1 |\n\n"
    model.reply(answer(arabic + arabic.translate({ord(one): "x" for one in "أولاثنيدقتبسمر"})))
    tab = open_page()
    tab.ask("كيف الحال؟")
    holders = tab.prose.locator("ol, ul, blockquote, .scroll")
    expect(holders).to_have_count(8)
    directions = holders.evaluate_all("boxes => boxes.map((box) => getComputedStyle(box).direction)")
    assert directions == ["rtl"] * 4 + ["ltr"] * 4
    first, second = (
        tab.prose.locator("table")
        .first.locator("th")
        .evaluate_all("cells => cells.map((cell) => cell.getBoundingClientRect().left)")
    )
    assert first > second
    # Also with blocks in the items, and with code at their beginning.
    model.reply(answer("1. أولا\n\n   ```\n   x\n   ```\n\n2. `pip` ثانيا\n\n> `a` ب\n\n- `npm` first\n"))
    tab.ask("ثم؟")
    expect(tab.prose.get_by_role("listitem")).to_have_count(3)
    directions = tab.prose.locator("ol, ul, li, blockquote").evaluate_all(
        "boxes => boxes.map((box) => `${box.localName} ${getComputedStyle(box).direction}`)"
    )
    assert directions == ["ol rtl", "li rtl", "li rtl", "blockquote rtl", "ul ltr", "li ltr"]
    # The bubble of the user's message is at the right, whatever its text.
    gap = "body => body.parentElement.getBoundingClientRect().right - body.getBoundingClientRect().right"
    assert tab.questions.first.evaluate(gap) == 0


def test_no_half_markdown_is_seen_on_the_way(open_page: OpenPage, model: Model) -> None:
    table = "| Team | Odds |\n|------|-----:|\n| Leeds | 3 |\n"
    model.reply(beginning(*f"Some *emphasis*, ~~gone~~ and a [link](https://example.com/a).\n\n{table}"), ending())
    tab = open_page()
    tab.page.evaluate(
        """() => {
            window.seen = [];
            const read = () => {
                const prose = document.querySelector(".prose");
                if (prose) window.seen.push(prose.textContent);
            };
            const anything = { childList: true, subtree: true, characterData: true };
            new MutationObserver(read).observe(document.querySelector("#messages"), anything);
        }"""
    )
    tab.ask("Show me.")
    expect(tab.prose.get_by_role("cell")).to_have_text(["Leeds", "3"])
    marks = [seen for seen in tab.page.evaluate("window.seen") if any(mark in seen for mark in "*~[]|")]
    assert marks == []


def test_thinking_is_folded_above_the_answer_and_open_for_who_wants_to_see_it(
    open_page: OpenPage, model: Model
) -> None:
    thinks, tells = [model.gate() for _ in range(2)], [model.gate() for _ in range(2)]
    for gate_a, gate_b in zip(thinks, tells, strict=True):
        model.reply(
            head() + http_chunk(event(delta(reasoning_content="Form first. "))),
            gate_a,
            http_chunk(event(delta(reasoning_content="Then the price."))),
            gate_b,
            more("Take Leeds."),
            ending(),
        )
    tab = open_page()
    tab.ask("Who wins?")
    thoughts = tab.page.locator("details.thoughts")
    expect(thoughts.get_by_text("Thinking…")).to_be_visible()
    expect(tab.page.locator("#announcer")).to_have_text("The model thinks")
    expect(thoughts.get_by_text("Form first.")).to_be_hidden()
    thoughts.locator("summary").click()
    thinks[0].open()
    expect(thoughts.locator(".thought")).to_have_text("Form first. Then the price.")
    expect(thoughts.locator(".thought")).to_be_visible()
    tells[0].open()
    expect(tab.prose).to_have_text("Take Leeds.")
    expect(thoughts.get_by_text("Thought for")).to_be_visible()
    expect(thoughts.locator(".thought")).to_be_hidden()
    # The next one is open while it runs.
    tab.ask("And now?")
    expect(thoughts.last.locator(".thought")).to_be_visible()
    thinks[1].open()
    tells[1].open()
    expect(tab.prose.last).to_have_text("Take Leeds.")
    expect(thoughts.last.locator(".thought")).to_be_hidden()
    # After a reload the reasoning is shown, without its duration.
    tab.page.reload()
    expect(thoughts.last.locator("summary")).to_have_text("Thought")
    thoughts.last.locator("summary").click()
    expect(thoughts.last.locator(".thought")).to_have_text("Form first. Then the price.")


def test_what_the_servers_app_tells_besides_is_a_card_and_never_markup(
    context: BrowserContext, start_server: StartServer, model: Model
) -> None:
    service = {"CHATSTREAM_PLUGINS": "chatstream.plugins.examples.service:plugin", "SERVICE_URL": model.upstream.url}
    server = start_server(CHATSTREAM_PAGE="on", **service)

    def said(**fields: object) -> bytes:
        return http_chunk(b"data: " + json.dumps(fields).encode() + b"\n\n")

    go_on = model.gate()
    model.reply(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        said(type="llm_chunk", content="The odds move"),
        said(type="odds_update", id="m1", odds=2.1, note="<b>now</b>"),
        go_on,
        said(type="odds_update", id="m1", odds=2.2, note="<b>now</b>"),
        said(type="llm_chunk", content=" a little."),
        said(type="done"),
        http_chunk(b""),
    )
    tab = ChatPage(context, server.url, auth.mint(SECRET, "user-1", 3600)).open(None)
    tab.ask("What are the odds?")
    card = tab.answers.locator(".card")
    expect(card).to_contain_text("odds2.1")
    go_on.open()
    expect(tab.prose).to_have_text("The odds move a little.")
    expect(card).to_contain_text("odds2.2note<b>now</b>")
    expect(card.get_by_role("heading")).to_have_text("odds update")
    tab.page.reload()
    expect(tab.answers.locator(".card")).to_contain_text("odds2.2")
