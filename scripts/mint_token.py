"""Prints a JSON Web Token that the server accepts, alone on standard output. Run it as ``scripts/mint_token``."""

import argparse
import os
import sys
from pathlib import Path

from chatstream import auth
from chatstream.errors import ConfigurationError, Unauthenticated
from chatstream.settings import MIN_SECRET_BYTES, SECRET_FILE, Settings

ENV_FILE = Path(".env")


def main() -> int:
    """Returns the exit status: 0, or 1 with a reason on standard error."""
    parser = argparse.ArgumentParser(
        prog="scripts/mint_token",
        description="Print a token for the API.",
        epilog="The secret is the server's: JWT_SECRET from the environment or .env, "
        "else the one that a development server made for itself in its data directory.",
    )
    parser.add_argument("--user", default="demo", help="who the token is for, its `sub` (%(default)s)")
    parser.add_argument(
        "--expires-in", type=int, default=3600, metavar="SECONDS", help="how long it is good for (%(default)s)"
    )
    parser.add_argument("--secret-file", type=Path, metavar="FILE", help="sign with the secret in this file instead")
    arguments = parser.parse_args()
    try:
        file = arguments.secret_file and Path(os.environ.get("CALLED_FROM", ""), arguments.secret_file)
        secret = _secret(file)
        token = auth.mint(secret, arguments.user, arguments.expires_in)
        auth.Authenticator(secret).authenticate(token)  # what the server would refuse is not printed
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


def _secret(file: Path | None) -> str:
    if file is None:
        settings = Settings.load(os.environ, ENV_FILE if ENV_FILE.exists() else None)
        if settings.jwt_secret is not None:
            return settings.jwt_secret.get_secret_value()
        file = settings.data_dir / SECRET_FILE
        if not file.exists():
            raise ConfigurationError(
                f"There is no secret yet: start the server once, which makes {file}, or set JWT_SECRET."
            )
    try:
        secret = file.read_text().strip()
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror}.") from exc
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"The secret in {file} is shorter than {MIN_SECRET_BYTES} bytes.")
    return secret


if __name__ == "__main__":
    sys.exit(main())
