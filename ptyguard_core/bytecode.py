"""Byte-code: how our modules are found in an archive, where one interpreter's lie together.

packing.py has written a folder for each interpreter; ptyguard_core/__init__.py has chosen the
one of the interpreter that runs, by its magic number, and runs this file from there.  A zip with
an entry for each module and interpreter would do without, and read a directory of 900 entries at
every start.

What cannot be read here is left to zipimport, which takes the source beside it.

Rule: the archive stays open, so that another file in its place (an upgrade under a command that
runs) takes nothing away from who has begun.
"""

from io import FileIO


def _unpack(data, size):
    import zlib
    try:
        return zlib.decompress(data, bufsize=size)
    except zlib.error as error:         # which is no ValueError
        raise ValueError(str(error)) from None


class ByteCode:
    """Finder and loader of the modules in one folder of an archive."""

    def __init__(self, archive, folder, index):
        self.archive = archive
        self.folder = folder
        self._index = index             # module -> (offset in the archive, bytes, bytes unpacked or 0)
        self._file = None
        try:
            file = FileIO(archive)      # close-on-exec
            if file.fileno() > 2:       # else a standard stream was closed, and that is its place
                self._file = file
        except OSError:
            pass

    def find_spec(self, name, path=None, target=None):
        """The module's spec with its code; None for who is not ours or cannot be read."""
        code = self._read(name) if name in self._index else None
        if code is None:
            return None
        from _frozen_importlib import ModuleSpec
        spec = ModuleSpec(name, self, origin=f"{self.archive}/{name.replace('.', '/')}.py", loader_state=code)
        spec.has_location = True
        spec.cached = f"{self.archive}/{self.folder}/{name}"
        return spec

    def _read(self, name):
        from marshal import loads
        offset, size, unpacked = self._index[name]
        lead = name.encode() + b"\0"
        try:
            file = self._file or FileIO(self.archive)
            file.seek(offset)
            data = file.read(size)
            if len(data) != size or not data.startswith(lead):
                return None             # somebody has overwritten the archive that we run from
            data = memoryview(data)[len(lead):]
            return loads(_unpack(data, unpacked) if unpacked else data)
        except (ImportError, OSError, ValueError, EOFError, TypeError):
            return None

    def create_module(self, spec):
        """Nothing special."""

    def exec_module(self, module):
        """Run its code, which the spec has brought."""
        spec = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        exec(code, module.__dict__)

    def get_source(self, name):
        """The source, for tracebacks."""
        from zipimport import zipimporter
        parent = name.rpartition(".")[0]
        return zipimporter(f"{self.archive}/{parent}" if parent else self.archive).get_source(name)
