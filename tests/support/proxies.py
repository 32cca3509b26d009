"""nginx, Caddy and HAProxy with the configurations of ``conf/``, with only ports and paths changed."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from tests.support import confidential
from tests.support.processes import REPOSITORY, free_port, without_tls

CONF = REPOSITORY / "conf"

# nginx's temporary directories: without root rights it cannot use the default ones.
_NGINX_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def tool(name: str) -> str:
    """The path of a program. Servers are in directories that only root has on its PATH."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is not installed; scripts/test does that"
    return found


def changed(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each of the changes, each of which must match."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _addresses(servers: Sequence[int]) -> dict[str, str]:
    """Changes that put these ports in place of 3000, 3001 … …"""
    return {f"127.0.0.1:{3000 + number}": f"127.0.0.1:{port}" for number, port in enumerate(servers)}


def nginx(directory: Path, port: int, *servers: int) -> list[str]:
    """Write a configuration that listens on `port` and passes on to servers on those ports; the command to run it."""
    paths = "".join(f"{name}_temp_path {directory}/{name};\n" for name in _NGINX_PATHS)
    changes = {
        "http {": f"http {{\n{paths}",
        "/var/log/nginx/": f"{directory}/",
        "listen 80;": f"listen 127.0.0.1:{port};",
    } | ({"# server 127": "server 127"} if len(servers) > 1 else {})
    file = directory / "nginx.conf"
    file.write_text(changed((CONF / "nginx.conf").read_text(), changes | _addresses(servers)))
    return [tool("nginx"), "-e", f"{directory}/error.log", "-c", str(file), "-g", f"pid {directory}/pid; daemon off;"]


def caddy(directory: Path, port: int, *servers: int) -> list[str]:
    """Like `nginx`."""
    changes = {
        ":80 {": f"http://127.0.0.1:{port} {{",
        "127.0.0.1:3000": " ".join(f"127.0.0.1:{server}" for server in servers),
        "\tgrace_period": "\tadmin off\n\tgrace_period",  # otherwise all would use the same port for administration
    }
    file = directory / "Caddyfile"
    file.write_text(changed((CONF / "Caddyfile").read_text(), changes))
    return [tool("caddy"), "run", "--config", str(file)]


def haproxy(directory: Path, port: int, *servers: int) -> list[str]:
    """Like `nginx`."""
    changes = {"bind :80\n": f"bind 127.0.0.1:{port}\n"} | ({"# server two": "server two"} if len(servers) > 1 else {})
    file = directory / "haproxy.cfg"
    file.write_text(changed((CONF / "haproxy.cfg").read_text(), changes | _addresses(servers)))
    return [tool("haproxy"), "-db", "-f", str(file)]


RECIPES: dict[str, Callable[..., list[str]]] = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}


class Proxy:
    """A running proxy. `log` is its log and output, with nginx's access log."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._directory = directory

    @property
    def log(self) -> str:
        """The log so far."""
        return "".join(file.read_text() for file in sorted(self._directory.glob("*.log")))


@contextlib.contextmanager
def proxy(name: str, directory: Path, *servers: int) -> Iterator[Proxy]:
    """Run a proxy in front of servers on these ports. Fails if its log contains anything confidential."""
    directory.mkdir()
    port = free_port()
    with (directory / "output.log").open("wb") as output:
        process = subprocess.Popen(
            RECIPES[name](directory, port, *servers),
            env={**os.environ, "HOME": str(directory)},  # Caddy keeps files there
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = Proxy(directory, port)
    try:
        _wait_until_it_answers(process, running)
        yield running
    finally:
        process.terminate()
        process.wait(30)
    confidential.check(running.log, f"what {name} logs")


def _wait_until_it_answers(process: subprocess.Popen[bytes], running: Proxy) -> None:
    """Wait until the proxy sends any response; there may be no server behind it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, running.log
        with contextlib.suppress(httpx.TransportError):
            httpx.get(running.url, verify=without_tls())
            return
        time.sleep(0.05)  # between two polls; there is no event to wait for in another process
    raise AssertionError(running.log)
