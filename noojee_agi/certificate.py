"""The certificate of https: until when it holds, and whether its key fits."""

import ipaddress
import socket
import ssl
import time

DAY_SECONDS = 86400


def is_needed(listen: str) -> bool:
    """Whether that address:port can be reached from elsewhere. Raises OSError and OverflowError."""
    host, _, port = listen.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    return not ipaddress.ip_address(found[4][0]).is_loopback


def days_left(path: str) -> float:
    """Until it expires; negative when it has. Raises OSError."""
    return (expires_at(path) - time.time()) / DAY_SECONDS


def expires_at(path: str) -> float:
    """In seconds of time.time(). Raises OSError."""
    # The standard library tells the date of a certificate only of a connection's other end; this function of
    # its own tests reads a file, in every Python from 3.10 to 3.14.
    about = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
    return float(ssl.cert_time_to_seconds(about["notAfter"]))


def context(certificate: str, key: str) -> ssl.SSLContext:
    """For a server. Raises OSError: one cannot be read, or they do not fit, or the key wants a password."""
    for path in (certificate, key):
        with open(path, "rb"):
            pass  # ssl does not say which of them cannot be read
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(certificate, key, lambda: "")  # nobody sits there to type one
    return made
