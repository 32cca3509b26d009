"""The form of a path in the log."""

import pytest

from chatstream.handlers.request_log import _loggable

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJl-_"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a/b", "/a/b"),
        (f"/a/{TOKEN}", "/a/[token]"),
        (f"/a/{TOKEN}/b", "/a/[token]/b"),
        (f"/a/token{TOKEN}", "/a/token[token]"),
        (f"/a/{TOKEN.replace('.', '%2E')}/b", "/a/[token]/b"),
        (f"/{'a' * 250}/{TOKEN * 100}", f"/{'a' * 250}/[token]..."),
        (f"/{'a' * 290}/{TOKEN}", f"/{'a' * 290}/[token]..."),  # cut in the middle of the token
        (
            "/api/v1/chat/conversations/0123456789abcdef01234567/stop",
            "/api/v1/chat/conversations/0123456789abcdef01234567/stop",
        ),
        ("/api/v1/chat/conversations/my-divorce/stop", "/api/v1/chat/conversations/{id}/stop"),
        ("/api/v1/chat/conversations/ada%40example.com", "/api/v1/chat/conversations/{id}"),
        (f"/api/v1/chat/conversations/{TOKEN}/stream", "/api/v1/chat/conversations/[token]/stream"),
        (f"/api/v1/chat/conversations/{'ada ' * 500}/stream", "/api/v1/chat/conversations/{id}/stream"),
        (f"/{'a' * 400}", f"/{'a' * 299}..."),
        ("/\xe9" * 150, "/\\xe9" * 60 + "..."),
    ],
)
def test_its_beginning_and_no_token(path: str, shown: str) -> None:
    assert _loggable(path) == shown
