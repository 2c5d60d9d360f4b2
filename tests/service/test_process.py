"""The command as a process."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request


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


def test_a_port_in_use(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(runs / "als", "--port", port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"Received: 127.0.0.1 and {port}" in err
