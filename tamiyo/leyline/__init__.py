"""Leyline: the contracts shared by every Esper subsystem (package `esper.leyline.v1`).

`leyline_pb2` holds the generated messages and enums, with type stubs beside it. They live in a
descriptor pool of their own, so a host may load its own bindings in the same process.
"""
