"""scripts/mint_token prints a token that the server accepts, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chatstream.auth import Authenticator, OneKey, Rules
from tests.support.processes import SECRET, chatstream

ASKED = {"CHATSTREAM_JWT_ISSUER": "us", "CHATSTREAM_JWT_AUDIENCE": "chat", "CHATSTREAM_JWT_TYPE": "at+jwt"}
PUBLIC = {"CHATSTREAM_JWT_ALGORITHMS": "ES256", "CHATSTREAM_JWKS_URL": "https://issuer.example/keys"}


def mint(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return chatstream(directory, "token", *arguments, **environment)


@pytest.mark.gen_test
async def test_it_obeys_the_settings(tmp_path: Path) -> None:
    minted = mint(
        tmp_path, "--user", "u1", JWT_SECRET=SECRET.ljust(64, "+"), CHATSTREAM_JWT_ALGORITHMS="HS512", **ASKED
    )
    rules = Rules(algorithms=("HS512",), issuer="us", audience="chat", type="at+jwt")
    authenticator = Authenticator(OneKey(SECRET.ljust(64, "+").encode()), rules)
    assert (await authenticator.authenticate(minted.stdout.removesuffix("\n"))).id == "u1"
    assert minted.stderr == ""


@pytest.mark.gen_test
async def test_with_a_private_key(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "private.pem").write_bytes(pem)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    minted = mint(tmp_path, "--private-key-file", "private.pem", **PUBLIC)
    key = OneKey.public(tmp_path / "public.pem", ("ES256",), name="")
    authenticator = Authenticator(key, Rules(algorithms=("ES256",)))
    assert (await authenticator.authenticate(minted.stdout.removesuffix("\n"))).id == "demo"
    for wrong in (["--private-key-file", "public.pem"], ["--private-key-file", "private.pem", "--algorithm", "RS256"]):
        refused = mint(tmp_path, *wrong, **PUBLIC)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "is not a private key in PEM for" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        ([], {}, "There is no secret in var to make a token with"),
        ([], PUBLIC, "name a --private-key-file"),
        (["--secret-file", sys.executable], {}, "does not hold a secret: it is not text."),
        (["--secret-file", "none"], {}, "none cannot be read: No such file or directory."),
        (["--user", ""], {"JWT_SECRET": SECRET}, "The server would refuse this token: The token's `sub`"),
        (["--expires-in", "-1"], {"JWT_SECRET": SECRET}, "The server would refuse this token: The token has expired."),
        ([], {"JWT_SECRET": "short"}, "JWT_SECRET: must be at least 32 bytes long"),
    ],
)
def test_it_says_why_not(tmp_path: Path, arguments: list[str], environment: dict[str, str], reason: str) -> None:
    refused = mint(tmp_path, *arguments, **environment)
    assert (refused.returncode, refused.stdout) == (2 if "at least" in reason else 1, "")
    assert reason in refused.stderr
