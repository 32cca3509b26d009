"""The search for confidential texts in logs, metrics and errors finds them."""

import httpx
import pytest

from chatstream import auth
from tests.conftest import StartServer
from tests.support import confidential
from tests.support.client import Client, look_at_error
from tests.support.processes import SECRET


@pytest.mark.parametrize(
    "leak",
    [
        auth.mint(SECRET, "user", 60),
        "GET /stream?access_token=" + auth.mint(SECRET, "user", 60),
        "sk-test-this-must-never-be-seen",
        SECRET,
        "You are a helpful sports betting assistant.",
        'What "nobody" may log.',
        r"What \"nobody\" may log.",  # with JSON escapes
        ("A long story." * 8)[:100],
    ],
)
def test_what_is_confidential_is_found(leak: str) -> None:
    confidential.remember('What "nobody" may log.', "A long story." * 100)
    with pytest.raises(AssertionError, match="confidential"):
        confidential.check(f'{{"message": "so: {leak}"}}', "the log", also=[SECRET])
    confidential.check('{"message": "nothing to see"}', "the log", also=[SECRET])


def test_a_server_with_a_leak_in_its_log_fails_the_test(start_server: StartServer) -> None:
    server = start_server()
    with server.log_path.open("a") as log:
        log.write(auth.mint(SECRET, "user", 60) + "\n")
    with pytest.raises(AssertionError, match="confidential, but in the log"):
        server.stop()
    server.log_path.write_text("")  # the fixture stops the server and checks its log again


@pytest.mark.gen_test
async def test_what_a_client_sends_is_remembered_and_errors_are_looked_at(client: Client) -> None:
    conversation = await client.create(systemPrompt="Keep this prompt to yourself.")
    await client.post(conversation, "And this question, too.")
    for told in ("Keep this prompt to yourself.", "And this question, too."):
        error = httpx.Response(422, json={"detail": told}, request=httpx.Request("POST", client.url))
        with pytest.raises(AssertionError, match="confidential"):
            await look_at_error(error)
