"""A typical Python server: FastAPI, sse-starlette, the official clients of OpenAI and MongoDB.

`scripts/bench` runs it with uvicorn on uvloop and httptools, without an access log, and with the faster of the openai
package's own two transports.
"""

import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx2
import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from openai import AsyncOpenAI, DefaultAioHttpClient
from pymongo import AsyncMongoClient
from sse_starlette import EventSourceResponse

messages = AsyncMongoClient[dict[str, Any]](os.environ["MONGODB_URI"])[os.environ["MONGODB_DATABASE"]]["messages"]
# Zero is aiohttp's "no limit": the default would let answers wait for each other.
openai = AsyncOpenAI(http_client=DefaultAioHttpClient(limits=httpx2.Limits(max_connections=0)))
app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["http://localhost:19006"], allow_credentials=True)


def user(request: Request, access_token: str | None = None) -> str:
    """The user of the token."""
    token = access_token or request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        return str(jwt.decode(token, os.environ["JWT_SECRET"], algorithms=["HS256"])["sub"])
    except jwt.PyJWTError:
        raise HTTPException(401) from None


def event(kind: str, **fields: Any) -> dict[str, str]:
    """One event in the form for sse-starlette."""
    return {"data": json.dumps({"type": kind, "timestamp": datetime.now(UTC).isoformat(), **fields})}


async def answer(conversation_id: str) -> AsyncIterator[dict[str, str]]:
    """Yield the answer's events."""
    yield event("connected")
    try:
        question = await messages.find_one(
            {"conversationId": conversation_id, "role": "user"}, sort=[("createdAt", -1)]
        )
        stream = await openai.chat.completions.create(
            model=os.environ.get("OPENAI_MODEL", "gpt-4"),
            messages=[
                {"role": "system", "content": "You are a helpful sports betting assistant."},
                {"role": "user", "content": question["content"] if question else ""},
            ],
            stream=True,
        )
        whole = ""
        async for chunk in stream:
            if chunk.choices and (content := chunk.choices[0].delta.content):
                whole += content
                yield event("llm_chunk", content=content)
        yield event("llm_complete", content=whole)
        await messages.insert_one(
            {"conversationId": conversation_id, "role": "assistant", "content": whole, "createdAt": datetime.now(UTC)}
        )
        if "bet" in whole or "odds" in whole:
            metadata = {"betId": f"bet-{datetime.now(UTC).timestamp():.0f}", "odds": 2.5}
            yield event("system", message="New bet recommendation available", metadata=metadata)
    except Exception as exc:  # noqa: BLE001 - as the NestJS server does
        yield event("error", message="Failed to generate response", error=str(exc))


async def stream(conversation_id: str, _: Annotated[str, Depends(user)]) -> EventSourceResponse:
    """GET /api/v1/chat/conversations/{conversation_id}/stream"""
    return EventSourceResponse(answer(conversation_id), ping=30, headers={"X-Accel-Buffering": "no"})


async def health() -> str:
    """GET /health"""
    return "ok"


app.add_api_route("/api/v1/chat/conversations/{conversation_id}/stream", stream, response_model=None)
app.add_api_route("/health", health)
