"""An interrupt that arrives where Python cannot raise it still stops the program."""

import subprocess
import sys

IN_A_CALLBACK = """
import signal, time, weakref
from mbv3ssd_deploy.io.interrupts import install_interrupt_handler

class Thing:
    pass

install_interrupt_handler()
thing = Thing()
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
try:
    del thing
    time.sleep(20)
    print("slept")
except KeyboardInterrupt:
    print("stopped")
"""

ANOTHER_ERROR = """
import weakref
from mbv3ssd_deploy.io.interrupts import install_interrupt_handler

class Thing:
    pass

install_interrupt_handler()
thing = Thing()
reference = weakref.ref(thing, lambda _: 1 / 0)
del thing
"""


TURNED_INTO_AN_ERROR = """
import signal, sys
import mbv3ssd_deploy.cli.main as story

class Broken:
    def __init__(self, *_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError("too deep") from None

story.importlib.import_module = Broken
story.main()
"""


# who runs the tests in the background may have SIGINT ignored, and children inherit that
LISTENING = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"


def run(program, *words, check=True):
    return subprocess.run(
        [sys.executable, "-c", LISTENING + program, *words],
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


def test_an_interrupt_in_a_callback_arrives_once_more():
    done = run(IN_A_CALLBACK)

    assert done.stdout == "stopped\n"
    assert done.stderr == ""


def test_any_other_error_there_is_still_shown():
    assert "ZeroDivisionError" in run(ANOTHER_ERROR).stderr


def test_an_interrupt_that_a_package_turned_into_its_own_error_is_an_interrupt():
    done = run(TURNED_INTO_AN_ERROR, "env", check=False)

    assert done.returncode == 130
    assert done.stderr == "Error: interrupted; nothing is left half-written\n"
