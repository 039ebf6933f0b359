"""Who is in a library's own code when the process ends is let out of it first."""

import subprocess
import sys

HOST = """
import threading
from tamiyo import ending
from tamiyo.workers import DeadlineWorker, TimedOut

inside, worker = threading.Event(), DeadlineWorker("test")

def call():
    inside.set()
    WORK
    print("came back")

assert isinstance(worker.call(call, 0.001), TimedOut)
inside.wait()
worker.close()
print("ended")
"""

PATIENT = "ending.ENDING_S = 3_600.0\n"


def ended(host: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", host], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_late_call_is_waited_for_when_the_process_ends() -> None:
    assert ended(HOST.replace("WORK", "threading.Event().wait(0.2)")) == (0, "ended\ncame back\n", "")


def test_a_call_that_hangs_keeps_no_process_from_ending() -> None:
    host = HOST.replace("WORK", "threading.Event().wait()") + "ending.ENDING_S = 0.01"
    assert ended(host) == (0, "ended\n", "")


def test_a_process_that_ends_while_torch_computes_ends_well() -> None:
    """It was aborted: a thread that is ended on its way back into the interpreter takes C++ code down with it."""
    work = "for _ in range(40): torch.linalg.qr(some)"
    host = HOST.replace("import threading", "import threading\nimport torch\nsome = torch.ones(300, 300)", 1)
    assert ended(host.replace("WORK", work) + PATIENT) == (0, "ended\ncame back\n", "")


def test_a_forked_child_waits_for_none_of_its_parent_s_calls() -> None:
    fork = "import os\nif os.fork() == 0: raise SystemExit\nos.wait()\nending.ENDING_S = 0.01"
    host = HOST.replace("WORK", "threading.Event().wait()")
    assert ended(f"{host}{PATIENT}{fork}")[:2] == (0, "ended\n")
