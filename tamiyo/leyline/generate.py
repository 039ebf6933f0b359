"""Generate the committed bindings and type stubs from the `.proto` files.

`python -m tamiyo.leyline.generate` writes them; `--check` only compares and exits 1 on a difference.
It needs the `dev` extra (grpcio-tools ships the protobuf compiler).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
PROTOS = (
    Path("tamiyo/leyline/leyline.proto"),
    Path("tamiyo/core/journal.proto"),
)

_DEFAULT_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_POOL"
_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
_OWN_IMPORT = "from tamiyo.leyline._pool import POOL as _POOL\n"


def render(proto: Path) -> dict[Path, str]:
    """Compile one `.proto` and return the text of each file it generates, by path in the repository.

    Raises:
        RuntimeError: the compiler refused the file; its own message is on standard error.
    """
    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{PACKAGE_ROOT}", f"--python_out={out}", f"--pyi_out={out}"]
        include = Path(protoc.__file__).parent / "_proto"
        if protoc.main([*arguments, f"-I{include}", str(proto)]) != 0:
            raise RuntimeError(f"the protobuf compiler refused {proto}")
        files = {}
        for suffix in ("_pb2.py", "_pb2.pyi"):
            target = proto.with_name(proto.stem + suffix)
            text = (Path(out) / target).read_text(encoding="utf-8")
            files[target] = text.replace(_IMPORT, _OWN_IMPORT).replace(_DEFAULT_POOL, _OWN_POOL)
    return files


def main() -> int:
    """Write the bindings, or with `--check` compare them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args().check
    stale = []
    for proto in PROTOS:
        for target, text in render(proto).items():
            path = PACKAGE_ROOT / target
            if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
                stale.append(str(target))
            if not check:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name} is not what its .proto generates", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
