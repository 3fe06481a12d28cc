import socket

import pytest

from rankproof import RankproofError
from rankproof.wire import check_destination


def leads_to(*addresses):
    # What the resolver would say.
    def resolve(host, port):
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [(kind, 1, 6, "", (address, port)) for kind, address in zip(kinds, addresses, strict=True)]

    return resolve


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.10", "::1", "10.1.2.3", "172.31.0.1", "192.168.4.4", "fd12::1", "::ffff:a00:1"],
)
def test_the_own_network_needs_no_permission(address):
    found = check_destination("http://shop.local:8000/search", resolve=leads_to(address))
    assert (found.host, found.address, found.authorised) == ("shop.local", address, None)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "100.64.0.1",
        "169.254.169.254",  # a cloud's metadata, which Python counts as private
        "192.0.2.1",
        "224.0.0.1",
        "2001:4860:4860::8888",
        "fe80::1",
        "::ffff:8.8.8.8",  # an IPv4 address in a coat
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_any_other_place_needs_somebodys_word(address):
    with pytest.raises(RankproofError, match="--i-am-authorised"):
        check_destination("http://shop.example/search", resolve=leads_to(address))
    found = check_destination("http://shop.example/search", "Ann, test of 3 May", resolve=leads_to(address))
    assert found.authorised == "Ann, test of 3 May"


def test_a_name_that_leads_to_both_is_refused():
    for addresses in (("127.0.0.1", "8.8.8.8"), ("8.8.8.8", "127.0.0.1"), ("::1", "2001:4860:4860::8888")):
        with pytest.raises(RankproofError, match="no loopback or private address"):
            check_destination("http://shop.example/", resolve=leads_to(*addresses))


def test_the_name_is_asked_for_once_and_its_address_kept():
    answers = iter([leads_to("127.0.0.1"), leads_to("8.8.8.8")])
    found = check_destination(
        "http://moving.example:81/", resolve=lambda host, port: next(answers)(host, port)
    )
    assert found.address == "127.0.0.1"  # whatever the name leads to next


def test_the_older_protocol_is_taken_first():
    assert check_destination("http://localhost/", resolve=leads_to("::1", "127.0.0.1")).address == "127.0.0.1"


def test_numbers_that_stand_for_addresses():
    # The system's own resolver reads these; no name is asked for.
    assert check_destination("http://2130706433:8000/search").address == "127.0.0.1"
    with pytest.raises(RankproofError, match=r"leads to 8\.8\.8\.8"):
        check_destination("http://134744072/")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "0"])
def test_addresses_to_listen_on_are_no_destination(host):
    with pytest.raises(RankproofError, match=r"write 127\.0\.0\.1"):
        check_destination(f"http://{host}:8000/search", "even with a permission")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000/search",
        "ftp://127.0.0.1/",
        "ftp://127.0.0.1:21/",
        "file:///etc/passwd",
        "http://",
        "http:///search",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1\\@shop.example/",
        "http://127.0.0.1 /",
        "http://127.0.0.1/\x07",
        "http://[::1/",
        "",
    ],
)
def test_what_is_no_url(url):
    with pytest.raises(RankproofError, match="is no URL"):
        check_destination(url)


def test_secrets_in_a_url_are_refused():
    with pytest.raises(RankproofError, match="--key-env") as caught:
        check_destination("http://me:secret@127.0.0.1/")
    assert "secret@" not in str(caught.value)


def test_a_host_that_is_nowhere():
    def nowhere(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    for resolve in (nowhere, lambda host, port: []):
        with pytest.raises(RankproofError, match=r"shop\.example: no such host"):
            check_destination("http://shop.example/", resolve=resolve)


@pytest.mark.parametrize("word", ["", "   ", "x" * 201])
def test_a_permission_says_something(word):
    with pytest.raises(RankproofError, match="who allowed the test and why"):
        check_destination("http://127.0.0.1/", word)
