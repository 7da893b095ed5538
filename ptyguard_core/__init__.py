"""The OS-independent house of ptyguard; see docs/DESIGN.md for its floors."""


def _use_byte_code(archive, get_data):
    """Take our modules from the folder of an archive that is this interpreter's, if there is one.

    It is compiled at each start of an interpreter that did not build the archive: so it is short.
    """
    import marshal
    import sys
    try:
        from _frozen_importlib_external import MAGIC_NUMBER     # importlib.util costs 6 ms
        folder = "%s-%s" % (sys.implementation.cache_tag, MAGIC_NUMBER.hex())
        data = get_data("%s/%s/index" % (archive, folder))
    except OSError:
        return                          # none: zipimport takes the sources
    except Exception:                   # of zipimport, or of zlib, which is not loaded for this
        data = b""
    try:
        finder, index = marshal.loads(data)
    except (ValueError, EOFError, TypeError):
        # The archive is another one than a moment ago, or damaged: `__main__` begins anew, once.
        if getattr(sys.modules["__main__"], "begins_anew", False):
            raise
        return
    names = {"__name__": "ptyguard_core.bytecode"}
    exec(marshal.loads(finder), names)
    sys.meta_path.insert(0, names["ByteCode"](archive, folder, index))


if hasattr(__spec__.loader, "archive"):         # zipimport has found us
    _use_byte_code(__spec__.loader.archive, __spec__.loader.get_data)
