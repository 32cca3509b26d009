"""The openai package as this server loads it: a part at first, and each other part when code uses it."""

import json
import subprocess
import sys

from tests.support.processes import REPOSITORY

# A program that prints the names in some of the packages, and their modules.
_NAMES = """
import importlib, json
found = {}
for name in ("openai.types", "openai.types.chat", "openai.types.responses", "openai.types.shared"):
    names = vars(importlib.import_module(name))
    found[name] = sorted(
        (each, value.__module__) for each, value in names.items() if each[0] != "_" and hasattr(value, "__module__")
    )
print(json.dumps(found))
"""
_LATER = """
import sys
from chatstream.llm.sdk import openai
loaded = sum(name.startswith("openai.types") for name in sys.modules)
assert loaded < 100, loaded
client = openai.AsyncOpenAI(api_key="x", base_url="http://127.0.0.1:1/v1")
assert client.chat.completions.create.__name__ == client.responses.create.__name__ == "create"
from openai.types.chat import ChatCompletion
from openai.types import *
assert openai.types.responses.Response.__name__ == "Response"
assert openai.types.shared.ReasoningEffort
"""

_THREADS = """
import threading
from pydantic import BaseModel
from chatstream.llm.sdk import openai

class Tool(BaseModel):
    pass

begin, failed = threading.Barrier(8), []

def use(name):
    begin.wait()
    try:
        getattr(openai.types, name)
        openai.pydantic_function_tool(Tool)
    except BaseException as exc:
        failed.append(exc)

names = ["FileObject", "Model", "Image", "Moderation"] * 2
threads = [threading.Thread(target=use, args=(name,)) for name in names]
for each in threads:
    each.start()
for each in threads:
    each.join()
assert not failed, failed
"""


def python(script: str) -> str:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_loaded_later_is_what_would_have_been_loaded_at_once() -> None:
    assert json.loads(python(_LATER + _NAMES)) == json.loads(python("import openai\n" + _NAMES))


def test_threads_may_use_it_for_the_first_time_at_the_same_moment() -> None:
    python(_THREADS)
