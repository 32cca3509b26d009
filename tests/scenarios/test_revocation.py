"""Revoked tokens, with a whole server process that loads an operator's own check."""

from pathlib import Path

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API

PROGRAM = """
from pathlib import Path


class Sessions:
    async def revoked(self, users):
        lines = Path("revoked").read_text().split()
        if "fail" in lines:
            raise RuntimeError
        return {user for user in users if user.id in lines}
"""


@pytest.mark.gen_test
async def test_who_is_logged_out_is_put_out(start_server: StartServer, make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "sessions.py").write_text(PROGRAM)
    revoked = tmp_path / "revoked"
    revoked.write_text("nobody")
    server = start_server(CHATSTREAM_REVOCATION="sessions:Sessions", CHATSTREAM_REVOCATION_INTERVAL="0.1")
    client, other = make_client(server), make_client(server)
    conversation, others = await client.create(), await other.create()
    ticket = (await client.http.post(f"{API}/{conversation}/stream-tickets")).json()["ticket"]
    async with client.stream(conversation) as watched, other.stream(others) as stays:
        await watched.next()
        await stays.next()
        revoked.write_text("fail")
        down = await client.http.get(API)
        assert (down.status_code, down.json()["code"]) == (503, "auth_unavailable")
        async with client.stream(conversation) as refused:  # an EventSource reconnects after it
            [only] = await refused.rest()
        assert (only.data["error"], only.data["retryable"]) == ("auth_unavailable", True)
        revoked.write_text(client.user)
        *_, last = await watched.rest()
        assert (last.type, last.data["error"]) == ("error", "token_expired")
        gone = await client.http.get(API)
        assert (gone.status_code, gone.json()["detail"]) == (401, "The token has been revoked.")
        del client.http.headers["Authorization"]
        refusal = await client.http.get(f"{API}/{conversation}/stream", params={"ticket": ticket})
        assert refusal.status_code == 401
        assert "revoked" in refusal.headers["WWW-Authenticate"]
        assert (await other.http.get(API)).status_code == 200
        assert (await stays.next()).type == "heartbeat"


@pytest.mark.gen_test
async def test_a_program_that_is_not_there_is_said_at_start(start_server: StartServer) -> None:
    server = start_server(ready=False, CHATSTREAM_REVOCATION="sessions:Sessions")
    assert await server.ended() != 0
    assert "CHATSTREAM_REVOCATION: sessions:Sessions cannot be called: there is no module sessions" in server.log
