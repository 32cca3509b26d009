"""The metrics: each reported event is exposed."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from chatstream import __version__
from chatstream.errors import ErrorCode
from chatstream.metrics import Metrics
from chatstream.models import Status, Usage
from tests.support import exposition


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return exposition.samples(metrics.expose("")[1].decode())


def test_an_answer_from_its_beginning_to_its_end() -> None:
    metrics = Metrics()
    usage = Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)
    metrics.answer_finished(Status.COMPLETE, None, seconds=4, first_token=0.3, usage=usage)
    exposed = samples(metrics)
    assert exposed["chatstream_answers_finished_total", "", "complete"] == 1
    assert exposed["chatstream_answer_duration_seconds_sum",] == 4
    assert exposed["chatstream_time_to_first_token_seconds_sum",] == 0.3
    assert exposed["chatstream_tokens_total", "prompt"] == 7
    assert exposed["chatstream_tokens_total", "completion"] == 3


def test_an_answer_without_a_word() -> None:
    metrics = Metrics()
    metrics.answer_finished(Status.FAILED, ErrorCode.UPSTREAM_TIMEOUT, seconds=60, first_token=None, usage=None)
    exposed = samples(metrics)
    assert exposed["chatstream_answers_finished_total", "upstream_timeout", "failed"] == 1
    assert exposed["chatstream_time_to_first_token_seconds_count",] == 0


def test_what_goes_on_is_counted_when_it_is_asked_for() -> None:
    metrics, streams = Metrics(), [1, 2]
    metrics.watch(streams_open=lambda: len(streams), answers_running=lambda: 1)
    streams.append(3)
    exposed = samples(metrics)
    assert exposed["chatstream_streams_open",] == 3
    assert exposed["chatstream_answers_running",] == 1


def test_no_client_can_make_up_labels() -> None:
    metrics = Metrics()
    for number in range(3):
        metrics.request_finished("/healthz", f"MADE-UP-{number}", 405, 0.001)
    assert samples(metrics)["chatstream_request_duration_seconds_count", "other", "/healthz", "4xx"] == 3
    assert b"MADE-UP" not in metrics.expose("")[1]


def test_two_servers_do_not_share_their_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.refused("not_found")
    assert ("chatstream_refusals_total", "not_found") in samples(one)
    assert ("chatstream_refusals_total", "not_found") not in samples(other)


def test_what_runs() -> None:
    assert any(name == "chatstream_build_info" and __version__ in rest for name, *rest in samples(Metrics()))


def test_both_formats_are_spoken() -> None:
    metrics = Metrics()
    metrics.database_answered("find", 0.002)
    plain, _ = metrics.expose("text/plain")
    assert plain.startswith("text/plain; version=")
    open_, body = metrics.expose("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert open_.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]  # prometheus_client's own
    assert families["chatstream_database_command_duration_seconds"].samples
