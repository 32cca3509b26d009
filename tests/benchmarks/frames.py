"""Measures the page while an answer streams below a long chat: ``python -m tests.benchmarks.frames``.

The unit is the CPU time that the page's main thread takes for a frame: all its tasks from one commit to the next, as
Chromium's trace has them. CPU time is the same on a busy machine; the number of frames per second is not. A frame has
16.7 ms at 60 Hz.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from playwright.sync_api import Browser, expect, sync_playwright

from chatstream import auth
from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.support.browser import ChatPage, Model, more
from tests.support.processes import SECRET, ServerProcess, chatstream, free_port, mongod
from tests.support.upstream import beginning, ending

FRAME = 1000 / 60  # ms
_MESSAGES = 500
_CHARACTERS = 12_000  # of the answer that is measured: a long one
_PATIENCE = 600_000  # ms

# A typical piece of an answer: paragraphs, a list, a table, code.
_PIECE: Final = """## Part {number}

A **paragraph** with *emphasis*, `code` and a [link](https://example.org/{number}), long enough to be broken into
several lines on a desk, and into many on a phone. It says nothing, but it says it in {number} ways.

1. The first point, which is short.
2. The second point, which takes more than a line when it is read on a small screen, as most of them are.
   - A part of it, with `code`.
   - And another one.
3. The third.

| Fractional | Decimal | A stake of €8 returns |
|---|---:|---:|
| 4/5 | 1.80 | €14.40 |
| 11/8 | 2.38 | €19.00 |
| 5/2 | 3.50 | €28.00 |

```python
def decimal(fraction: str) -> float:
    won, staked = map(int, fraction.split("/"))
    if staked == 0:
        raise ValueError(fraction)
    return 1 + won / staked  # {number}
```

> Numbers are patient.

"""
# Kinds of answers: the last block is parsed and drawn anew as it grows, so one large block is the hardest.
ANSWERS: Final = {
    "mixed": "".join(_PIECE.format(number=number) for number in range(100)),
    "prose": "One paragraph that never ends, with **bold** and *emphasis* and `code` in it, as it goes on. " * 1_000,
    "list": "".join(f"{number}. Point {number}, with **bold** words and `code`.\n" for number in range(1, 2_000)),
    "table": "| Name | Number | Note |\n|---|---:|---|\n"
    + "".join(f"| row {number} | {number} | **bold** and `code` |\n" for number in range(2_000)),
    "code": "```python\n"
    + "".join(f'value_{number} = compute({number}, "text")  # a comment\n' for number in range(2_000)),
}
_STAGES: Final = {  # what the trace calls them; the rest is the page's own code
    "style": ("UpdateLayoutTree",),
    "layout": ("Layout",),
    "paint": ("PrePaint", "Paint", "Layerize", "Commit"),
}


# Playwright's own waiting looks through all of the page again and again, which would be measured, too.
_UNTIL_IT_HAS_ENDED: Final = """new Promise((done) => {
  const stop = document.getElementById("stop");
  const look = () => stop.hidden && requestAnimationFrame(() => requestAnimationFrame(done));
  new MutationObserver(look).observe(stop, { attributes: true });
  look();
})"""


class Frames(NamedTuple):
    """The cost of a stream for the page's main thread."""

    seconds: float
    cpu: Sequence[float]  # ms for each frame
    stages: dict[str, float]  # ms for a frame, on average
    longest: float  # ms, of one task

    def __str__(self) -> str:
        middle, high = statistics.median(self.cpu), statistics.quantiles(self.cpu, n=20)[-1]
        parts = ", ".join(f"{name} {value:.1f}" for name, value in self.stages.items())
        return (
            f"{middle:5.1f} ms p50 {high:6.1f} p95 {max(self.cpu):6.1f} max; longest task {self.longest:5.1f}; "
            f"{len(self.cpu)} frames in {self.seconds:.1f} s; {parts}"
        )


def measured(trace: dict[str, Any]) -> Frames:
    """The frames in Chromium's trace of one page."""
    events = trace["traceEvents"]
    mains = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    by_thread: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        thread = (event["pid"], event["tid"])
        if thread in mains and event["ph"] == "X":
            by_thread[thread].append(event)
    # The thread that drew most is the page's.
    page = max(by_thread.values(), key=lambda found: sum(event["name"] == "Commit" for event in found))
    page.sort(key=lambda event: event["ts"])
    commits = [event["ts"] for event in page if event["name"] == "Commit"]
    tasks = [event for event in page if event["name"] == "RunTask"]
    cpu, longest, spent, ahead = [], 0.0, 0.0, 0
    for task in tasks:
        took = task.get("tdur", 0) / 1000
        longest = max(longest, took)
        spent += took
        drew = False
        while ahead < len(commits) and commits[ahead] <= task["ts"] + task["dur"]:
            ahead, drew = ahead + 1, True
        if drew:
            cpu.append(spent)
            spent = 0.0
    stages = {
        stage: _outermost([event for event in page if event["name"] in names]) / len(cpu)
        for stage, names in _STAGES.items()
    }
    stages["the rest"] = sum(cpu) / len(cpu) - sum(stages.values())
    return Frames((tasks[-1]["ts"] - tasks[0]["ts"]) / 1e6, cpu, stages, longest)


def _outermost(events: Sequence[dict[str, Any]]) -> float:
    """The ms of CPU that these took, each moment counted once."""
    total, end = 0.0, 0
    for event in events:
        if event["ts"] >= end:
            total += event.get("tdur", 0) / 1000
            end = event["ts"] + event["dur"]
    return total


@contextmanager
def _server(directory: Path, model_port: int) -> Iterator[ServerProcess]:
    with mongod(directory / "mongo") as uri:
        environment = {
            "MONGODB_URI": uri,
            "JWT_SECRET": SECRET,
            "OPENAI_API_KEY": "key",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
            "CHATSTREAM_TITLES": "off",
        }
        messages = [
            {"role": role, "content": content}
            for number in range(_MESSAGES // 2)
            for role, content in (("user", f"Question {number}?"), ("assistant", _PIECE.format(number=number)))
        ]
        chats = [
            {"userId": "u", "id": name, "messages": some}
            for name, some in (("long", messages), ("short", messages[:4]))
        ]
        file = directory / "chats.json"
        file.write_text(json.dumps({"conversations": chats}))
        done = chatstream(directory, "seed", "--file", str(file), **environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        server = ServerProcess(directory, environment).start()
        try:
            yield server.wait_until_ready()
        finally:
            server.stop()


def stream(browser: Browser, server: ServerProcess, model: Model, conversation: str, text: str, rate: float) -> Frames:
    """Draw an answer that comes with `rate` chunks a second, or without a pause if that is 0."""
    words = [f"{word} " for word in text[:_CHARACTERS].split(" ")]
    begin = model.gate()
    gates = [model.gate() for _ in words] if rate else []
    script = (
        [step for gate, word in zip(gates, words, strict=True) for step in (gate, more(word))]
        if rate
        else [more(word) for word in words]
    )
    model.reply(beginning(" "), begin, *script, ending())
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        tab = ChatPage(context, server.url, auth.mint(SECRET, "u", 3600)).open(conversation)
        expect(tab.answers.first).to_be_visible()
        while (earlier := tab.page.locator("#older-messages")).is_visible():
            before = tab.answers.count()
            earlier.click()
            expect(tab.answers).not_to_have_count(before)
        tab.ask("Go on")
        expect(tab.stop).to_be_visible()
        browser.start_tracing(
            page=tab.page, categories=["devtools.timeline", "disabled-by-default-devtools.timeline", "v8"]
        )
        begin.open()
        due = time.monotonic()
        for gate in gates:
            gate.open()
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))
        tab.page.evaluate(_UNTIL_IT_HAS_ENDED)
        return measured(json.loads(browser.stop_tracing()))
    finally:
        context.close()


def main() -> None:
    """Measure what the arguments name, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frames", description=__doc__)
    parser.add_argument("--answers", nargs="+", choices=ANSWERS, default=list(ANSWERS), help="kinds of answers (all)")
    parser.add_argument("--rates", nargs="+", type=float, default=[100, 1000], help="chunks a second; 0: no pauses")
    parser.add_argument("--chats", nargs="+", choices=("long", "short"), default=["long"], help="500 messages or 4")
    options = parser.parse_args()
    expect.set_options(timeout=_PATIENCE)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = Model(free_port())
        stack.callback(model.close)
        server = stack.enter_context(_server(directory, int(model.upstream.url.split(":")[2].split("/")[0])))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        stack.callback(browser.close)
        for chat in options.chats:
            for name in options.answers:
                for rate in options.rates:
                    frames = stream(browser, server, model, chat, ANSWERS[name], rate)
                    print(f"{chat} {name:6} {rate or 'no pause':>8}: {frames}", flush=True)  # noqa: T201 - for people


if __name__ == "__main__":
    main()
