"""Channel names and interfaces to extensions, and which of them an argument means."""

from __future__ import annotations

import pytest

from noojee_agi.asterisk import extensions


@pytest.mark.parametrize(
    ("channel", "extension"),
    [
        ("SIP/410-12FA7B", "410"),
        ("PJSIP/410-00000a1f", "410"),
        ("PJSIP/trunk-a-0000001", "trunk-a"),
        ("PJSIP/a-b-c-0000001", "a-b-c"),
        ("IAX2/410-5123", "410"),
        ("DAHDI/1-1", "1"),
        ("Local/410@agents-00000001;1", "410"),
        ("Local/410@agents-00000001;2", "410"),
        ("Local/410@my-agents-00000001;2", "410"),
        ("SIP/410", "410"),
        ("PJSIP/anna.weber-00000002", "anna.weber"),
        ("PJSIP/M\u00fcller-00000002", "M\u00fcller"),
        ("", ""),
        ("PJSIP/", ""),
    ],
)
def test_an_extension_is_what_is_left_of_a_channel_name(channel: str, extension: str) -> None:
    assert extensions.of_channel(channel) == extension


@pytest.mark.parametrize(
    ("interface", "extension"),
    [
        ("PJSIP/410", "410"),
        ("SIP/410", "410"),
        ("Local/410@agents", "410"),
        ("Local/410@agents/n", "410"),
        ("PJSIP/trunk-a", "trunk-a"),
        ("410", "410"),
        ("", ""),
    ],
)
def test_an_interface_has_no_unique_suffix_to_cut(interface: str, extension: str) -> None:
    assert extensions.of_interface(interface) == extension


ON_CALL = ("410", "trunk-a", "Anna", "800")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("410", "410"),
        ("PJSIP/410", "410"),
        ("SIP/410", "410"),
        ("Local/410@agents", "410"),
        ("trunk-a", "trunk-a"),
        ("pjsip/TRUNK-A", "trunk-a"),
        ("anna", "Anna"),
        ("800", "800"),
        ("SIP/410-12FA7B", "410"),
        ("PJSIP/410-0000000a", "410"),
        # Not on the call, or not yet.
        ("41", "41"),
        ("4100", "4100"),
        ("PJSIP/411", "411"),
        ("PJSIP/411-0000000a", "411"),
        ("Local/411@agents-0000000a;2", "411"),
        ("PJSIP/acme-200100", "acme-200100"),
        ("PJSIP/sales-facade", "sales-facade"),
        ("PJSIP/", ""),
    ],
)
def test_an_extension_is_named_with_and_without_its_technology(asked: str, found: str) -> None:
    assert extensions.named(asked, ON_CALL) == found


def test_what_looks_like_a_channels_suffix_is_none_where_the_whole_is_on_the_call() -> None:
    assert extensions.named("PJSIP/acme-20010012", ["acme", "acme-20010012"]) == "acme-20010012"


def test_extensions_are_listed_once_each_in_order_and_none_empty() -> None:
    assert extensions.distinct(["410", "", "trunk", "410", "800", "trunk"]) == ("410", "trunk", "800")
