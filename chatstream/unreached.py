"""Why nobody could be asked: a transport's exception in words of our own, without addresses. Pure."""

import errno
import socket
import ssl
from typing import Final

# OpenSSL's reasons (X509_V_ERR_…) for which a certificate is refused.
_EXPIRED: Final = (10,)
_OTHER_NAME: Final = (62, 64)
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
# The HTTP library's exceptions, by their names: whoever only wants words need not load it.
_CONNECTING: Final = ("ConnectTimeout", "ConnectError")
_HUNG_UP: Final = ("ReadError", "WriteError", "RemoteProtocolError", "CloseError")


def why(exc: BaseException) -> str | None:
    """What was the matter with the way there; None if there was an answer, or it was only waited for in vain."""
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
    """Whether nothing else asked there would be answered either."""
    named = {type(each).__name__ for each in (exc, exc.__cause__) if each is not None}
    return bool(named & {*_CONNECTING, "ProxyError"}) and why(exc) is not None


def _certificate(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _EXPIRED:
        return "its certificate has expired"
    if exc.verify_code in _OTHER_NAME:
        return "its certificate is for another name"
    return "its certificate is of nobody who is trusted here (SSL_CERT_FILE names whom to trust besides)"
