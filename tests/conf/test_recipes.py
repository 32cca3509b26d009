"""The recipes of ``conf/`` and the scripts, checked by the tools for their formats."""

import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support import proxies
from tests.support.processes import REPOSITORY

CONF = REPOSITORY / "conf"
# The directory of Python's executable, where console scripts are installed.
_SCRIPTS = Path(sys.executable).parent


def accepts(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate and its key, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example.com")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / "chat.example.com.pem"
    file.write_bytes(pem + made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return file


def test_nginx_accepts_what_is_commented_out_for_tls(tmp_path: Path, certificate: Path) -> None:
    command = proxies.nginx(tmp_path, 8443, 3000, 3001)
    file = tmp_path / "nginx.conf"
    changes = {
        "# listen 443 ssl": "listen 127.0.0.1:8444 ssl",
        "# ssl_certificate": "ssl_certificate",
        "# add_header": "add_header",
        "/etc/ssl/certs/chat.example.com.pem": str(certificate),
        "/etc/ssl/private/chat.example.com.key": str(certificate),
    }
    file.write_text(proxies.changed(file.read_text(), changes))
    accepts(*command, "-t")


def test_haproxy_accepts_what_is_commented_out_for_tls(tmp_path: Path, certificate: Path) -> None:
    command = proxies.haproxy(tmp_path, 8443, 3000, 3001)
    file = tmp_path / "haproxy.cfg"
    changes = {
        "# bind :443": "bind :443",
        "/etc/ssl/chat.example.com.pem": str(certificate),
        "# http-": "http-",
    }
    file.write_text(proxies.changed(file.read_text(), changes))
    accepts(*command, "-c")


def test_caddy_accepts_its_file_and_would_write_it_the_same() -> None:
    accepts(proxies.tool("caddy"), "validate", "--config", CONF / "Caddyfile")
    formatted = subprocess.run([proxies.tool("caddy"), "fmt", CONF / "Caddyfile"], capture_output=True, text=True)
    assert formatted.stdout == (CONF / "Caddyfile").read_text()


def test_the_dockerfile_and_the_compose_file() -> None:
    accepts(_SCRIPTS / "hadolint", CONF / "Dockerfile")
    accepts(_SCRIPTS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", CONF / "compose.yml")


def test_the_scripts_by_shellcheck() -> None:
    scripts = [file for file in (REPOSITORY / "scripts").iterdir() if is_for_a_shell(file)]
    accepts(proxies.tool("shellcheck"), "--external-sources", "--source-path=SCRIPTDIR", *scripts)


def is_for_a_shell(file: Path) -> bool:
    return file.suffix == ".sh" or (file.is_file() and file.read_bytes().startswith(b"#!/usr/bin/env bash"))


def test_what_the_image_installs_is_the_whole_program(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # the files that the Dockerfile copies
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "chatstream", tmp_path / "chatstream", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    accepts(*pip, "--wheel-dir", tmp_path, tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    program = {str(file.relative_to(tmp_path)) for file in tmp_path.glob("chatstream/**/*") if file.is_file()}
    assert program - {*zipfile.ZipFile(wheel).namelist()} == set()
