"""The floor: what chatstream asks of its libraries for one answer, with nothing around it.

It does the same four database operations with the same guarantees, checks the same token and sends the same request to
the model, on the same event loop. It has no log, limits, budgets or second viewer, and no way to stop or resume. So the
distance between chatstream and this server is the cost of chatstream's own work; the rest is the price of a durable
answer with motor and Tornado. It understands only the answers of the benchmark's model.
"""

import asyncio
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import jwt
import msgspec
import uvloop
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from tornado.web import Application, RequestHandler


class Delta(msgspec.Struct):
    """The text of a chunk."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One of a chunk's choices: the benchmark asks for one."""

    delta: Delta


class Chunk(msgspec.Struct):
    """What is read of a chat completion chunk."""

    choices: list[Choice]


class Floor:
    """The database, and the idle connections to the model."""

    def __init__(self, client: Any) -> None:
        database = client[os.environ["MONGODB_DATABASE"]]
        self.messages, self.conversations = database["messages"], database["conversations"]
        self.decode = msgspec.json.Decoder(Chunk).decode
        self.encode = msgspec.json.Encoder().encode
        self.model = urlsplit(os.environ["OPENAI_BASE_URL"])
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def begin(self, user: str, name: str) -> tuple[ObjectId, ObjectId, str]:
        """Read the conversation and its newest messages; store that an answer begins. A majority has it on disk."""
        newest = [{"$sort": {"seq": -1}}, {"$limit": 2}]
        joined = {"from": "messages", "localField": "_id", "foreignField": "conversationId", "pipeline": newest}
        pipeline = [{"$match": {"userId": user, "id": name}}, {"$limit": 1}, {"$lookup": joined | {"as": "newest"}}]
        (conversation,) = await self.conversations.aggregate(pipeline).to_list(None)
        question = conversation["newest"][0]
        answer: dict[str, Any] = {
            "_id": ObjectId(),
            "conversationId": conversation["_id"],
            "seq": question["seq"] + 1,
            "role": "assistant",
            "replyTo": question["_id"],
            "attempt": 1,
            "status": "streaming",
            "createdAt": datetime.now(UTC),
        }
        await self.messages.insert_one(answer)
        return conversation["_id"], answer["_id"], question["content"]

    async def ask(self, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the request to the model; the response's head is read, its body is not."""
        reader, writer = (
            self.idle.pop() if self.idle else await asyncio.open_connection(self.model.hostname, self.model.port)
        )
        asked = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}]
        body = self.encode({"model": "gpt-4o-mini", "messages": asked, "stream": True})
        head = f"POST {self.model.path}/chat/completions HTTP/1.1\r\nHost: {self.model.netloc}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def end(self, conversation: ObjectId, answer: ObjectId, text: str) -> None:
        """Store the answer, and when the conversation was used."""
        ended = {"$set": {"status": "complete", "content": text, "completedAt": datetime.now(UTC)}}
        await self.messages.find_one_and_update({"_id": answer, "conversationId": conversation}, ended)
        await self.conversations.update_one({"_id": conversation}, {"$set": {"updatedAt": datetime.now(UTC)}})


class Stream(RequestHandler):
    """GET /api/v1/chat/conversations/{id}/stream"""

    def initialize(self, floor: Floor) -> None:
        """Tornado's way to hand something to a handler."""
        self.floor = floor

    async def get(self, name: str) -> None:
        """One answer, then the end."""
        floor = self.floor
        token = self.request.headers["Authorization"].removeprefix("Bearer ")
        user = jwt.decode(token, os.environ["JWT_SECRET"], algorithms=["HS256"])["sub"]
        self.set_header("Content-Type", "text/event-stream")
        self.write(b'data: {"type":"connected"}\n\n')
        conversation, answer, question = await floor.begin(user, name)
        reader, writer = await floor.ask(question)
        whole = ""
        async for line in reader:
            if line.startswith(b"data: {"):
                for choice in floor.decode(line[6:]).choices:
                    if content := choice.delta.content:
                        whole += content
                        quoted = floor.encode(content)
                        self.write(b'id: %d\ndata: {"type":"llm_chunk","content":%b}\n\n' % (len(whole), quoted))
                        await self.flush()
            elif line.startswith(b"0\r"):  # the last chunk of the body, in HTTP/1.1's coding
                await reader.readline()
                floor.idle.append((reader, writer))
                break
        await floor.end(conversation, answer, whole)
        self.write(b'data: {"type":"llm_complete","content":%b}\n\n' % floor.encode(whole))


class Health(RequestHandler):
    """GET /health"""

    def get(self) -> None:
        """It runs."""
        self.write(b"ok")


async def main() -> None:
    """Serve until it is killed."""
    client: Any = AsyncIOMotorClient(
        os.environ["MONGODB_URI"], tz_aware=True, w="majority", journal=True, readConcernLevel="majority"
    )
    await client.admin.command("ping")
    stream = (r"/api/v1/chat/conversations/([^/]+)/stream", Stream, {"floor": Floor(client)})
    Application([stream, (r"/health", Health)]).listen(int(os.environ["PORT"]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
