"""A whole server process that trusts an issuer's keys."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chatstream.auth import Rules, mint
from tests.conftest import MakeClient, StartServer
from tests.support.client import API, Client
from tests.support.issuer import Issuer, jwk
from tests.support.processes import free_port
from tests.support.tokens import HOUR

KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RULES = Rules(algorithms=("ES256",), issuer="https://issuer.example", audience="chat")
SETTINGS = {
    "JWT_SECRET": "",
    "CHATSTREAM_JWT_ALGORITHMS": "ES256",
    "CHATSTREAM_JWT_ISSUER": "https://issuer.example",
    "CHATSTREAM_JWT_AUDIENCE": "chat",
}


def show(client: Client, private: ec.EllipticCurvePrivateKey) -> None:
    client.http.headers["Authorization"] = f"Bearer {mint(private, client.user, HOUR, RULES, kid='one')}"


@pytest.mark.gen_test
async def test_an_issuer_and_one_that_is_not_there(start_server: StartServer, make_client: MakeClient) -> None:
    issuer = Issuer(jwk(KEY, "ES256", kid="one"))
    there = start_server(ready=False, CHATSTREAM_JWKS_URL=issuer.url, **SETTINGS)
    gone = start_server(ready=False, CHATSTREAM_JWKS_URL=f"http://127.0.0.1:{free_port()}/keys", **SETTINGS)
    for server in (there, gone):
        await asyncio.to_thread(server.wait_until_ready)  # the issuer, in this process, answers meanwhile
    client = make_client(there)
    assert (await client.http.get(API)).status_code == 401  # a token signed with a secret
    show(client, OTHER)
    assert (await client.http.get(API)).status_code == 401
    show(client, KEY)
    conversation = await client.create()
    async with client.stream(conversation) as watched:
        assert (await watched.next()).type == "connected"
    assert issuer.asked == 1
    await issuer.close()
    assert (await client.http.get(API)).status_code == 200

    client = make_client(gone, client.user)
    show(client, KEY)
    response = await client.http.get(API)
    assert (response.status_code, response.json()["code"]) == (503, "auth_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    async with client.stream(conversation) as refused:  # an EventSource reconnects after it
        [only] = await refused.rest()
    assert (only.data["error"], only.data["retryable"]) == ("auth_unavailable", True)
    assert "Traceback" not in there.log + gone.log
