"""schemathesis, with all checks, makes requests from the server's document and checks the responses against it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatstream import auth
from tests.conftest import StartServer
from tests.support.processes import SECRET

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


# Requests for each operation: in a normal run enough for every kind of value; the variable can ask for hundreds.
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "5")


@pytest.mark.unmeasured
@pytest.mark.timeout(300)  # hundreds of requests; on a failure, schemathesis also reduces the example
def test_the_server_is_as_its_document_says(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(
        OPENAI_BASE_URL="",  # the demo model, as random requests have no scripted answers
        OPENAI_API_KEY="",
        # Each stream ends by itself after its first events, so that they can be compared.
        CHATSTREAM_CONNECTION_TIMEOUT="0.05",
        CHATSTREAM_HEARTBEAT_INTERVAL="0.05",
    )
    result = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION),
            *("run", "--max-examples", EXAMPLES, f"{server.url}/openapi.json?version=3.2"),
        ],
        cwd=tmp_path,
        env=os.environ | {"TOKEN": auth.mint(SECRET, "schemathesis", 3600)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in server.log
