"""What both checks share: claims, and a simulator that runs for one of them."""

import contextlib
import json
import subprocess
import sys


def claim(what, got, expected):
    # Not `assert`: python -O would pass everything.
    if got != expected:
        sys.exit(f"FAIL: {what}: expected {expected!r}, got {got!r}")


@contextlib.contextmanager
def simulator(binary, *flags):
    """Runs it, and yields its first line."""
    command = [binary, "simulate", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit(f"FAIL: {' '.join(command)} wrote no first line")
            yield json.loads(line)
        finally:
            process.terminate()
        claim("exit code after SIGTERM", process.wait(timeout=30), 0)
