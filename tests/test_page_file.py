"""The file of an operator's own page: valid contents, and the errors for invalid ones."""

from base64 import b64encode
from pathlib import Path

import pytest

from chatstream.config import page_file
from chatstream.errors import ConfigurationError, InvalidSettings
from tests.support.processes import REPOSITORY

PNG = b"\x89PNG\r\n\x1a\n and so on"


def write(directory: Path, text: str) -> Path:
    path = directory / "page.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_nothing_is_said() -> None:
    assert page_file.read(None).words == {}


def test_the_example_is_good_as_it_is() -> None:
    found = page_file.read(REPOSITORY / "conf" / "page.toml.example")
    assert found.name == "Acme Chat"
    assert found.words["examples"] == ("Where is my order?", "How do I return something?")
    assert found.pairs == {"accent": ("#0b6e4f", "#4ccf9a")}


def test_one_colour_is_for_both_themes_and_a_logo_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG)
    found = page_file.read(write(tmp_path, 'logo = "logo.png"\n[colours]\nink = "#000000"\n'))
    assert found.pairs == {"ink": ("#000000", "#000000")}
    assert found.logo == "data:image/png;base64," + b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "is no TOML at end of document"),
        ('nam = "x"', '"nam": there is no such setting; did you mean name?'),
        ('name = ""', "name: must not be empty"),
        ("name = 3", "name: must be a text, in quotation marks"),
        ('language = "fr"', "language: must be one of en or de"),
        ('examples = "one"', "examples: must be a list"),
        (f"examples = {['x'] * 9}", "examples: is too long a list"),
        ('[colours]\naccent = "red"', "colours.accent: must be like"),
        ('[colours]\naccent = ["#000000", "url(x)"]', "colours.accent: must be like"),
        ('[colours]\naccent = ["#000000"]', "colours.accent: must be like"),
        ('[colours]\nlink = "#000000"', '"colours.link": there is no such setting; did you mean ink?'),
        ('logo = "nowhere.png"', "cannot be read: No such file"),
        ('logo = "page.toml"', "is no PNG, JPEG, WebP or SVG"),
        ('logo = "large.png"', "is larger than 64 KiB"),
        ("# " + "x" * 70_000, "is larger than 64 KiB"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "large.png").write_bytes(PNG + bytes(70_000))
    with pytest.raises(InvalidSettings) as refused:
        page_file.read(write(tmp_path, text))
    assert all(line.startswith("CHATSTREAM_PAGE_FILE: ") for line in refused.value.problems)
    assert problem in str(refused.value)


def test_all_that_is_wrong_is_said_at_once_and_in_our_words(tmp_path: Path) -> None:
    text = 'nam = "x"\nnote = 3\nlogo = "nowhere.png"\n[colours]\nink = "black"\nlink = "#000000"\n'
    with pytest.raises(InvalidSettings) as refused:
        page_file.read(write(tmp_path, text))
    path = tmp_path / "page.toml"
    assert sorted(refused.value.problems) == [
        f'CHATSTREAM_PAGE_FILE: {path}: "colours.link": there is no such setting; did you mean ink?',
        f'CHATSTREAM_PAGE_FILE: {path}: "nam": there is no such setting; did you mean name?',
        f'CHATSTREAM_PAGE_FILE: {path}: colours.ink: must be like "#0b6e4f", or two of them in a list: light and dark',
        f"CHATSTREAM_PAGE_FILE: {path}: logo: {tmp_path / 'nowhere.png'} cannot be read: No such file or directory",
        f"CHATSTREAM_PAGE_FILE: {path}: note: must be a text, in quotation marks",
    ]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "page.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        page_file.read(path)
    with pytest.raises(ConfigurationError, match="is not a file"):
        page_file.read(tmp_path)
