"""``chatstream token``: prints a JSON Web Token that the server accepts, and nothing else on standard output."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from chatstream.commands import options
from chatstream.errors import ConfigurationError, Unauthenticated
from chatstream.settings import Algorithm, Settings

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

    from chatstream.auth import OneKey, Rules


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "token",
        help="print a token for the API",
        description="Print a token for the API, as the server's settings (from the environment or .env) ask for it.",
        epilog="The secret is the server's: JWT_SECRET, else the one that a development server made for itself in its "
        "data directory. A server with public keys needs --private-key-file.",
    )
    parser.add_argument("--user", default="demo", help="who the token is for, its `sub` (%(default)s)")
    parser.add_argument(
        "--expires-in", type=_seconds, default=3600, metavar="SECONDS", help="how long it is good for (%(default)s)"
    )
    parser.add_argument("--secret-file", type=Path, metavar="FILE", help="sign with the secret in this file instead")
    parser.add_argument("--private-key-file", type=Path, metavar="FILE", help="sign with the private key in this PEM")
    parser.add_argument("--algorithm", choices=get_args(Algorithm), help="the first of CHATSTREAM_JWT_ALGORITHMS")
    options.add_env_file(parser)
    parser.set_defaults(run=run)


def _seconds(text: str) -> int:
    # At most a hundred years, or `datetime` overflows. The server itself accepts at most one year.
    if not text.lstrip("-").isdecimal() or abs(int(text[:20])) > 100 * 366 * 86_400:
        raise argparse.ArgumentTypeError("must be a whole number of seconds; a year, 31622400, is the most")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Raises `ConfigurationError` if there is nothing to sign with."""
    import msgspec

    from chatstream import auth

    settings = options.load(arguments)
    rules = auth.rules(settings)
    if arguments.algorithm:
        rules = msgspec.structs.replace(rules, algorithms=(arguments.algorithm,))
    try:
        token = _mint(settings, rules, arguments)
    except Unauthenticated as exc:
        options.say(f"The server would refuse this token: {exc}")
        return 1
    sys.stdout.write(f"{token}\n")
    return 0


def _mint(settings: Settings, rules: "Rules", arguments: argparse.Namespace) -> str:
    from chatstream import auth
    from chatstream.auth import Authenticator, OneKey

    if arguments.private_key_file is not None:
        token, key = _signed_with_private_key(arguments, rules)
    else:
        secret = _secret(settings, arguments.secret_file)
        key = OneKey.secret(secret, rules.algorithms)
        token = auth.mint(secret, arguments.user, arguments.expires_in, rules)
    asyncio.run(Authenticator(key, rules).authenticate(token))  # do not print a token that the server would refuse
    return token


def _signed_with_private_key(arguments: argparse.Namespace, rules: "Rules") -> "tuple[str, OneKey]":
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from chatstream import auth
    from chatstream.auth import OneKey

    pem = _read(arguments.private_key_file)
    try:
        public = load_pem_private_key(pem, password=None).public_key()
        token = auth.mint(pem, arguments.user, arguments.expires_in, rules)
    except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError, NotImplementedError):
        raise ConfigurationError(
            f"{arguments.private_key_file} is not a private key in PEM for {rules.algorithms[0]}."
        ) from None
    return token, OneKey(cast("AllowedPublicKeys", public))


def _secret(settings: Settings, file: Path | None) -> str:
    from chatstream import auth

    if file is not None:
        return auth.secret_from(file)
    if not settings.verifies_with_secret:
        raise ConfigurationError("The server verifies tokens with public keys: name a --private-key-file.")
    return auth.secret(settings)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror}.") from exc
