"""How every command ends, whatever it meets: without TensorFlow, so that it is quick."""

import os
import subprocess
import sys

import pytest


def ends(body, stdout=subprocess.PIPE, **options):
    code = f"import sys, os\nfrom tfrec import commands\nfrom tfrec.errors import InputError\ndef main():\n    {body}\n"
    return subprocess.run(
        [sys.executable, "-c", code + "commands.run(main)"], stdout=stdout, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("open('/proc/x', 'w')", "/proc/x"),
        ("open('n' * 300, 'w')", "File name too long"),
        ("open('/dev/full', 'wb', buffering=0).write(b'x')", "No space left on device"),
        ("os.listdir('/nowhere')", "No such file"),
        (
            "raise InputError('no \\x1b[2Jsuch\\u202e item.\\nReceived: 3.')",
            "no \\x1b[2Jsuch\\u202e item.\nReceived: 3.",
        ),
    ],
)
def test_what_the_system_refuses_is_a_message(body, message):
    done = ends(body, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_output_that_cannot_be_written():
    """A full disk under standard output, told once; also where it shows at the end only."""
    for body in ("print('x' * 100_000)", "print('x')"):
        with open("/dev/full", "w") as full:
            done = ends(body, stdout=full, text=True)
        assert done.returncode == 2
        assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_a_reader_that_has_seen_enough():
    code = "from tfrec import commands\ncommands.run(lambda: [print('x' * 9999) for _ in range(99)])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_letters_that_the_terminal_does_not_have():
    done = ends("print('Am\\u00e9lie \\U0001f3ac')", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"Am\\xe9lie \\U0001f3ac\n")


def test_errors_of_the_program_stay_tracebacks():
    done = ends("[][1]", text=True)
    assert done.returncode == 1
    assert "IndexError" in done.stderr
