"""[http] allow: which networks it may name, and which addresses are in them."""

from __future__ import annotations

import pytest

from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError
from noojee_agi.web import networks
from noojee_agi.web.networks import Allowed


def allowed(allow: str) -> networks.Networks:
    return networks.of(Config(path="/etc/asterisk/noojee_agi.conf", http_allow=allow))


@pytest.mark.parametrize(
    ("allow", "count"),
    [
        ("127.0.0.0/8, ::1", 2),
        ("127.0.0.0/8 ::1", 2),
        ("127.0.0.0/8,::1", 2),
        (" , 192.0.2.1 ,, ", 1),
        ("0.0.0.0/0, ::/0", 2),
        ("2001:db8::/32", 1),
        ("", 0),
    ],
)
def test_networks_stand_with_commas_or_spaces(allow: str, count: int) -> None:
    assert len(allowed(allow)) == count


@pytest.mark.parametrize(
    "allow",
    ["192.0.2.1/24", "192.0.2.0/33", "192.0.2", "300.0.0.1", "::1::", "ab", "192.0.2.0/", "fe80::/129", "/"],
)
def test_what_is_no_network_is_refused_with_what_to_write(allow: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        allowed(f"127.0.0.1, {allow}")
    said = str(refused.value)
    assert said.startswith("/etc/asterisk/noojee_agi.conf: [http] allow: ")
    assert said.endswith("write networks such as 127.0.0.0/8, ::1, 192.0.2.0/24")


@pytest.mark.parametrize(
    ("allow", "address", "is_in"),
    [
        ("127.0.0.0/8, ::1", "127.0.0.1", True),
        ("127.0.0.0/8, ::1", "127.255.0.3", True),
        ("127.0.0.0/8, ::1", "::1", True),
        ("127.0.0.0/8, ::1", "::2", False),
        ("127.0.0.0/8, ::1", "192.0.2.1", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.0/24", "::ffff:192.0.2.1", True),
        ("192.0.2.0/24", "::192.0.2.1", False),
        ("::/0", "192.0.2.1", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("0.0.0.0/0", "::ffff:192.0.2.1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("", "127.0.0.1", False),
        ("0.0.0.0/0, ::/0", "", False),
        ("0.0.0.0/0, ::/0", "localhost", False),
        ("0.0.0.0/0, ::/0", "127.0.0.1:80", False),
        ("0.0.0.0/0, ::/0", "٢٠٠.0.0.1", False),
    ],
)
def test_an_address_is_in_a_network_of_its_family(allow: str, address: str, is_in: bool) -> None:
    config = Config(http_allow=allow)
    assert Allowed(lambda: config).has(networks.canonical(address)) == is_in


def test_what_the_contract_allows_is_loopback() -> None:
    default = Allowed(Config)
    assert default.has("127.0.0.1")
    assert default.has("::1")
    assert not default.has("192.0.2.1")


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("127.0.0.1%<b>", ""),
        ("<b>", ""),
        ("", ""),
    ],
)
def test_an_address_has_one_way_of_being_written(said: str, address: str) -> None:
    assert networks.canonical(said) == address


@pytest.mark.parametrize(
    ("address", "is_loopback"), [("127.0.0.9", True), ("::1", True), ("192.0.2.1", False), ("", False)]
)
def test_whether_it_is_this_machine(address: str, is_loopback: bool) -> None:
    assert networks.is_loopback(address) == is_loopback
