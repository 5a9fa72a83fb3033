"""The guard's tables: what lies inside is never sent to, however it is written."""

import socket

import pytest

from service.webhooks.addresses import is_public
from service.webhooks.targets import TargetRefused, parse_target, resolve_target

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:8.8.8.8",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_open(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", CLOSED)
def test_everything_else_is_closed(address: str) -> None:
    assert not is_public(address)


REFUSED_URLS = {
    "http": ("http://example.com/", "not https"),
    "another scheme": ("gopher://example.com/", "not https"),
    "file": ("file:///etc/passwd", "not https"),
    "no scheme": ("example.com", "not https"),
    "no host": ("https:///x", "needs a host"),
    "credentials": ("https://user:word@example.com/", "takes no user"),
    "empty user": ("https://@example.com/", "takes no user"),
    "port 0": ("https://example.com:0/", "needs a host"),
    "port too high": ("https://example.com:65536/", "cannot be read"),
    "fragment": ("https://example.com/#x", "fragment"),
    "line break": ("https://example.com/\r\nx: y", "control"),
    "tab": ("https://exa\tmple.com/", "control"),
    "space": ("https://example.com/a b", "spaces"),
    "other script": ("https://еxample.com/", "ASCII"),
    "long label": (f"https://{'a' * 64}.com/", "host cannot be read"),
    "broken bracket": ("https://[::1/", "cannot be read"),
    "loopback": ("https://127.0.0.1/", "not on the public internet"),
    "loopback in short": ("https://127.1/", "not on the public internet"),
    "loopback as a number": ("https://2130706433/", "not on the public internet"),
    "loopback in hexadecimal": ("https://0x7f.0.0.1/", "not on the public internet"),
    "loopback in octal": ("https://0177.0.0.1/", "not on the public internet"),
    "loopback with a final dot": ("https://127.0.0.1./", "not on the public internet"),
    "nothing": ("https://0/", "not on the public internet"),
    "metadata": ("https://169.254.169.254/latest/meta-data", "not on the public internet"),
    "IPv6 loopback": ("https://[::1]/", "not on the public internet"),
    "mapped loopback": ("https://[::ffff:127.0.0.1]/", "not on the public internet"),
    "http to a public address": ("http://8.8.8.8/", "not https"),
}


@pytest.mark.parametrize(("url", "words"), REFUSED_URLS.values(), ids=REFUSED_URLS.keys())
def test_a_url_that_leads_elsewhere_is_refused(url: str, words: str) -> None:
    with pytest.raises(TargetRefused, match=words):
        parse_target(url, allows_loopback=False)


def test_a_good_url_is_taken_apart() -> None:
    target = parse_target("https://Hooks.Example.com:8443/a/b?c=d", allows_loopback=False)
    assert (target.is_tls, target.host, target.port, target.path) == (True, "hooks.example.com", 8443, "/a/b?c=d")
    target = parse_target("https://example.com", allows_loopback=False)
    assert (target.port, target.path) == (443, "/")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/", "https://localhost/"])
def test_loopback_is_open_only_where_a_setting_says_so(url: str) -> None:
    assert parse_target(url, allows_loopback=True).host in ("127.0.0.1", "::1", "localhost")


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "https://10.0.0.1/", "http://8.8.8.8/", "http://example.com/"])
def test_that_setting_opens_nothing_else(url: str) -> None:
    with pytest.raises(TargetRefused):
        parse_target(url, allows_loopback=True)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        pytest.param(["10.0.0.5"], "not on the public internet", id="inside"),
        pytest.param(["8.8.8.8", "127.0.0.1"], "not on the public internet", id="both"),
        pytest.param(["2606:4700::1", "fe80::1%2"], "not on the public internet", id="both in IPv6"),
        pytest.param([], "does not resolve", id="nowhere"),
    ],
)
def test_a_name_is_judged_by_all_it_resolves_to(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], words: str
) -> None:
    target = parse_target("https://hooks.example.com/", allows_loopback=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (answer, 443)) for answer in answers])
    with pytest.raises(TargetRefused, match=words) as caught:
        resolve_target(target, allows_loopback=False)
    assert not any(answer in str(caught.value) for answer in answers), "what lies inside stays untold"


def test_a_name_is_looked_up_once_and_its_first_address_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse_target("https://hooks.example.com/", allows_loopback=False)
    answers = iter(["93.184.216.34", "127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (next(answers), 443))])
    assert resolve_target(target, allows_loopback=False) == "93.184.216.34"
