"""How the settings say which keys, which rules and whom to ask."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatstream import auth
from chatstream.auth import Authenticator, mint
from chatstream.errors import ConfigurationError, Unauthenticated
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
