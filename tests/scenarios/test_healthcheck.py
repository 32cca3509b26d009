"""The health check of the Dockerfile: it uses the server's own port and address family, and no proxy."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.processes import REPOSITORY, ServerProcess, free_port


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run HEALTHCHECK's command, with only this environment."""
    dockerfile = (REPOSITORY / "conf" / "Dockerfile").read_text()
    [command] = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", dockerfile, re.MULTILINE)
    [python, script] = json.loads(command)
    assert python.endswith("/.venv/bin/python")
    assert f"COPY conf/{Path(script).name} {Path(script).parent}/\n" in dockerfile
    program = REPOSITORY / "conf" / Path(script).name
    return subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost"])  # noqa: S104 - of a test
def test_it_asks_the_server_where_it_listens(start_server: StartServer, host: str) -> None:
    server = start_server(ready=False, CHATSTREAM_HOST=host)
    wait_for(" listens on ", server)
    dead = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), dead)
    found = check(CHATSTREAM_HOST=host, CHATSTREAM_PORT=str(server.port), **proxies)
    assert (found.returncode, found.stderr) == (0, "")


def wait_for(line: str, server: ServerProcess) -> None:
    """Wait until the server has logged this."""
    while line not in server.log:
        assert server.process is not None
        assert server.process.poll() is None, server.log
        time.sleep(0.05)  # between two polls; there is no event to wait for in another process


def test_a_server_that_is_not_ready_or_not_there_is_not_healthy(start_server: StartServer) -> None:
    waiting = start_server(ready=False, MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0")
    wait_for("the database", waiting)
    found = check(CHATSTREAM_PORT=str(waiting.port))
    assert (found.returncode, found.stderr) == (1, "/readyz: 503\n")
    found = check(CHATSTREAM_PORT=str(free_port()), CHATSTREAM_HOST="")
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
