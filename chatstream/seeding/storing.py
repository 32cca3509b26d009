"""Stores conversations in batches and reports the result."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from chatstream.errors import AlreadyExists, ConfigurationError
from chatstream.plugins.loading import load, subject
from chatstream.seeding import Source
from chatstream.seeding.chats import Chats
from chatstream.seeding.exports import is_export, read_export
from chatstream.seeding.files import read_file
from chatstream.settings import Settings
from chatstream.store.mongo import Mongo
from chatstream.store.seeding import BATCH_DOCUMENTS, History, Seeding, embedded_database, is_local


class Summary:
    """The result of a run: counts and duration."""

    def __init__(self) -> None:
        self.conversations = self.messages = self.skipped = 0
        self.interrupted = False
        self.seconds = 0.0

    def __str__(self) -> str:
        rate = (self.conversations + self.messages) / max(self.seconds, 0.001)
        skipped = f", {self.skipped:,} were there already" if self.skipped else ""
        return (
            f"Stored {self.conversations:,} conversations with {self.messages:,} messages{skipped} "
            f"({self.seconds:.1f} s, {rate:,.0f} documents/s)."
        )

    def json(self, database: str) -> str:
        """One object on one line."""
        documents = self.conversations + self.messages
        return json.dumps(
            {
                "database": database,
                "conversations": self.conversations,
                "messages": self.messages,
                "skipped": self.skipped,
                "seconds": round(self.seconds, 3),
                "documentsPerSecond": round(documents / max(self.seconds, 0.001)),
                "interrupted": self.interrupted,
            }
        )


async def store(source: Source, seeding: Seeding, options: argparse.Namespace, summary: Summary) -> None:
    """Store the conversations batch by batch, until all are stored or Ctrl-C is pressed.

    Raises `AlreadyExists`, before anything is stored, and `StorageUnavailable`.
    """
    if not (options.drop or options.skip_existing):
        await _refuse_existing(source, seeding)
    with ExitStack() as stack:
        files = [stack.enter_context(_writable(path)) for path in (options.owners_file, options.ids_file)]
        if options.drop:
            await seeding.drop()
        advance = stack.enter_context(_bar(source.total))
        stopped = stack.enter_context(_ctrl_c())
        begun = time.monotonic()
        stack.callback(lambda: setattr(summary, "seconds", time.monotonic() - begun))
        for batch in _batches(source.histories()):
            there = await seeding.taken(each.name for each in batch) if options.skip_existing else set()
            if new := [each for each in batch if each.name not in there]:
                await seeding.store(new)
            summary.conversations += len(new)
            summary.messages += sum(len(each.messages) for each in new)
            summary.skipped += len(there)
            for column, file in enumerate(files):
                file.writelines(f"{each.name[column]}\n" for each in batch)
            advance(len(batch))
            if stopped.is_set():
                summary.interrupted = True
                return
        await seeding.keep(source.documents())


async def _refuse_existing(source: Source, seeding: Seeding) -> None:
    names, count, first = iter(source.names()), 0, None
    while some := list(islice(names, BATCH_DOCUMENTS)):
        there = await seeding.taken(some)
        count += len(there)
        first = first or next((name for name in some if name in there), None)
    if first:
        raise AlreadyExists(
            f"{count:,} of these conversations are there already, the first is {first[1]} of {first[0]}. Nothing was "
            "stored. --skip-existing stores only the others, --drop deletes everything first."
        )


def _batches(histories: Iterable[History]) -> Iterator[list[History]]:
    """Split conversations into full batches and a rest. Only a conversation larger than a batch makes a larger one."""
    batch: list[History] = []
    size = 0
    for each in histories:
        if batch and size + each.size > BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


@contextmanager
def _writable(path: Path | None) -> Iterator[TextIO]:
    """A new file for writing; if `path` is None, one that drops its output."""
    try:
        file = (path or Path(os.devnull)).open("w", encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}") from exc
    with file:
        yield file


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar; none if the output is not a terminal or `tqdm` is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    with tqdm(total=total, unit=" conversations", file=sys.stderr, disable=None) as bar:  # None: only on a terminal
        yield bar.update


@contextmanager
def _ctrl_c() -> Iterator[asyncio.Event]:
    """An event set by the first Ctrl-C, so that the present batch is finished. A second Ctrl-C ends at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        stopped.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[str]:
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri.get_secret_value()
        return
    async with embedded_database(settings.data_dir) as (uri, running):
        whose = "a running server's" if running else "started for now"
        print(f"MONGODB_URI is not set: the embedded database in {settings.data_dir}, {whose}.", file=sys.stderr)  # noqa: T201 - a command speaks
        yield uri


def _source(options: argparse.Namespace, settings: Settings) -> Source:
    if options.file and is_export(options.file):
        return read_export(options.file)
    spoken_of = subject(load(settings.plugins))
    return read_file(options.file, settings, spoken_of) if options.file else Chats(options, spoken_of).source()


async def seed(options: argparse.Namespace, settings: Settings, summary: Summary) -> None:
    """Run the seed with these options. Raises `ChatstreamError` with a text for the user."""
    source = _source(options, settings)
    async with _database(settings) as uri:
        if options.drop and not (options.database or is_local(uri)):
            raise ConfigurationError(
                "--drop deletes all conversations, and this database is not on this machine: name it with --database"
            )
        mongo = Mongo(uri, settings.mongodb_database)
        try:
            await mongo.prepare()
            await store(source, Seeding(mongo), options, summary)
        finally:
            mongo.close()
