"""What we use of OpenVINO, imported in one place.

The package `openvino` brings a telemetry client for its model converters. We convert nothing, the runtime itself sends
nothing, and the client is kept out of the process: with `openvino_telemetry` marked as absent, OpenVINO puts an empty
one in its place. A process that has imported OpenVINO before us has decided that for itself.
"""

import sys
from typing import Any, cast

cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)  # None is how an import is refused

import openvino  # noqa: E402  after the line above, or it would have no effect
from openvino import opset13 as ops  # noqa: E402

OPENVINO_VERSION = str(openvino.__version__).partition("-")[0]

__all__ = ["OPENVINO_VERSION", "openvino", "ops"]
