"""The command line, as the person who starts the server sees it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from chatstream import __version__
from chatstream.__main__ import main
from chatstream.settings import Settings, fields, variables
from tests.conftest import StartServer
from tests.support.processes import REPOSITORY, measured

SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = {
    "CHATSTREAM_ENV": "production",
    "JWT_SECRET": SECRET,
    "MONGODB_URI": "mongodb://user:the-password@127.0.0.1:1/",
    "OPENAI_API_KEY": "sk-the-key",
}

PRODUCTION_REST = {name: value for name, value in PRODUCTION.items() if name != "OPENAI_API_KEY"}
PRODUCTION_KEY = {name: value for name, value in PRODUCTION.items() if name != "JWT_SECRET"}
RS256 = {"CHATSTREAM_JWT_ALGORITHMS": "RS256"}

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``python -m chatstream`` in an empty directory, with these variables and no others."""

    def run(*arguments: str, python: Sequence[str] = ("-m", "chatstream"), **variables: str) -> Result:
        return subprocess.run(
            [sys.executable, *python, *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **measured(), "PYTHONPATH": str(REPOSITORY), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def _the_process_stays_as_it_was() -> Iterator[None]:
    """Restore the process: a command adds the env file's variables to the environment, and the working directory to
    Python's path.
    """
    environment, path = dict(os.environ), [*sys.path]
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, in an empty directory and without settings. Returns its status, output and
    errors.
    """
    monkeypatch.chdir(tmp_path)
    for name in (*_NAMES, "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main([*arguments])
        except SystemExit as exc:
            status = int(exc.code or 0)
        return status, *capsys.readouterr()

    return command


def test_help_says_what_there_is(run: Run) -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("serve", "check-config", "--version", "conf/chatstream.env.example"):
        assert word in result.stdout


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"chatstream {__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize(
    ("typed", "usage", "said"),
    [
        ("bogus", "", "there is no command 'bogus': there are serve, check-config"),
        ("check-cofig", "", "there is no command 'check-cofig'; did you mean: chatstream check-config"),
        ("start --port 1", "", "there is no command 'start'; did you mean: chatstream serve"),
        ("help", "", "there is no command 'help'; did you mean: chatstream --help"),
        ("mint_token", "", "there is no command 'mint_token'; did you mean: chatstream token"),
        ("3000", "", "a port is given by its name: --port 3000"),
        ("serve 3000", "serve", "a port is given by its name: --port 3000"),
        ("serve -p 3000", "serve", "chatstream serve has no option -p; did you mean --port?"),
        ("--bogus", "", "chatstream has no option --bogus"),
        ("serve --prot=3", "serve", "chatstream serve has no option --prot; did you mean --port?"),
        ("serve \u2014port 3", "serve", "'\u2014port' begins with a dash that is none: type --port"),
        (
            "serve check-config --port 1",
            "serve",
            "one command at a time: chatstream serve --port 1 or: chatstream check-config --port 1",
        ),
        ("--user ada token", "", "the command comes first: chatstream token --user ada"),
        (
            "--connect check-config",
            "check-config",
            "options of a command come behind it: chatstream check-config --connect",
        ),
        ("CHATSTREAM_PORT=1 serve", "", "the command comes first: chatstream serve CHATSTREAM_PORT=1"),
        (
            "serve CHATSTREAM_PORT=1",
            "serve",
            "settings are no arguments: write CHATSTREAM_PORT=\u2026 before the command",
        ),
        ("chat --port 3001", "chat", "where the server is, --url http://localhost:3001 says"),
        ("chat hello there", "chat", "what is asked stands in quotation marks"),
        ("token ada", "token", "chatstream token takes no 'ada': see chatstream token --help"),
        ("seed 5", "seed", "chatstream seed takes no '5': see chatstream seed --help"),
    ],
)
def test_what_was_typed_wrongly_is_said_with_its_usage(command: Command, typed: str, usage: str, said: str) -> None:
    status, output, errors = command(*typed.split())
    assert (status, output) == (2, "")
    assert errors.startswith(f"usage: chatstream {usage}".rstrip())
    assert said in errors.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("check-config",), ("settings",), ("--help",), ("token",)])
def test_whoever_reads_the_output_may_go_away(arguments: tuple[str, ...], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {"PATH": os.environ["PATH"], **measured(), "PYTHONPATH": str(REPOSITORY), "JWT_SECRET": SECRET}
    command = [sys.executable, "-m", "chatstream", *arguments]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], **measured(), "PYTHONPATH": str(REPOSITORY)}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "chatstream", "settings"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "The output cannot be written: No space left on device\n")


@pytest.mark.parametrize("variables", [{}, PRODUCTION])
def test_a_good_configuration_is_said_to_be(run: Run, tmp_path: Path, variables: dict[str, str]) -> None:
    result = run("check-config", **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("The configuration is valid.\n")
    assert not [*tmp_path.iterdir()]  # the command creates no files


@pytest.mark.parametrize("command", ["check-config", "serve", ""])
def test_everything_wrong_with_the_configuration_is_said_at_once(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_PORT=http\nJWT_SECRET=short-secret\n")
    result = run(*filter(None, [command]), CHATSTREAM_PROT="1", DATABASE_URL="postgres://user:the-password@db")
    assert (result.returncode, result.stdout) == (2, "")
    heading, *lines = result.stderr.splitlines()
    assert heading == "The configuration is not valid:"
    assert [line.strip().split(":")[0] for line in sorted(lines)] == [
        "CHATSTREAM_PORT",
        "CHATSTREAM_PROT",
        "JWT_SECRET",
        "MONGODB_URI (or its alias DATABASE_URL)",
    ]
    assert "short-secret" not in result.stderr
    assert "the-password" not in result.stderr


def test_production_without_secrets_does_not_start(run: Run) -> None:
    result = run(CHATSTREAM_ENV="production")
    assert (result.returncode, result.stdout) == (2, "")
    for name in ("JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said_plainly(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run(CHATSTREAM_PORT=port, **PRODUCTION)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in result.stderr
    assert "CHATSTREAM_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_host_that_is_not_ours_is_said_plainly(run: Run) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody has it.
    result = run(CHATSTREAM_HOST="192.0.2.1", **PRODUCTION)
    assert result.returncode == 1
    assert "192.0.2.1" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_address_that_cannot_be_read_is_said_without_its_password(run: Run) -> None:
    uri = "mongodb://user:the-p@ssword@127.0.0.1/"
    result = run(**PRODUCTION | {"MONGODB_URI": uri, "CHATSTREAM_PORT": "0"})
    assert result.returncode == 2
    assert "MONGODB_URI" in result.stderr
    assert "ssword" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_directory_that_cannot_be_written_is_said_plainly(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(CHATSTREAM_DATA_DIR=str(tmp_path / "file" / "data"), CHATSTREAM_PORT="0")
    assert result.returncode == 2
    assert "CHATSTREAM_DATA_DIR" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_started_server_says_what_it_uses(start_server: StartServer, mongodb_uri: str) -> None:
    server = start_server(OPENAI_MODEL="gpt-5")
    assert server.stop() == 0
    assert server.output == ""  # no banner without a terminal, as it would have a token
    lines = [json.loads(line) for line in server.log.splitlines()]
    listens, *others = [line for line in lines if line["logger"] == "chatstream.server"]
    assert listens["message"] == f"chatstream {__version__} listens on 127.0.0.1:{server.port}"
    assert listens["model"].startswith("gpt-5 at http://127.0.0.1:")
    assert re.fullmatch(rf"\S+ at {mongodb_uri.split('/')[2]}", listens["database"])
    assert (listens["page"], listens["metrics"]) == ("on", "on the same port")
    assert "`chatstream token` makes one" in listens["tokens"]
    assert listens["plugins"].startswith("chatstream.plugins.bets:plugin (annotate, tools, ")
    assert [line["message"] for line in others] == ["stopping; no answer is running", "stopped"]


def test_in_development_people_are_told_what_to_do_next(start_server: StartServer) -> None:
    server = start_server(CHATSTREAM_LOG_FORMAT="text")
    assert server.stop() == 0
    assert f"http://localhost:{server.port}/" in server.output
    assert " \u00b7 plug-ins: chatstream.plugins.bets:plugin\n" in server.output
    assert SECRET not in server.output


def test_in_production_it_prints_nothing(start_server: StartServer) -> None:
    server = start_server(CHATSTREAM_ENV="production", CHATSTREAM_LOG_FORMAT="text")
    assert server.stop() == 0
    assert server.output == ""


# What stands in a setting by mistake ----------------------------------------------------------------------------------

ODD = [
    *("", " ", "\n", "x", "0", "-1", "1.5", "1e999", "nan", "inf", "9" * 400, "0x10", "15s", "10 m", "1,000", "None"),
    *("true", "[]", "{}", "[1, 2", "a,b", ",", "~", "~nobody/x", "/dev/null", "../..", "/", "a\tb", "a\nb"),
    *("\u200b", "a\u200bb", "\ufeffx", "é", "🏆", "\udcff", "a\udcffb", "'x'", '"x"', "your-key-here", "<key>"),
    *("localhost:3000", "http://", "http://h:abc/v1", "https://u:hunter2@h/v1", "http://h/v1?key=hunter2", "http://[::1"),
    *("http://h:99999/", "http://h h/", "http://ü/v1", "ftp://h", "://", "http:/h", "0.0.0.0:80", "[::1]", "999.1.1.1"),
    *("mongodb://", "mongodb://u:hunter2@h:x/", "mongodb://u:hun@ter2@h/", "mongodb://h/?replicSet=a", "mongodb+srv://h:1"),
    *("mongodb://h/?tlsCAFile=/nope", "mongodb://h/?maxPoolSize=1", "mongodb://h/?readPreference=x", "mongodb://h/a.b"),
    *("sys:exit", "no.such:thing", "a" * 5000, "k" * 260, "-----BEGIN KEY-----\nx", "HS256,none", "*", "%00"),
]  # fmt: skip
_NAMES = [variables(field)[0] for field in fields()]
# Messages of a library or of Python.
FOREIGN = re.compile(
    r"pydantic|validation error|input should|valid (?:integer|number|boolean)|unable to pars|Traceback|Error\(|type=|"
    r"errors\.pydantic|Value error|expected|Errno|<class|object at 0x|NoneType",
    re.IGNORECASE,
)


# All values in all settings take minutes: each setting gets a sixth of them, and each value a sixth of the settings.
# The URLs, which can be wrong in most ways, get a third.
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("name", "values"),
    [
        (name, ODD[i % 6 :: 3 if re.search("UR[IL]|HOST|PROXY", name) else 6])
        for i, name in enumerate([*_NAMES, "DATABASE_URL"])
    ],
)
def test_whatever_is_set_is_taken_or_refused_by_its_name(
    name: str, values: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for other in (*_NAMES, "DATABASE_URL"):
        monkeypatch.delenv(other, raising=False)
    for value in values:
        monkeypatch.setenv(name, value)
        if name in ("CHATSTREAM_JWKS_URL", "CHATSTREAM_JWT_PUBLIC_KEY_FILE"):
            monkeypatch.setenv("CHATSTREAM_JWT_ALGORITHMS", "RS256")
        status = main(["check-config"])
        said = capsys.readouterr()
        assert status in (0, 2), (value, said)
        assert "hunter2" not in said.out + said.err
        assert not FOREIGN.search(said.err), (value, said.err)
        if status == 2:
            heading, *lines = said.err.splitlines()
            assert heading == "The configuration is not valid:"
            assert lines
            assert all(len(line) < 600 for line in lines), lines
            assert any(name in line or (not value.strip("\u200b\n ") and "ALGORITHMS" in line) for line in lines), (
                value,
                lines,
            )
        else:
            assert said.out.endswith("The configuration is valid.\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"OPENAI_API_KEY": "sk-a\u200bb"}, "OPENAI_API_KEY: holds a character that cannot be seen (U+200B)"),
        ({"OPENAI_API_KEY": "sk-a b"}, "OPENAI_API_KEY: holds white space"),
        ({"OPENAI_API_KEY": "'sk-ab'"}, "OPENAI_API_KEY: stands in quotation marks"),
        ({"OPENAI_API_KEY": "your-key-here", **PRODUCTION_REST}, "OPENAI_API_KEY: is an example's"),
        ({"OPENAI_API_KEY": "sk-…", **PRODUCTION_REST}, "OPENAI_API_KEY: holds white space or characters"),
        ({"JWT_SECRET": "changeme-changeme-changeme-changeme", **PRODUCTION_KEY}, "JWT_SECRET: can be guessed"),
        ({"JWT_SECRET": "a" * 40, **PRODUCTION_KEY}, "JWT_SECRET: can be guessed"),
        ({"JWT_SECRET": SECRET + "\n"}, "JWT_SECRET: begins or ends with white space"),
        ({"OPENAI_BASE_URL": "http://h:abc/v1"}, "OPENAI_BASE_URL: has a port that is no number"),
        ({"OPENAI_BASE_URL": "http://h/v1?a=1"}, "OPENAI_BASE_URL: must not have a query"),
        ({"OPENAI_BASE_URL": "http://h/v1#a"}, "OPENAI_BASE_URL: must not have a fragment"),
        ({"OPENAI_BASE_URL": "http://u:p@h/v1"}, "OPENAI_BASE_URL: must not hold a user name"),
        ({"OPENAI_BASE_URL": "http:///v1"}, "OPENAI_BASE_URL: must name a host"),
        ({"OPENAI_BASE_URL": "http://h/v1/chat/completions"}, "leave out /chat/completions"),
        ({"OPENAI_BASE_URL": "http://h/a b"}, "OPENAI_BASE_URL: holds characters that no URL may have"),
        ({"OPENAI_MODEL": "gpt\n4"}, "OPENAI_MODEL: holds a character that cannot be seen (U+000A)"),
        ({"OPENAI_API_KEY": "k", "OPENAI_ORG_ID": "org\n"}, "OPENAI_ORG_ID: holds white space"),
        ({"OPENAI_API_KEY": "k", "HTTPS_PROXY": "http://h:x"}, "HTTPS_PROXY is not the address of a proxy"),
        ({"OPENAI_API_KEY": "k", "ALL_PROXY": "socks5://127.0.0.1:1"}, "a SOCKS proxy: for that, pip install socksio"),
        ({"OPENAI_API_KEY": "k", "SSL_CERT_FILE": "/nope"}, "SSL_CERT_FILE: /nope cannot be used"),
        ({"CHATSTREAM_IDLE_TIMEOUT": "15s"}, "CHATSTREAM_IDLE_TIMEOUT: must be seconds (0.01 to 86,400): a number"),
        ({"CHATSTREAM_DISCONNECT_GRACE": "forever"}, "CHATSTREAM_DISCONNECT_GRACE: must be seconds, or never"),
        ({"CHATSTREAM_PORT": "http"}, "CHATSTREAM_PORT: must be a whole number, 0 to 65,535"),
        ({"CHATSTREAM_HOST": "0.0.0.0:3000"}, "CHATSTREAM_HOST: must be an address or a name alone"),
        ({"CHATSTREAM_HOST": "http://0.0.0.0"}, "CHATSTREAM_HOST: must be an address or a name alone"),
        ({"CHATSTREAM_PAGE": "yes"}, "CHATSTREAM_PAGE: must be one of auto, on or off"),
        ({"CHATSTREAM_LOGIN_URL": "javascript:alert(1)"}, "CHATSTREAM_LOGIN_URL: must"),
        ({"CHATSTREAM_PAGE_FILE": "/nope"}, "CHATSTREAM_PAGE_FILE: /nope does not exist"),
        ({"CHATSTREAM_LOGIN_URL": "//id.example/"}, "CHATSTREAM_LOGIN_URL: must"),
        ({"CHATSTREAM_LOGIN_URL": "/login#here"}, "CHATSTREAM_LOGIN_URL: must not have a fragment"),
        ({"CHATSTREAM_QUERY_TOKENS": "perhaps"}, "CHATSTREAM_QUERY_TOKENS: must be on or off"),
        ({"MONGODB_DATABASE": "admin"}, "MONGODB_DATABASE: must not be admin"),
        ({"MONGODB_URI": "mongodb://u:p/w@h/"}, "DATABASE_URL): is not a valid MongoDB connection string"),
        ({"MONGODB_URI": "mongodb://h/?replicSet=rs0"}, "did you mean replicaset?"),
        ({"MONGODB_URI": "mongodb://h/?maxPoolSize=1"}, "DATABASE_URL): maxPoolSize in it must be 10 or more"),
        ({"MONGODB_URI": "mongodb://h/?tlsCAFile=/nope"}, "MONGODB_URI (or its alias DATABASE_URL): names a file"),
        ({"MONGODB_URI": "mongodb://h/?tls=maybe"}, "DATABASE_URL): tls in it must be 'true' or 'false'"),
        ({"CHATSTREAM_JWT_PUBLIC_KEY_FILE": "/nope", **RS256}, "CHATSTREAM_JWT_PUBLIC_KEY_FILE: /nope cannot be read"),
        ({"CHATSTREAM_JWT_PUBLIC_KEY_FILE": "/dev/null", **RS256}, "does not hold a key for RS256"),
        ({"CHATSTREAM_JWKS_URL": "https://h:x/", **RS256}, "CHATSTREAM_JWKS_URL: has a port"),
        ({"CHATSTREAM_DATA_DIR": "/dev/null"}, "CHATSTREAM_DATA_DIR: /dev/null is not a directory"),
        ({"CHATSTREAM_DATA_DIR": "/proc/chatstream"}, "CHATSTREAM_DATA_DIR: "),
        ({"CHATSTREAM_REVOCATION": "no.such:thing"}, "CHATSTREAM_REVOCATION: no.such:thing cannot be called"),
        ({"CHATSTREAM_FIRST_TOKEN_TIMEOUT": "700"}, "must not be more than CHATSTREAM_ANSWER_TIMEOUT, which is 600"),
        ({"CHATSTREAM_METRICS_PORT": "3000"}, "CHATSTREAM_METRICS_PORT: must not be CHATSTREAM_PORT"),
        ({"CHATSTREAM_PROCESSES": "0"}, "CHATSTREAM_PROCESSES: must be a whole number, 1 to 256"),
        (
            {"CHATSTREAM_PROCESSES": "2", "CHATSTREAM_PORT": "65534"},
            "CHATSTREAM_PORT: must be at most 65533: each of the 2 processes has a port of its own above it",
        ),
        (
            {"CHATSTREAM_PROCESSES": "2", "CHATSTREAM_METRICS_PORT": "2999"},
            "CHATSTREAM_METRICS_PORT: the 2 processes would have ports 2999 to 3000 for metrics, but 3000 to 3002 are "
            "taken by CHATSTREAM_PORT and the processes' own ports above it",
        ),
        ({"CHATSTREAM_JWT_SECRET": SECRET}, "did you mean JWT_SECRET?"),
        ({"CHATSTREAM_LOGLEVEL": "DEBUG"}, "did you mean CHATSTREAM_LOG_LEVEL?"),
        ({"chatstream_prot": "1"}, "chatstream_prot: there is no such setting; did you mean CHATSTREAM_PORT?"),
        ({"OPENAI_KEY": "sk-1", **PRODUCTION_REST}, "OPENAI_KEY: means nothing here; did you mean OPENAI_API_KEY?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_what_is_wrong_is_explained_in_a_line(
    command: str,
    variables: dict[str, str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command == "serve" and "CHATSTREAM_REVOCATION" in variables:
        pytest.skip("said when the server opens it, by another test")
    monkeypatch.chdir(tmp_path)
    for name in (*_NAMES, "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([command]) == 2
    said = capsys.readouterr()
    assert line in said.err
    assert said.out == ""
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "value", "cut"),
    [
        ("OPENAI_API_KEY", "sk-1\n", "sk-1"),
        ("OPENAI_BASE_URL", " http://h:1/v1\r\n", "http://h:1/v1"),
        ("OPENAI_MODEL", "\ufeffgpt-5\u200b", "gpt-5"),
        ("CHATSTREAM_JWT_ISSUER", "\u00a0https://us/ ", "https://us/"),
        ("MONGODB_URI", "mongodb://h/?replicaSet=rs0\n", "mongodb://h/?replicaSet=rs0"),
    ],
)
def test_what_came_with_copying_is_cut_off(name: str, value: str, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    found = next(
        getattr(Settings.load({name}, None), field)
        for field, each in zip(fields(), _NAMES, strict=True)
        if each == name
    )
    assert (found.get_secret_value() if hasattr(found, "get_secret_value") else found) == cut


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("mongodb://h/shop?replicaSet=rs0", "shop"),
        ("mongodb://app:pw%2Fx@h,i:1/shop", "shop"),
        ("mongodb+srv://h/shop", "shop"),
        ("mongodb://h/admin", "chatstream"),  # the database in which the user is stored, not one for data
        ("mongodb://h/", "chatstream"),
        ("mongodb://h/?replicaSet=a/b", "chatstream"),
        ("mongodb://h", "chatstream"),
    ],
)
def test_the_path_of_the_uri_names_the_database(uri: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", uri)
    assert Settings.load({"DATABASE_URL"}, None).mongodb_database == database
    monkeypatch.setenv("MONGODB_DATABASE", "mine")
    assert Settings.load({"DATABASE_URL"}, None).mongodb_database == "mine"


# The env file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("CHATSTREAM_PORT=1".encode("utf-16"), "is not UTF-8 (it looks like UTF-16): save it as UTF-8"),
        ("CHATSTREAM_PORT=1".encode("utf-16-le"), "is not UTF-8 (it looks like UTF-16): save it as UTF-8"),
        (b"A=1\nCHATSTREAM_PROMPT=\xe9\n", ".env, line 2: is not UTF-8"),
        (b"A=1\n\nCHATSTREAM_PORT: 3000\n", ".env, line 3: must be NAME=value"),
        (b"CHATSTREAM_PORT\n", ".env, line 1: must be NAME=value"),
        (None, ".env is a directory, not a file to read"),
        (b"#" * 2_000_000, "is larger than a megabyte"),
    ],
)
def test_an_env_file_that_cannot_be_read(run: Run, tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is None:
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").write_bytes(content)
    result = run("check-config")
    assert (result.returncode, result.stdout) == (2, "")
    heading, line = result.stderr.splitlines()  # one line, in our own words
    assert heading == "The configuration is not valid:"
    assert said in line


def test_an_env_file_with_a_mark_and_windows_lines_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfCHATSTREAM_PORT=4567\r\nexport OPENAI_MODEL='m'\r\n# end")
    result = run("check-config")
    assert "127.0.0.1:4567" in result.stdout
    assert result.returncode == 0


def test_another_env_file_can_be_named_and_options_win(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_PORT=1\n")
    (tmp_path / "other.env").write_text("CHATSTREAM_PORT=2\n")
    assert "127.0.0.1:2\n" in run("check-config", "--env-file", "other.env").stdout
    missing = run("check-config", "--env-file", "none.env")
    assert (missing.returncode, missing.stderr) == (1, "--env-file: none.env does not exist\n")
    wrong = run("serve", "--port", "http")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "CHATSTREAM_PORT: must be a whole number" in wrong.stderr


# The other commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["serve", "check-config", "token", "chat", "seed", "usage", "scrub", "settings"])
def test_every_command_explains_itself(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: chatstream {command}")
    assert not [*tmp_path.iterdir()]


def test_the_settings_can_be_written_to_a_file_that_is_read(run: Run, tmp_path: Path) -> None:
    printed = run("settings")
    assert printed.stdout == (REPOSITORY / "conf" / "chatstream.env.example").read_text()
    (tmp_path / ".env").write_text(printed.stdout)
    assert run("check-config").returncode == 0


def test_signs_that_cannot_be_written_are_replaced(run: Run) -> None:
    result = run("settings", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert run("seed", "--help", PYTHONIOENCODING="ascii").returncode == 0


def test_a_plugin_that_cannot_be_made_is_named_beside_all_else_that_is_wrong(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        "CHATSTREAM_PLUGINS": "no.such:plugin,chatstream.plugins.bets:nothing",
        "CHATSTREAM_DATA_DIR": "/dev/null",
        "CHATSTREAM_REVOCATION": "no:no",
    }
    for more in ({}, {"CHATSTREAM_PORT": "http", "CHATSTREAM_PROT": "1"}):  # also if a value cannot be parsed at all
        for name, value in {**wrong, **more}.items():
            monkeypatch.setenv(name, value)
        status, _, errors = command("check-config")
        assert status == 2
        for name in {**wrong, **more}:
            assert errors.count(f"{name}: ") == (2 if name == "CHATSTREAM_PLUGINS" else 1)
        assert (
            errors.count("CHATSTREAM_PLUGINS: no.such:plugin cannot be called: there is no module no: no.py must be")
            == 1
        )
        assert (
            "CHATSTREAM_PLUGINS: chatstream.plugins.bets:nothing cannot be called: there is no nothing in /" in errors
        )
        if more:
            assert len(errors.splitlines()) == 1 + 6


def test_the_files_are_looked_at_beside_all_else_that_is_wrong(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.toml").write_text('nam = "x"\nnote = 3\n')
    (tmp_path / "models.toml").write_text('[[models]]\nname = "m"\nkey = "UNSET_KEY"\nvision = 1\n')
    (tmp_path / "tools.toml").write_text("[[tool]]\n")
    (tmp_path / ".env").write_text(
        "CHATSTREAM_PAGE_FILE=page.toml\nCHATSTREAM_MODELS_FILE=models.toml\nCHATSTREAM_TOOLS_FILE=tools.toml\n"
        "CHATSTREAM_PLUGINS=no.such:plugin\nCHATSTREAM_PORT=http\nCHATSTREAM_ENV=production\nJWT_SECRET=short\n"
        "CHATSTREAM_HEARTBEAT_INTERVAL=500\n"
    )
    status, output, errors = command("check-config")
    assert (status, output) == (2, "")
    lines = errors.splitlines()[1:]
    assert sorted(line.strip().split(":")[0] for line in lines) == [
        "CHATSTREAM_HEARTBEAT_INTERVAL",  # wrong only together with another setting
        *["CHATSTREAM_MODELS_FILE"] * 2,
        *["CHATSTREAM_PAGE_FILE"] * 2,
        *("CHATSTREAM_PLUGINS", "CHATSTREAM_PORT"),
        *["CHATSTREAM_TOOLS_FILE"] * 3,
        "JWT_SECRET",  # the error is that it is too short, not that it is missing
        "MONGODB_URI must be set in production",
    ]


# What the env file has for others -------------------------------------------------------------------------------------

APP = """\
import os

class App:
    def __init__(self, where):
        self.system_prompt = where

    def context(self, turn):
        return self.system_prompt

def plugin():
    return App(os.environ["SERVICE_URL"])
"""


def test_a_plugin_finds_the_variables_of_the_env_file_and_is_found_beside_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(APP)
    (tmp_path / ".env").write_text("CHATSTREAM_PLUGINS=my_app:plugin\nSERVICE_URL=http://sk-hunter2/\n")
    # Started like the installed program: the directory is not on Python's path by default.
    start = "import os, sys; from chatstream.__main__ import main; del os.environ['PYTHONPATH']; sys.exit(main())"
    program = ("-P", "-c", start, "check-config")
    done = run(python=program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plug-in   my_app:plugin (context, system_prompt)\n" in done.stdout
    assert "hunter2" not in done.stdout
    (tmp_path / ".env").rename(tmp_path / "other.env")
    (tmp_path / "src").mkdir()
    (tmp_path / "my_app.py").rename(tmp_path / "src" / "my_app.py")
    with (tmp_path / "other.env").open("a") as more:
        more.write("PYTHONPATH=src\n")
    assert run(python=(*program, "--env-file", "other.env")).returncode == 0
    assert "my_app.py must be in the directory" in run(python=program, CHATSTREAM_PLUGINS="my_app:plugin").stderr
    assert "named without .py: my_app:plugin" in run(python=program, CHATSTREAM_PLUGINS="my_app.py:plugin").stderr
    (tmp_path / "src" / "my_app.py").rename(tmp_path / "my_app.py")
    missing = run(python=program, CHATSTREAM_PLUGINS="my_app:plugin")
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[1:] == [
        "  CHATSTREAM_PLUGINS: my_app:plugin cannot be called: it needs the environment variable SERVICE_URL: set it "
        "in the environment or in the env file"
    ]


def test_the_environment_wins_over_the_env_file_for_others_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_SERVICE=file\nA_TOKEN=file\nAN_EMPTY=\n")
    os.environ["A_SERVICE"] = "environment"
    assert command("check-config")[0] == 0
    assert (os.environ["A_SERVICE"], os.environ["A_TOKEN"], os.environ["AN_EMPTY"]) == ("environment", "file", "")
    (tmp_path / ".env").write_text("'A=B'=c\n")
    assert command("check-config")[2].splitlines()[1:] == ["  .env: A=B cannot be put into this machine's environment"]


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_plugin_that_cannot_be_made_is_named(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "rules.py").write_text("def plugin():\n    raise LookupError('RULES_FILE is not set')\n")
    result = run(command, CHATSTREAM_PLUGINS="chatstream.plugins.bets:plugin, rules:plugin")
    assert result.returncode == {"check-config": 2, "serve": 1}[command]
    assert "CHATSTREAM_PLUGINS: rules:plugin cannot be called: LookupError: RULES_FILE is not set" in result.stderr
    assert "Traceback" not in result.stderr
