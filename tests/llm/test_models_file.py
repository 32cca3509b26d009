"""The models file: valid contents, and the errors for invalid ones."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chatstream.errors import InvalidSettings
from chatstream.llm.catalogue import Catalogue
from chatstream.llm.configuration import catalogue
from chatstream.llm.models_file import read
from chatstream.models import Usage
from chatstream.settings import OpenAIApi, Settings
from tests.support import settings_files
from tests.support.processes import REPOSITORY
from tests.support.settings_files import SECRET


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CHATSTREAM_MODELS_FILE", "UNSET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("A_KEY", f" {SECRET}\n")


def reading(directory: Path, text: str) -> Catalogue:
    path = directory / "models.toml"
    path.write_text(text, encoding="utf-8")
    return read(path, Settings())


def problems(directory: Path, text: str) -> list[str]:
    return settings_files.problems("CHATSTREAM_MODELS_FILE", reading, directory, text)


def test_the_example_is_a_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GATEWAY_KEY"):
        monkeypatch.setenv(name, SECRET)
    found = read(REPOSITORY / "conf" / "models.toml.example", Settings())
    assert [*found.entries] == ["Fast", "Thorough", "Llama", "At home"]
    assert found.default.name == "Fast"
    assert [entry.model for entry in found.chain("Fast")] == ["gpt-4.1-mini", "@cf/meta/llama-3.3-70b#fp8", "gemma3:4b"]
    assert [entry.name for entry in found.chain("Fast", "Llama")] == ["Llama", "At home"]
    assert [entry.name for entry in found.chain("Thorough", "Llama")] == ["Thorough"]  # an old `next_model`
    assert (found.default.retries, found.entries["Llama"].retries) == (0, 2)
    assert found.default.parameters == {"temperature": 0.3, "max_tokens": 2000}
    home = found.entries["At home"]
    assert (home.key, home.system_role, home.deadlines.first_byte, home.deadlines.total) == (None, False, 900, 1500)
    assert home.context_characters(48_000) == 4096 * 3
    assert found.entries["Thorough"].context_characters(48_000) == 3 * (found.entries["Thorough"].context or 0) > 48_000


def test_an_entry_that_says_little_is_as_the_settings_have_it(tmp_path: Path) -> None:
    [entry] = reading(tmp_path, '\ufeff[[models]]\r\nname = "org/m@x #1 🏆"\r\nkey = "A_KEY"\r\n').entries.values()
    assert (entry.model, entry.base_url, entry.key) == ("org/m@x #1 🏆", None, SECRET)
    assert (entry.retries, entry.deadlines.connect, entry.deadlines.total) == (2, 10, 600)


def test_the_key_may_stand_in_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("JWT_SECRET=" + "k" * 40 + "\nIN_THE_FILE='sk-1'\n")
    monkeypatch.setenv("JWT_SECRET", "k" * 40)
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\nname = "m"\nkey = "IN_THE_FILE"\n')
    [entry] = read(path, Settings.load(["JWT_SECRET"], tmp_path / ".env")).entries.values()
    assert entry.key == "sk-1"


def test_a_model_of_either_api(tmp_path: Path) -> None:
    text = NAMED + 'api = "responses"\nparameters = { reasoning = { summary = "auto" }, max_output_tokens = 9 }\n'
    found = reading(tmp_path, text + NAMED.replace('"m"', '"n"') + "parameters.store = true")
    assert [entry.api for entry in found.entries.values()] == ["responses", "chat"]
    assert found.entries["m"].parameters == {"reasoning": {"summary": "auto"}, "max_output_tokens": 9}


def test_the_one_model_without_a_file_has_the_api_that_the_settings_say() -> None:
    for key, api in ((SecretStr(SECRET), "responses"), (None, "chat")):  # without a key: the demo model
        assert catalogue(Settings(openai_api_key=key, openai_api=OpenAIApi.RESPONSES)).default.api == api


NAMED = '[[models]]\nname = "m"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "{} must have a table [[models]] for each model"),
        ("models = 1", "{} must have a table [[models]] for each model"),
        ("models = []", "{} must have a table [[models]] for each model"),
        ('[models]\nname = "m"', "{} must have a table [[models]] for each model"),
        ("[[models]]\nname = m", "{} is no TOML at line 2, column 8 (texts stand in quotation marks)"),
        (f"[[models]]\nkey = {SECRET}", "{} is no TOML at line 2, column 7 (texts stand in quotation marks)"),
        ("[[models]]\n", "model 1, which has no name: name: is missing"),
        (
            '[[models]]\nname = ""\n',
            "model 1, which has no name: name: must not be empty, nor begin or end with a space",
        ),
        ('[[models]]\nname = " m"\n', 'model " m": name: must not be empty, nor begin or end with a space'),
        ("[[models]]\nname = 4\n", "model 1, which has no name: name: must be a text, in quotation marks"),
        (NAMED + NAMED, 'model "m": is there more than once'),
        (NAMED + 'apikey = "x"', 'model "m": "apikey": there is no such setting'),
        (NAMED + "contxt = 1", 'model "m": "contxt": there is no such setting; did you mean context?'),
        ('defualt = "m"\n' + NAMED, '"defualt": there is no such setting; did you mean default?'),
        ('default = "x"\n' + NAMED, "default: must be the name of one of the models"),
        (NAMED + 'api = "soap"', 'model "m": api: must be one of chat or responses'),
        (
            NAMED + 'api = "responses"\nreasoning_back = "always"',
            'model "m": reasoning_back: means nothing with api = "responses", where reasoning goes back as long as it '
            "counts",
        ),
        (
            NAMED + 'api = "responses"\nparameters.store = true',
            'model "m": parameters: must not set store: chatstream does',
        ),
        (
            NAMED + 'api = "responses"\nparameters.max_tokens = 9',
            'model "m": parameters: max_tokens is called otherwise with api = "responses": max_output_tokens',
        ),
        (NAMED + 'base_url = "h:1"', 'model "m": base_url: must begin with http:// or https://'),
        (
            NAMED + f'base_url = "https://u:{SECRET}@h/v1"',
            'model "m": base_url: must not hold a user name or a password',
        ),
        (
            NAMED + f'key = "{SECRET}"',
            'model "m": key: must be the name of an environment variable, such as OPENAI_API_KEY, and not the '
            "key itself",
        ),
        (NAMED + 'key = "UNSET_KEY"', 'model "m": key: the environment variable UNSET_KEY is not set'),
        (NAMED + 'key = "AKIAHUNTER2"', 'model "m": key: the environment variable that it names is not set'),
        (NAMED + "context = 0", 'model "m": context: must be a whole number, 500 to 100,000,000'),
        (NAMED + 'context = "8k"', 'model "m": context: must be a whole number, 500 to 100,000,000'),
        (NAMED + 'vision = "yes"', 'model "m": vision: must be true or false'),
        (NAMED + 'reasoning_back = "yes"', 'model "m": reasoning_back: must be one of off, tool_turns or always'),
        (NAMED + "price = { input = 1 }", 'model "m": price.output: is missing'),
        (NAMED + "price = 3", 'model "m": price: must be a table'),
        (NAMED + 'parameters = { model = "x" }', 'model "m": parameters: must not set model: chatstream does'),
        (
            NAMED + "parameters = { seed = 1979-05-27 }",
            'model "m": parameters: seed holds what JSON has no form for: a date, or a number that is none',
        ),
        (
            NAMED + "parameters = { temperature = nan }",
            'model "m": parameters: temperature holds what JSON has no form for: a date, or a number that is none',
        ),
        (
            NAMED + 'deadlines = { idle = "1m" }',
            'model "m": deadlines.idle: must be seconds (0.01 to 86,400): a number without a unit',
        ),
        (
            NAMED + "deadlines = { idle = 0 }",
            'model "m": deadlines.idle: must be seconds (0.01 to 86,400): a number without a unit',
        ),
        (
            NAMED + "deadlines = { idel = 1 }",
            'model "m": "deadlines.idel": there is no such setting; did you mean idle?',
        ),
        (
            NAMED + "deadlines = { idle = 50, total = 20 }",
            'model "m": deadlines.idle: must not be more than deadlines.total, which is 20',
        ),
        (NAMED + 'fallbacks = "m"', 'model "m": fallbacks: must be a list, such as ["a", "b"]'),
        (NAMED + 'fallbacks = ["m"]', 'model "m": fallbacks: names the model itself'),
        (NAMED + 'fallbacks = ["M2"]', 'model "m": fallbacks: there is no model "M2"'),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem.format(tmp_path / "models.toml")]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = f"{NAMED}context = 1\nbase_url = 'ftp://h'\n" + "[[models]]\nname = 'n'\nvision = 1\n"
    assert [line.partition(": ")[0] for line in problems(tmp_path, text)] == ['model "m"', 'model "m"', 'model "n"']


def test_what_entries_say_of_each_other_is_looked_at_though_one_is_wrong(tmp_path: Path) -> None:
    text = (
        f'default = "x"\ndefualt = 1\n{NAMED}contxt = 1\nkey = "UNSET_KEY"\nfallbacks = ["n", "o"]\n'
        '[[models]]\nname = "n"\nvision = 1\ndeadlines = { idle = 50, total = 20 }\n'
        f'[[models]]\nbase_url = "h:1"\nkey = "UNSET_KEY"\n{NAMED}'
    )
    assert sorted(problems(tmp_path, text)) == [
        '"defualt": there is no such setting; did you mean default?',
        "default: must be the name of one of the models",
        'model "m": "contxt": there is no such setting; did you mean context?',
        'model "m": fallbacks: there is no model "o"',
        'model "m": is there more than once',
        'model "m": key: the environment variable UNSET_KEY is not set',
        'model "model 3": key: the environment variable UNSET_KEY is not set',
        'model "n": deadlines.idle: must not be more than deadlines.total, which is 20',
        'model "n": vision: must be true or false',
        "model 3, which has no name: base_url: must begin with http:// or https://",
        "model 3, which has no name: name: is missing",
    ]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path, words in [
        (tmp_path, "is not a file"),
        (tmp_path / "nope.toml", "does not exist"),
    ]:
        with pytest.raises(InvalidSettings, match=words):
            read(path, Settings())
    (tmp_path / "latin").write_bytes('name = "ü"'.encode("latin-1"))
    with pytest.raises(InvalidSettings, match="is not UTF-8"):
        read(tmp_path / "latin", Settings())
    (tmp_path / "deep").write_text("a = " + "[" * 100_000)
    with pytest.raises(InvalidSettings, match=r"deeply|no TOML"):
        read(tmp_path / "deep", Settings())


# Costs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "usage", "micros"),
    [
        ("{ input = 3, output = 15 }", {}, 120 * 3 + 40 * 15),
        ("{ input = 3, output = 15 }", {"cached_tokens": 100}, 120 * 3 + 40 * 15),
        ("{ input = 3, cached = 0.3, output = 15 }", {"cached_tokens": 100}, 20 * 3 + 30 + 40 * 15),
        ("{ input = 3, cached = 0.3, output = 15 }", {"cached_tokens": 120, "reasoning_tokens": 40}, 36 + 40 * 15),
        ("{ input = 0.1, output = 0.7 }", {}, 12 + 28),  # neither price is a binary fraction
        ("{ input = 0.0375, output = 0 }", {}, 5),  # 4.5, rounded once
        ("{ input = 0, output = 0 }", {}, 0),
        ("{ input = 1000000, output = 1000000 }", {}, 160_000_000),
    ],
)
def test_what_a_price_makes_of_tokens(tmp_path: Path, price: str, usage: dict[str, Any], micros: int) -> None:
    path = tmp_path / "models.toml"
    path.write_text(NAMED + f"price = {price}")
    counted = Usage(prompt_tokens=120, completion_tokens=40, total_tokens=160, **usage)
    for name in (None, "m"):
        priced = read(path, Settings()).priced(counted, name)
        assert priced is not None
        assert priced.cost_micros == micros
        assert isinstance(priced.cost_micros, int)
    assert read(path, Settings()).priced(counted, "made up") == counted  # its price is unknown
    assert read(path, Settings()).priced(None, "m") is None


def test_a_budget_in_money_needs_a_price(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    settings = Settings(models_file=path, user_cost_per_month=Decimal(1))
    path.write_text(NAMED)
    with pytest.raises(InvalidSettings, match="CHATSTREAM_USER_COST_PER_MONTH: no model has a price"):
        catalogue(settings)
    path.write_text(NAMED + "price = { input = 1, output = 1 }")
    assert catalogue(settings).default.price is not None
