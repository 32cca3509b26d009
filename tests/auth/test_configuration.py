"""The authentication that the settings configure: keys, rules, revocation."""

import secrets
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatstream import auth
from chatstream.auth import Authenticator, OneKey, mint
from chatstream.errors import ConfigurationError, InvalidSettings, Unauthenticated
from chatstream.settings import Settings
from tests.support.processes import SECRET
from tests.support.tokens import HOUR


@pytest.mark.gen_test
async def test_a_public_key_from_a_file_and_no_secret_beside_it(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    settings = Settings(
        jwt_public_key_file=tmp_path / "public.pem", jwt_algorithms=("ES256",), jwt_issuer="us", jwt_type="at+jwt"
    )
    rules = auth.rules(settings)
    async with auth.keys(settings, None) as keys:
        authenticator = Authenticator(keys, rules, guard=auth.guard(settings))
        assert (await authenticator.authenticate(mint(private, "u1", HOUR, rules))).id == "u1"
        for other in (mint(private, "u1", HOUR, auth.Rules(algorithms=("ES256",))), mint(SECRET, "u1", HOUR)):
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(other)
    (tmp_path / "public.pem").unlink()
    with pytest.raises(ConfigurationError, match="CHATSTREAM_JWT_PUBLIC_KEY_FILE"):
        async with auth.keys(settings, None):
            pass


@pytest.mark.gen_test
async def test_a_secret() -> None:
    settings = Settings()
    async with auth.keys(settings, SECRET) as keys:
        authenticator = Authenticator(keys, auth.rules(settings))
        assert (await authenticator.authenticate(mint(SECRET, "u1", HOUR))).id == "u1"


def test_servers_that_start_together_in_one_directory_share_one_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All find no secret and make one at the same time, so that none knows of the others' secrets."""
    together, settings = threading.Barrier(4), Settings(data_dir=tmp_path / "var")
    make = secrets.token_hex

    def late(size: int) -> str:
        together.wait(30)
        return make(size)

    monkeypatch.setattr(secrets, "token_hex", late)
    with ThreadPoolExecutor(4) as servers:
        found = {*servers.map(lambda _: auth.secret(settings, make=True), range(4))}
    monkeypatch.undo()
    assert found == {auth.secret(settings)} == {auth.secret(settings, make=True)}
    [file] = settings.data_dir.iterdir()  # nothing is left behind
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("jwt_secret", 0o600)


@pytest.mark.gen_test
async def test_the_claim_that_has_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(jwt_user_claim="user_id")
    authenticator = Authenticator(OneKey.secret(SECRET, ("HS256",)), auth.rules(settings))
    assert (await authenticator.authenticate(mint(SECRET, "u5", HOUR, auth.rules(settings)))).id == "u5"
    for wrong in ("exp", "iss", 'a"b', "a\\b", "a b", "ü"):
        monkeypatch.setenv("CHATSTREAM_JWT_USER_CLAIM", wrong)
        with pytest.raises(InvalidSettings, match="CHATSTREAM_JWT_USER_CLAIM"):
            Settings.load(["CHATSTREAM_JWT_USER_CLAIM"], None)
