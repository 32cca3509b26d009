"""What a start loads until the server is ready: most of its CPU time, and so of the time until the first answer.

It is counted and not timed; `scripts/bench` measures the time. Whoever adds a package says here what it is for.
"""

import json
import subprocess
import sys

from tests.support.processes import REPOSITORY, SECRET, free_port

# 1.02 times what was counted in November 2026: 817 modules (948 when `openai.lib` brought what nobody uses of it; 865
# with pydantic-settings, the other commands and the API's description).
_MOST_MODULES = 833
# What no first answer needs, and what would come in unnoticed with one import too many.
_LATER = (
    "chatstream.commands.seed",
    "chatstream.config.page_file",
    "chatstream.handlers.openapi",
    "chatstream.llm.demo",
    "chatstream.plugins.bets.reader",
    "chatstream.terminal.chat",
    "chatstream.tools.mcp_servers",
    "chatstream.webhooks.sender",
    "dotenv",
    "jsonschema_rs",
    "mcp",
    "openai.resources",
    "openai.types.chat",
    "pydantic_settings",
    "tomllib",
)
# The server's own program; `gc.freeze` is the last that it does before it is ready.
_PROGRAM = """
import gc, json, os, sys
before, collections, loaded = {*sys.modules}, [], []
def ready():
    print(json.dumps([sorted({*sys.modules} - before), len(collections), loaded]), flush=True)
    os._exit(0)
from tornado.httpserver import HTTPServer
initialize = HTTPServer.initialize
def begin_to_serve(self, *args, **options):
    loaded.append("openai" in sys.modules)
    initialize(self, *args, **options)
HTTPServer.initialize = begin_to_serve
from chatstream.__main__ import main
gc.freeze = ready
gc.callbacks.append(lambda phase, _: collections.append(phase) if phase == "start" else None)
sys.exit(main([]))
"""


def test_a_start_loads_what_a_first_answer_needs_and_collects_no_garbage(mongodb_uri: str) -> None:
    environment = {
        "CHATSTREAM_ENV": "production",
        "CHATSTREAM_PORT": str(free_port()),
        "JWT_SECRET": SECRET,
        "MONGODB_DATABASE": "start",
        "MONGODB_URI": mongodb_uri,
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_MODEL": "m",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    modules, collections, loaded = json.loads(done.stdout.splitlines()[-1])
    assert {*_LATER} & {*modules} == set()
    assert "openai" in modules
    assert loaded
    assert all(loaded)  # before anybody's request takes the CPU from the loading
    assert len(modules) <= _MOST_MODULES
    assert collections <= 1  # one may be due when the program begins; with collections there are hundreds
