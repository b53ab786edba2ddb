"""Reads the .wandb files that W&B's client leaves in a run folder, for tests."""

import contextlib
import struct
import time


def wandb_records(data):
    """Yield the records of a .wandb file: 32 KiB blocks of (crc32, length, type) headers and parts of records."""
    position, parts = 7, b""  # the file begins with its own 7 bytes
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def wandb_read(path, seconds=20):
    """Return a .wandb file's records. W&B's service may write the last ones after `finish` has returned."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    until = time.monotonic() + seconds
    while True:
        records = []
        with contextlib.suppress(DecodeError, struct.error):
            for data in wandb_records(path.read_bytes()):
                records.append(wandb_internal_pb2.Record())
                records[-1].ParseFromString(data)
        if time.monotonic() > until or any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
