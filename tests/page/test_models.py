"""The menu of models."""

from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import StartServer
from tests.page.conftest import OpenPage
from tests.support.browser import Model
from tests.support.upstream import answer


def test_a_model_is_chosen_where_there_is_a_choice(
    open_page: OpenPage, model: Model, start_server: StartServer, tmp_path: Path
) -> None:
    entry = f'[[models]]\nname = "%s"\nbase_url = "{model.upstream.url}"\n'
    (tmp_path / "models.toml").write_text(entry % "Fast" + entry % "org/Thorough@2")
    server = start_server(
        CHATSTREAM_MODELS_FILE=str(tmp_path / "models.toml"),
        CHATSTREAM_USER_MODELS="on",
        CHATSTREAM_TITLES="off",  # titles would be further requests to the model
        CHATSTREAM_DISCONNECT_GRACE="30",
    )
    model.reply(answer("Yes."))
    tab = open_page(url=server.url)
    menu = tab.page.get_by_label("Model", exact=True)
    expect(menu).to_have_value("Fast")
    menu.select_option("org/Thorough@2")
    tab.ask("Are you thorough?")
    expect(tab.prose).to_have_text("Yes.")
    expect(menu).to_have_value("org/Thorough@2")  # also after the conversation was opened
    menu.select_option("Fast")
    tab.ask("And now?")
    expect(tab.page.get_by_role("listitem").filter(has_text="Yes.")).to_have_count(2)
    assert [call.body["model"] for call in model.upstream.calls] == ["org/Thorough@2", "Fast"]


def test_there_is_no_menu_without_a_choice(open_page: OpenPage) -> None:
    tab = open_page()
    expect(tab.button("Send")).to_be_visible()
    expect(tab.page.get_by_label("Model", exact=True)).to_be_hidden()
