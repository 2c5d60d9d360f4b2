"""The command as a process."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest


def start(*arguments):
    command = [sys.executable, "-m", "tfrec", "serve", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_starts_answers_and_stops(runs):
    process = start(runs / "als", "--port", "0")
    try:
        line = process.stdout.readline()
        assert "als (120 items)" in line
        url = line.split(" at ")[1].split(";")[0]
        with urllib.request.urlopen(f"{url}/recommend?user=ada1&k=2", timeout=60) as answer:
            assert len(json.load(answer)["items"]) == 2
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out == "Stopped.\n"
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_and_started_again(runs):
    """On the same port, with nothing left in the way."""
    first = start(runs / "als", "--port", "0")
    number = first.stdout.readline().split(";")[0].rsplit(":", 1)[1]
    first.kill()
    first.communicate()
    second = start(runs / "als", "--port", number)
    try:
        assert "als (120 items)" in second.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/recommend?user=ada1&k=2", timeout=60) as answer:
            assert len(json.load(answer)["items"]) == 2
    finally:
        second.kill()
        second.communicate()


def test_a_port_in_use(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(runs / "als", "--port", port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"Received: 127.0.0.1 and {port}" in err


@pytest.fixture(scope="module")
def port(runs):
    """Of a service that waits a second for an answer."""
    process = start(runs / "ease", "--port", "0", "--timeout-s", "1")
    try:
        yield int(process.stdout.readline().split(";")[0].rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.communicate(timeout=60)


def ended(port, *parts, wait_s=0.0):
    """What comes until the connection ends, and after how many seconds that is."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        began, found = time.monotonic(), b""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(wait_s)
            while read := connection.recv(65_536):
                found += read
        return found, time.monotonic() - began


def test_clients_that_never_come_to_the_end(port):
    head = b"GET /recommend?user=ada1 HTTP/1.1\r\nhost: localhost\r\n"
    for parts in ([], [head], [head, b"x-more: 1\r\n" * 3]):
        assert ended(port, *parts)[0] == b""
    # A byte now and then does not help.
    assert ended(port, head, *[b"x-slow: 1\r\n"] * 12, wait_s=0.2)[0] == b""
    # Nor do headers without end.
    assert ended(port, head, *[b"x-long: " + b"y" * 8_000 + b"\r\n"] * 40)[0] == b""
    # A body that does not come.
    body = (
        b"POST /v1/models/ease:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{"
    )
    assert b" 504 " in ended(port, body)[0].split(b"\r\n")[0]
    # Two requests on one connection, the second in two parts.
    both, _ = ended(port, head + b"\r\n" + head[:20], head[20:] + b"connection: close\r\n\r\n", wait_s=0.2)
    assert both.count(b"HTTP/1.1 200 OK") == 2


def test_a_thousand_connections(port):
    with contextlib.ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend?user=ada1&k=2", timeout=60) as answer:
            assert len(json.load(answer)["items"]) == 2


def test_another_sites_name_for_this_machine(port):
    for name, code in (("evil.example", b"421"), ("localhost:80", b"200"), ("[::1]:80", b"200"), ("127.0.0.1", b"200")):
        request = f"GET /recommend?user=ada1 HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode()
        assert ended(port, request)[0].split(b" ")[1] == code
