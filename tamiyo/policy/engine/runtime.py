"""What we use of OpenVINO, imported and set up in one place.

The package `openvino` brings a telemetry client for its model converters. We convert nothing, the runtime itself sends
nothing, and the client is kept out of the process: with `openvino_telemetry` marked as absent, OpenVINO puts an empty
one in its place. A process that has imported OpenVINO before us has decided that for itself.

Its CPU plugin gives the thread that creates it another signal stack (room for AMX's registers; see openvino's
src/plugins/intel_cpu/src/plugin.cpp, SigAltStackSetup), and unmaps that stack when the plugin goes, whichever thread
then runs on it. Python's handlers run on the signal stack, so with a plugin that is gone a Ctrl-C ends the process
without a word. Hence one plugin for the whole process, never let go, made by a thread that ends.

A model of free shapes keeps what it made for each size it met: 5,000 entries of each kind, left to itself, so that a
thousand sizes take 2 GB. How many it keeps is a property that OpenVINO has had for years and documents nowhere: asked
for, and done without where it is not known.
"""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, cast

cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)  # None is how an import is refused

import openvino  # noqa: E402  after the line above, or it would have no effect
from openvino import opset13 as ops  # noqa: E402

OPENVINO_VERSION = str(openvino.__version__).partition("-")[0]

__all__ = ["ENTRIES_MAX", "OPENVINO_VERSION", "compile_for_cpu", "openvino", "ops"]

ENTRIES_MAX = 300
"""Of each kind: enough for more than a hundred sizes in turns, and less than 500 MB for any number of them."""

_ENTRIES = "CPU_RUNTIME_CACHE_CAPACITY"

logger = logging.getLogger(__name__)

_core: list[openvino.Core] = []
_setting_up = Lock()


def compile_for_cpu(model: openvino.Model, properties: dict[str, Any]) -> Any:
    """Compile a model for the processor, in this process's one runtime; from any thread.

    Raises:
        RuntimeError: OpenVINO has no CPU plugin for this machine, or the plugin cannot compile the model.
    """
    with _setting_up:
        if not _core:
            with ThreadPoolExecutor(1, thread_name_prefix="tamiyo-openvino") as thread:
                _core.append(thread.submit(_with_its_plugin).result())
    try:
        return _core[0].compile_model(model, "CPU", {**properties, _ENTRIES: ENTRIES_MAX})
    except RuntimeError as error:
        if _ENTRIES not in str(error):
            raise
        logger.info("this OpenVINO keeps what it made for each size of graph without a bound: %s", str(error))
        return _core[0].compile_model(model, "CPU", properties)


def _with_its_plugin() -> openvino.Core:
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # the first question creates the plugin
    return core
