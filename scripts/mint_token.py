"""Prints a JSON Web Token that the server accepts, alone on standard output. Run it as ``scripts/mint_token``."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import cast, get_args

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import AllowedPublicKeys

from chatstream import auth
from chatstream.auth import Authenticator, OneKey, Rules
from chatstream.errors import ConfigurationError, Unauthenticated
from chatstream.settings import Algorithm, Settings

ENV_FILE = Path(".env")


def main() -> int:
    """Returns the exit status: 0, or 1 with a reason on standard error."""
    parser = argparse.ArgumentParser(
        prog="scripts/mint_token",
        description="Print a token for the API, as the server's settings (from the environment or .env) ask for it.",
        epilog="The secret is the server's: JWT_SECRET, else the one that a development server made for itself in its "
        "data directory. A server with public keys needs --private-key-file.",
    )
    parser.add_argument("--user", default="demo", help="who the token is for, its `sub` (%(default)s)")
    parser.add_argument(
        "--expires-in", type=int, default=3600, metavar="SECONDS", help="how long it is good for (%(default)s)"
    )
    parser.add_argument("--secret-file", type=_path, metavar="FILE", help="sign with the secret in this file instead")
    parser.add_argument("--private-key-file", type=_path, metavar="FILE", help="sign with the private key in this PEM")
    parser.add_argument("--algorithm", choices=get_args(Algorithm), help="the first of CHATSTREAM_JWT_ALGORITHMS")
    arguments = parser.parse_args()
    try:
        settings = Settings.load(os.environ, ENV_FILE if ENV_FILE.exists() else None)
        rules = auth.rules(settings)
        if arguments.algorithm:
            rules = msgspec.structs.replace(rules, algorithms=(arguments.algorithm,))
        token = _mint(settings, rules, arguments)
    except Unauthenticated as exc:
        sys.stderr.write(f"The server would refuse this token: {exc}\n")
        return 1
    except ConfigurationError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except OverflowError:
        parser.error("argument --expires-in: no calendar goes so far")
    sys.stdout.write(f"{token}\n")
    return 0


def _mint(settings: Settings, rules: Rules, arguments: argparse.Namespace) -> str:
    if arguments.private_key_file is not None:
        pem = _read(arguments.private_key_file)
        try:
            public = load_pem_private_key(pem.encode(), password=None).public_key()
            token = auth.mint(pem, arguments.user, arguments.expires_in, rules)
        except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError, NotImplementedError):
            raise ConfigurationError(
                f"{arguments.private_key_file} is not a private key in PEM for {rules.algorithms[0]}."
            ) from None
        key = OneKey(cast("AllowedPublicKeys", public))
    else:
        secret = _secret(settings, arguments.secret_file)
        key = OneKey.secret(secret, rules.algorithms)
        token = auth.mint(secret, arguments.user, arguments.expires_in, rules)
    asyncio.run(Authenticator(key, rules).authenticate(token))  # what the server would refuse is not printed
    return token


def _secret(settings: Settings, file: Path | None) -> str:
    if file is not None:
        return auth.secret_from(file)
    if not settings.verifies_with_secret:
        raise ConfigurationError("The server verifies tokens with public keys: name a --private-key-file.")
    return auth.secret(settings)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror}.") from exc


def _path(argument: str) -> Path:
    return Path(os.environ.get("CALLED_FROM", ""), argument)


if __name__ == "__main__":
    sys.exit(main())
