"""A descriptor pool of our own, so that a host's bindings for the same package can live beside ours.

Protobuf's default pool accepts each full name once per process. A host that already loaded its own
`esper.leyline.v1` (or loads it after us) would make one of the two imports fail, so both of our
generated modules register here instead. Messages that come from the host are taken over as bytes.
"""

from google.protobuf import descriptor_pool, duration_pb2, message_factory, struct_pb2, timestamp_pb2

__all__ = ["POOL"]

POOL = descriptor_pool.DescriptorPool()
for _module in (duration_pb2, struct_pb2, timestamp_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)

_KEPT = [
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"google.protobuf.{name}"))
    for name in ("Duration", "Struct", "Value", "ListValue", "Timestamp")
]
"""No module of this pool has these classes: protobuf would make them anew whenever the collector took the last ones."""
