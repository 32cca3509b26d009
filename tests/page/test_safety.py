"""Texts of models and users stay text. Two defences ensure that, the sanitiser and the policy; each is tested."""

from playwright.sync_api import expect

from tests.page.conftest import OpenPage
from tests.support.browser import ChatPage, Model
from tests.support.upstream import answer

# Attacks that try to set `window.attacked`, to load an external resource, or to look like a part of the page.
ATTACKS = [
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    "<img src='https://evil.example/pixel.png'>",
    "![a picture](https://evil.example/pixel.png)",
    "<svg onload='window.attacked = 1'><script>window.attacked = 1</script></svg>",
    "<svg><a xlink:href='javascript:window.attacked = 1'><text y=20>press</text></a></svg>",
    "[press](javascript:window.attacked=1)",
    "[press](JaVaScRiPt&colon;window.attacked=1)",
    "<a href='java\tscript:window.attacked=1'>press</a>",
    "[press](data:text/html,<script>window.attacked=1</script>)",
    "<a href='vbscript:x' onclick='window.attacked = 1'>press</a>",
    "<style>#composer { display: none }</style>",
    "<p style='position: fixed; inset: 0' class='failure' id='composer'>covers everything</p>",
    "<iframe srcdoc='<script>parent.attacked = 1</script>'></iframe>",
    "<object data='javascript:window.attacked=1'></object><embed src='javascript:window.attacked=1'>",
    "<form action='https://evil.example'><input name='token'><button>Open the chat</button></form>",
    "<meta http-equiv='refresh' content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<link rel='stylesheet' href='https://evil.example/x.css'>",
    "<details open ontoggle='window.attacked = 1'><summary>x</summary></details>",
    # Markup that changes its meaning when it is parsed a second time (mXSS).
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.attacked=1&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=window.attacked=1>'>",
    "<svg></p><style><a id='</style><img src=1 onerror=window.attacked=1>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=window.attacked=1>",
    "<select><template><style><!--</style><a rel='--></style></template></select><img src onerror=window.attacked=1>'>",
    "`<img src=x onerror=window.attacked=1>`",
    "```html\n<script>window.attacked = 1</script>\n```",
    '```x" onmouseover="window.attacked=1\ncode\n```',
    '[press](https://good.example/"onmouseover="window.attacked=1)',
]


def assert_harmless(tab: ChatPage, requested: list[str]) -> None:
    """Check that no script ran, nothing was loaded, and the messages contain only the elements of prose."""
    tab.page.locator("#messages").evaluate(
        "messages => messages.querySelectorAll('a, td, p, code').forEach(it => it.click())"
    )
    assert tab.page.evaluate("window.attacked") is None
    assert {url for url in requested if not url.startswith((tab.url, "data:"))} == set()
    expect(tab.field).to_be_visible()
    harmful = (
        "script, style, iframe, object, embed, form, input, meta, base, link, img, math, template, details, [style]"
    )
    prose = tab.page.locator("#messages :is(.prose, .body)")
    assert (
        prose.evaluate_all(f"all => all.flatMap(one => [...one.querySelectorAll(`{harmful}`)].map(it => it.outerHTML))")
        == []
    )
    attributes = prose.evaluate_all(
        "all => all.flatMap(one => [...one.querySelectorAll('*')].flatMap(it => it.getAttributeNames()))"
    )
    assert not [name for name in attributes if name.startswith("on") or name in ("style", "id", "name")]
    links = prose.locator("a[href]").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert all(link.startswith(("https://evil.example/pixel.png", "https://good.example/")) for link in links)


def test_what_a_model_writes_does_nothing(open_page: OpenPage, model: Model, problems: list[str]) -> None:
    for attack in ATTACKS:
        model.reply(answer(attack))
    model.reply(answer("\n\n".join(ATTACKS)))
    tab = open_page()
    requested: list[str] = []
    tab.page.on("request", lambda request: requested.append(request.url))
    for number in range(len(ATTACKS) + 1):
        tab.ask("Attack!")
        expect(tab.answers).to_have_count(number + 1)
        expect(tab.stop).to_be_hidden()
    tab.page.context.on("page", lambda page: page.close())  # a harmless link opens a tab
    assert_harmless(tab, requested)
    # Before sanitising, the text is parsed in a document without scripts; the browser reports that it blocked some.
    problems[:] = [problem for problem in problems if "/vendor/dompurify.js" not in problem]


def test_what_a_user_writes_is_shown_as_it_is(open_page: OpenPage, model: Model) -> None:
    model.reply(answer("I see."))
    text = "\n".join(ATTACKS)
    tab = open_page()
    requested: list[str] = []
    tab.page.on("request", lambda request: requested.append(request.url))
    tab.ask(text)
    expect(tab.prose).to_have_text("I see.")
    assert tab.questions.text_content() == text
    tab.page.reload()
    expect(tab.prose).to_have_text("I see.")
    assert tab.questions.text_content() == text
    assert_harmless(tab, requested)


def test_the_policy_stops_what_the_sanitiser_would_miss(open_page: OpenPage, problems: list[str]) -> None:
    tab = open_page()
    refused = tab.page.evaluate(
        """async () => {
            const refused = [];
            document.onsecuritypolicyviolation = ({ effectiveDirective }) => refused.push(effectiveDirective);
            const attempt = (what) => { try { what() } catch {} };
            attempt(() => document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.attacked = 1'>"));
            attempt(() => trustedTypes.createPolicy("mine", { createHTML: (text) => text }));
            attempt(() => document.body.setAttribute("onclick", "window.attacked = 1"));
            const inline = document.createElement("style");
            inline.textContent = "#composer { display: none }";
            const elsewhere = Object.assign(document.createElement("script"), { type: "module" });
            attempt(() => (elsewhere.src = "https://evil.example/x.js"));
            document.body.append(inline, elsewhere);
            const image = new Image();
            const told = new Promise((resolve) => (image.onerror = resolve));
            image.src = "https://evil.example/pixel.png";
            await told;
            await fetch("https://evil.example/").catch(() => {});
            await new Promise((resolve) => setTimeout(resolve)); // violations are told in tasks of their own
            return refused;
        }"""
    )
    assert tab.page.evaluate("window.attacked") is None
    expect(tab.field).to_be_visible()
    assert {*refused} == {"require-trusted-types-for", "trusted-types", "style-src-elem", "img-src", "connect-src"}
    problems.clear()
