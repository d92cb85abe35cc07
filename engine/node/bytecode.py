"""The program with bytecode beside its sources: zipimport keeps nothing of what it compiles, so that every process that
starts from the zip would compile all of its modules again, and that is more than half of what its start costs.

A file is eight hexadecimal digits, the CRC-32 of the rest, and the rest is a zip (which may have anything before it).
Its name holds the checksum of the sources and the Python that it is for; another one that gets it reads the sources.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import struct
import zipfile
import zlib

# A .pyc says after its magic number what it is checked against: nothing, its name has the checksum of the sources.
_UNCHECKED = struct.pack("<I8x", 1)


def add(source: str, target: str) -> None:
    """Write the zip `source` and bytecode of this Python for all of it to `target`, whole or not at all. OSError."""
    archive = io.BytesIO()
    with zipfile.ZipFile(source) as sources, zipfile.ZipFile(archive, "w") as file:
        for entry in sources.infolist():
            text = sources.read(entry)
            code = compile(text, os.path.join(target, entry.filename), "exec", dont_inherit=True)
            file.writestr(entry, text)
            file.writestr(entry.filename + "c", importlib.util.MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code))
    beside = "%s.%d" % (target, os.getpid())
    try:
        with open(beside, "wb") as whole:
            whole.write(b"%08x" % zlib.crc32(archive.getvalue()) + archive.getvalue())
        os.rename(beside, target)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
