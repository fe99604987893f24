"""Console examples of a page of the documentation, run as they stand, in one directory.

A line ``$ command`` is followed by what it prints. ``python -m halfspace`` runs in this process, so
that its lines are counted; ``^C`` interrupts it while it reads a pipe.
"""

import array
import contextlib
import fcntl
import io
import os
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import NamedTuple

from halfspace.shell.commands import main
from halfspace.shell.exits import run

PROGRAM = "python -m halfspace "
INTERRUPT = "^C"


class Example(NamedTuple):
    line: int
    command: str
    expected: str


def examples(page):
    """All examples of the page, in order."""
    found, inside = [], False
    for number, line in enumerate(page.read_text().splitlines(keepends=True), 1):
        if line.startswith("```"):
            inside = line == "```console\n"
        elif inside and line.startswith("$ "):
            found.append(Example(number, line[2:].rstrip("\n"), ""))
        elif inside:
            found[-1] = found[-1]._replace(expected=found[-1].expected + line)
    return found


def feed(pipe, interrupt):
    """Write a line into a pipe and call `interrupt` once somebody has read it."""
    with open(pipe, "wb", buffering=0) as file:
        file.write(b"1,2\n")
        unread = array.array("i", [1])
        while unread[0]:
            time.sleep(0.01)
            fcntl.ioctl(file, termios.FIONREAD, unread)
        interrupt()


def _press(directory, thread):
    """Press Ctrl-C where a pipe of the directory is read."""
    for pipe in Path(directory).glob("endless*"):
        feed(pipe, lambda: signal.pthread_kill(thread, signal.SIGINT))


def shell(command, code, directory):
    """Exit code and output of a command, as a shell of which the last command left `code`."""
    if not command.startswith(PROGRAM):
        command = command.replace("python ", f"{shlex.quote(sys.executable)} ")
        script = ["bash", "-c", f"(exit {code}); {command}"]
        done = subprocess.run(script, cwd=directory, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    output = io.StringIO()
    with (
        contextlib.chdir(directory),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        code = run(main, shlex.split(command.removeprefix(PROGRAM)))
    return code, output.getvalue()


def play(page, directory):
    """What each example of the page printed."""
    code, outputs = 0, []
    for example in examples(page):
        interrupted = example.expected.startswith(INTERRUPT)
        if interrupted:
            arguments = directory, threading.get_ident()
            threading.Thread(target=_press, args=arguments).start()
        code, output = shell(example.command, code, os.fspath(directory))
        outputs.append(INTERRUPT * interrupted + output)
    return outputs
