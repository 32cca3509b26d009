"""Explains why a host could not be reached: a transport's exception in our own words, without addresses. Pure."""

import errno
import socket
import ssl
from typing import Final

# OpenSSL's codes (X509_V_ERR_…) for rejected certificates.
_EXPIRED: Final = (10,)
_OTHER_NAME: Final = (62, 64)
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
# The HTTP library's exceptions by name, so that this module need not import the library.
_CONNECTING: Final = ("ConnectTimeout", "ConnectError")
_HUNG_UP: Final = ("ReadError", "WriteError", "RemoteProtocolError", "CloseError")


def why(exc: BaseException) -> str | None:
    """Return the reason why the host was not reached; None if it responded, or if only its response timed out."""
    causes = [exc]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    names = {kind.__name__ for each in causes for kind in type(each).__mro__}
    for each in causes:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _certificate(each)
        if isinstance(each, ssl.SSLError) and not isinstance(each, ssl.SSLEOFError):
            return "it does not speak TLS as https:// wants it"
        if isinstance(each, socket.gaierror):
            return "no host has this name" if each.errno != socket.EAI_AGAIN else "the name server does not answer"
        if isinstance(each, OSError) and each.errno in _NO_WAY:
            return "there is no way to it from here"
        if isinstance(each, ConnectionRefusedError):
            return "nobody listens there"
    if "ProxyError" in names:
        return "the proxy refuses it"
    if "MalformedResponse" in names:
        return "what answers there is no HTTP"
    if "ConnectTimeout" in names:
        return "no connection comes about in time"
    if names & {*_HUNG_UP} or "ConnectionResetError" in names or "ConnectError" in names:
        return "it hangs up without an answer"
    return None


def is_certain(exc: BaseException) -> bool:
    """Whether every other request to this host would fail, too."""
    named = {type(each).__name__ for each in (exc, exc.__cause__) if each is not None}
    return bool(named & {*_CONNECTING, "ProxyError"}) and why(exc) is not None


def _certificate(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _EXPIRED:
        return "its certificate has expired"
    if exc.verify_code in _OTHER_NAME:
        return "its certificate is for another name"
    return "its certificate is of nobody who is trusted here (SSL_CERT_FILE names whom to trust besides)"
