"""Compares the records of the clients and the model with the stored messages and the logs, rule by rule.

A rule is a function that yields its violations. Each rule holds after every scenario, whatever was killed, cut or
stopped; `test_reconcile.py` has a manipulated ledger for each.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from msgspec import Struct

from chatstream.events import Cursor
from tests.stress.ledger import (
    Acknowledged,
    Called,
    CallEnded,
    Deleted,
    Deleting,
    E,
    Emitted,
    Entry,
    Finished,
    Opened,
    Received,
    Regenerating,
    Sent,
    Stopped,
)

# Connections that come and go by themselves: the database driver's pool, which grows to a dozen and stays, and the
# model's connections in the moment before their end is noticed.
DESCRIPTORS_MORE = 20
_CALL = re.compile(r"mdl-(\d+)-0 ")
_CONTENT = re.compile(r"mdl-\d+-\d+|usr-[\w-]+")


class Message(Struct, frozen=True, kw_only=True):
    """A stored message; of an answer also the fields below."""

    id: str
    conversation: str  # the conversation's id for clients
    seq: int
    role: str
    content: str
    key: str | None = None  # the client's idempotency key
    reply_to: str = ""
    attempt: int = 0
    status: str = ""
    finish_reason: str | None = None
    error: str | None = None
    orphaned: bool = False  # ended by another process than the one that generated it
    unwatched: bool = False  # cut because nobody watched; sent as an error, and not begun again
    recommendations: int = 0


class Process(Struct, frozen=True, kw_only=True):
    """A server: its log, its exit status, and its open descriptors before and after the load."""

    log: str
    exit_status: int
    descriptors: tuple[int, int]


class Evidence(Struct, kw_only=True):
    """All data to compare."""

    entries: Sequence[Entry]
    messages: Sequence[Message] = ()
    processes: Sequence[Process] = ()
    secrets: Sequence[str] = ()  # tokens and keys
    orphans_allowed: bool = False  # a process died or lost its answers
    settled: frozenset[int] = frozenset()  # the chains that watched to the end


class Violation(NamedTuple):
    """A broken rule, by its name."""

    rule: str
    what: str


class Call:
    """The model's output in one call."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.text = ""
        self.reason: str | None = None
        self.ended = False


class Case:
    """The evidence, indexed."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.calls: dict[int, Call] = {}
        for entry in evidence.entries:
            match entry:
                case Called(call, question):
                    self.calls[call] = Call(question)
                case Emitted(call, text):
                    self.calls[call].text += text
                case Finished(call, reason):
                    self.calls[call].reason = reason
                case CallEnded(call, _):
                    self.calls[call].ended = True
        self.stored = {message.id: message for message in evidence.messages}
        self.questions = sorted((m for m in evidence.messages if m.role == "user"), key=lambda m: m.seq)
        self.answers = [m for m in evidence.messages if m.role == "assistant"]
        self.attempts: defaultdict[str, list[Message]] = defaultdict(list)
        for answer in sorted(self.answers, key=lambda m: m.attempt):
            self.attempts[answer.reply_to].append(answer)
        self.deleted = {entry.conversation for entry in self.of(Deleting)}
        self.connections = {entry.connection: entry for entry in self.of(Opened)}

    def of(self, kind: type[E]) -> Iterator[E]:
        """The entries of one kind."""
        return (entry for entry in self.evidence.entries if isinstance(entry, kind))

    @cached_property
    def chains(self) -> dict[int, list[Received]]:
        """The events of each chain, in order. Chains of deleted conversations are left out, as nothing of these is
        stored.
        """
        chains: dict[int, list[Received]] = {
            one.chain: [] for one in self.connections.values() if one.conversation not in self.deleted
        }
        for entry in self.of(Received):
            chain = self.connections[entry.connection].chain
            if chain in chains:
                chains[chain].append(entry)
        return chains

    @cached_property
    def chunks(self) -> list[Received]:
        """All chunks that clients received."""
        return [entry for entry in self.of(Received) if entry.data["type"] == "llm_chunk"]

    @cached_property
    def calls_of(self) -> dict[str, set[int]]:
        """The model calls from which each attempt's text comes, by the stored and by the received text; there must be
        at most one.
        """
        calls: defaultdict[str, set[int]] = defaultdict(set)
        texts = [(answer.id, answer.content) for answer in self.answers]
        texts += [(one.data["messageId"], one.data["content"]) for one in self.chunks if one.data["offset"] == 0]
        for id_, text in texts:
            if text:
                match = _CALL.match(text)
                calls[id_].add(int(match[1]) if match else 0)
        return calls

    def source(self, id_: str) -> Call:
        """The call from which an attempt's text comes; an empty call if there is none."""
        calls = self.calls_of.get(id_, set())
        return self.calls.get(next(iter(calls)), Call("")) if len(calls) == 1 else Call("")


def acknowledged_is_stored_once(case: Case) -> Iterator[str]:
    contents = Counter(question.content for question in case.questions)
    for entry in case.of(Acknowledged):
        if entry.conversation in case.deleted:
            continue
        stored = case.stored.get(entry.message_id)
        if stored is None or stored.content != entry.content or contents[entry.content] != 1:
            yield f"{entry.message_id} was acknowledged, and its content is stored {contents[entry.content]} times"


def nothing_is_made_up(case: Case) -> Iterator[str]:
    sent = {(entry.conversation, entry.key, entry.content) for entry in case.of(Sent)}
    contents = Counter(question.content for question in case.questions)
    for question in case.questions:
        if (question.conversation, question.key, question.content) not in sent:
            yield f"{question.id} was never sent"
        elif contents[question.content] > 1:
            yield f"{question.id} is there twice"


def one_key_is_one_message(case: Case) -> Iterator[str]:
    results: defaultdict[tuple[str, str], list[Acknowledged]] = defaultdict(list)
    for entry in case.of(Acknowledged):
        results[entry.conversation, entry.key].append(entry)
    for (_, key), entries in results.items():
        if len({entry.message_id for entry in entries}) > 1 or sum(entry.status == 201 for entry in entries) > 1:
            yield f"{key} was accepted as new more than once"


def attempts_are_counted(case: Case) -> Iterator[str]:
    for reply_to, attempts in case.attempts.items():
        if [answer.attempt for answer in attempts] != list(range(1, len(attempts) + 1)):
            yield f"the attempts at {reply_to} are {[answer.attempt for answer in attempts]}"
        if [answer.seq for answer in attempts] != sorted({answer.seq for answer in attempts}):
            yield f"the attempts at {reply_to} are out of order"
        if reply_to not in case.stored or case.stored[reply_to].role != "user":
            yield f"{reply_to} has answers but does not exist"


def complete_once(case: Case) -> Iterator[str]:
    asked_again = Counter(entry.conversation for entry in case.of(Regenerating))
    superseded: Counter[str] = Counter()
    for attempts in case.attempts.values():
        for answer in attempts[:-1]:  # only a `regenerate` request supersedes a complete answer
            superseded[answer.conversation] += answer.status == "complete"
    for conversation, count in superseded.items():
        if count > asked_again[conversation]:
            yield f"{conversation}: {count} complete answers superseded, {asked_again[conversation]} times asked for"


def complete_is_whole(case: Case) -> Iterator[str]:
    for answer in case.answers:
        call = case.source(answer.id)
        if answer.status == "complete" and (
            not answer.finish_reason or (answer.finish_reason, answer.content) != (call.reason, call.text)
        ):
            yield f"{answer.id} is complete with {len(answer.content)} of {len(call.text)} characters, {call.reason}"


def partial_is_a_prefix(case: Case) -> Iterator[str]:
    for answer in case.answers:
        if not case.source(answer.id).text.startswith(answer.content):
            yield f"{answer.id}, {answer.status}, is not what its call said"


def one_call_is_one_attempt(case: Case) -> Iterator[str]:
    users: defaultdict[int, set[str]] = defaultdict(set)
    for id_, calls in case.calls_of.items():
        if len(calls) > 1 or 0 in calls:
            yield f"{id_} has text of the calls {sorted(calls)}"
        for call in calls:
            users[call].add(id_)
    for call, ids in users.items():
        if len(ids) > 1:
            yield f"call {call} is in {sorted(ids)}"
    for answer in case.answers:
        question = case.stored.get(answer.reply_to)
        if answer.content and question is not None and case.source(answer.id).question != question.content:
            yield f"{answer.id} answers another question"


def nothing_received_is_lost(case: Case) -> Iterator[str]:
    for entry in case.chunks:
        answer = case.stored.get(entry.data["messageId"])
        if answer is None or answer.orphaned or answer.status == "streaming":
            continue
        end = entry.data["offset"] + len(entry.data["content"])
        if end > len(answer.content):
            yield f"{answer.id}: {end} characters were received, {len(answer.content)} are stored"


def orphans_have_a_reason(case: Case) -> Iterator[str]:
    if case.evidence.orphans_allowed:
        return
    for answer in case.answers:
        # An answer is not "stolen" if its POST got a 503, so that no client knows of it, and no model was called for
        # it.
        if answer.orphaned and case.calls_of.get(answer.id):
            yield f"{answer.id} was taken from a living process"


def nothing_is_streaming(case: Case) -> Iterator[str]:
    yield from (f"{answer.id} is streaming" for answer in case.answers if answer.status == "streaming")


def the_newest_is_answered(case: Case) -> Iterator[str]:
    watched = {one.conversation for one in case.connections.values() if one.chain in case.evidence.settled}
    newest = {question.conversation: question for question in case.questions}
    for conversation in watched & newest.keys():
        attempts = case.attempts.get(newest[conversation].id, [])
        status = attempts[-1].status if attempts else "not attempted"
        if status not in ("complete", "stopped", "failed") and not (attempts and attempts[-1].unwatched):
            yield f"{newest[conversation].id} of {conversation} is watched, and is {status}"


def calls_are_accounted_for(case: Case) -> Iterator[str]:
    deleted = {entry.content for entry in case.of(Sent) if entry.conversation in case.deleted}
    calls = sum(call.question not in deleted for call in case.calls.values())
    retries = sum(process.log.count("model retry") for process in case.evidence.processes)
    # The log leaves out some repeated lines.
    left_out = sum(int(n) for one in case.evidence.processes for n in re.findall(r'"left_out": (\d+)', one.log))
    if calls > len(case.answers) + retries + left_out:
        yield f"{calls} calls for {len(case.answers)} attempts and {retries} retries"


def chunks_are_true(case: Case) -> Iterator[str]:
    for entry in case.chunks:
        offset, content = entry.data["offset"], entry.data["content"]
        if not case.source(entry.data["messageId"]).text.startswith(content, offset):
            yield f"connection {entry.connection}: {entry.data['messageId']} at {offset} is not what its call said"


def ends_are_as_stored(case: Case) -> Iterator[str]:
    for entry in case.of(Received):
        data = entry.data
        answer = case.stored.get(data.get("messageId") or "")
        if answer is None:
            if data["type"] == "llm_complete" and case.connections[entry.connection].conversation not in case.deleted:
                yield f"connection {entry.connection}: {data['messageId']} was completed, and is not stored"
        elif data["type"] == "llm_complete":
            told = (data["content"], data["status"], data["finishReason"], data["attempt"], data["replyTo"])
            if told != (answer.content, answer.status, answer.finish_reason, answer.attempt, answer.reply_to):
                yield f"connection {entry.connection}: {answer.id} is stored {answer.status}, told {data['status']}"
        elif data["type"] == "error" and entry.id is not None and data["error"] != answer.error:
            yield f"connection {entry.connection}: {answer.id} is stored {answer.error}, told {data['error']}"


def stops_are_as_stored(case: Case) -> Iterator[str]:
    for entry in case.of(Stopped):
        answer = case.stored.get(entry.message_id)
        if answer is None:
            if entry.conversation not in case.deleted:
                yield f"{entry.message_id} was stopped, and is not stored"
        elif (entry.status, entry.content_length) != (answer.status, len(answer.content)):
            yield f"{answer.id} is stored {answer.status}, told {entry.status}"


def events_are_in_order(case: Case) -> Iterator[str]:
    for chain, received in case.chains.items():
        last = (-1, 0)
        for entry in received:
            cursor = Cursor.parse(entry.id) if entry.id else None
            if cursor is None:
                continue
            if cursor.message_id not in case.stored:
                yield f"chain {chain}: {entry.id} is of no stored message"
                continue
            place = (case.stored[cursor.message_id].seq, cursor.position)
            if place <= last:
                yield f"chain {chain}, connection {entry.connection}: {entry.id} at {place} after {last}"
            last = place


def chunks_are_contiguous(case: Case) -> Iterator[str]:
    for chain, received in case.chains.items():
        shown: Counter[str] = Counter()
        for entry in received:
            if entry.data["type"] == "llm_chunk":
                id_, offset = entry.data["messageId"], entry.data["offset"]
                if offset != shown[id_]:
                    yield f"chain {chain}, connection {entry.connection}: {id_} at {offset}, {shown[id_]} were shown"
                shown[id_] = offset + len(entry.data["content"])


def cursors_are_honoured(case: Case) -> Iterator[str]:
    for chain, received in case.chains.items():
        for entry in received:
            if entry.data["type"] == "connected" and not entry.data["resumed"]:
                yield f"chain {chain}, connection {entry.connection}: not resumed"


def watchers_have_it_all(case: Case) -> Iterator[str]:
    for chain in case.evidence.settled & case.chains.keys():
        seen = Counter((entry.data["type"], entry.data.get("messageId")) for entry in case.chains[chain])
        bets: Counter[str] = Counter()
        for entry in case.chains[chain]:
            if entry.data["type"] == "system" and entry.id:
                bets[entry.id.partition(".")[0]] += 1
        conversation = next(one.conversation for one in case.connections.values() if one.chain == chain)
        for question in case.questions:
            if question.conversation != conversation:
                continue
            if seen["user_message", question.id] != 1:
                yield f"chain {chain}: user message {question.id} {seen['user_message', question.id]} times"
            answer = case.attempts[question.id][-1] if question.id in case.attempts else None
            if (
                answer is None
                or answer.status == "streaming"
                or (answer.status == "interrupted" and not answer.content)
            ):
                continue
            completes, errors = seen["llm_complete", answer.id], seen["error", answer.id]
            told = answer.error is not None and (answer.status != "interrupted" or answer.unwatched)
            if completes != bool(answer.content or answer.error is None) or bool(errors) != told:
                yield f"chain {chain}: {answer.id}, {answer.status}: {completes} llm_complete, {errors} error"
            if bets[answer.id] != answer.recommendations:
                yield f"chain {chain}: {bets[answer.id]} of {answer.recommendations} recommendations of {answer.id}"


def deleted_is_gone(case: Case) -> Iterator[str]:
    gone = {entry.conversation for entry in case.of(Deleted)}
    yield from (f"{m.id} of {m.conversation} is there" for m in case.evidence.messages if m.conversation in gone)


def calls_are_closed(case: Case) -> Iterator[str]:
    yield from (f"call {number} is open" for number, call in case.calls.items() if not call.ended)


def descriptors_are_closed(case: Case) -> Iterator[str]:
    for number, process in enumerate(case.evidence.processes):
        before, after = process.descriptors
        if after > before + DESCRIPTORS_MORE:
            yield f"process {number}: {before} descriptors before, {after} after"


def processes_end_well(case: Case) -> Iterator[str]:
    for number, process in enumerate(case.evidence.processes):
        if process.exit_status != 0:
            yield f"process {number} ended with status {process.exit_status}"


def logs_are_clean(case: Case) -> Iterator[str]:
    for number, process in enumerate(case.evidence.processes):
        # JSON escapes line ends, so a traceback is one line; its time is enough to find it.
        for line in process.log.splitlines():
            if "Traceback" in line or 'File \\"' in line:
                yield f"process {number}: a traceback: {line}"
            if _CONTENT.search(line):
                yield f"process {number}: content in the log"
            if any(secret in line for secret in case.evidence.secrets):
                yield f"process {number}: a secret in the log"


RULES: tuple[Callable[[Case], Iterator[str]], ...] = (
    acknowledged_is_stored_once,
    nothing_is_made_up,
    one_key_is_one_message,
    attempts_are_counted,
    complete_once,
    complete_is_whole,
    partial_is_a_prefix,
    one_call_is_one_attempt,
    nothing_received_is_lost,
    orphans_have_a_reason,
    nothing_is_streaming,
    the_newest_is_answered,
    calls_are_accounted_for,
    chunks_are_true,
    ends_are_as_stored,
    stops_are_as_stored,
    events_are_in_order,
    chunks_are_contiguous,
    cursors_are_honoured,
    watchers_have_it_all,
    deleted_is_gone,
    calls_are_closed,
    descriptors_are_closed,
    processes_end_well,
    logs_are_clean,
)
# Rules that hold only some time after the last fault: a run waits until they do, within the promised 30 s.
SETTLING = (nothing_is_streaming, the_newest_is_answered, watchers_have_it_all)


def reconcile(evidence: Evidence, rules: Sequence[Callable[[Case], Iterator[str]]] = RULES) -> list[Violation]:
    """All violations."""
    case = Case(evidence)
    return [Violation(rule.__name__, what) for rule in rules for what in rule(case)]
