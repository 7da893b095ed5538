"""Packing: byte-code of our modules, as an archive holds it for one interpreter.

zipimport keeps no cache: without byte-code every start compiles all that it loads.  So an
archive has a folder for each interpreter that was at hand, named by cache tag and magic
number, with two entries: `code`, the modules one after the other, and `index`, which tells
where in the archive each of them lies, after the code of what finds them (bytecode.py).

Rule 1: a module in `code` begins with its name and a zero byte, so that a stale index is seen.
Rule 2: the index itself every Python can write and read; what it holds and leads to is byte-code
        of one version only, which other ones never come to see.
"""

import marshal
import zipfile

INDEX_VERSION = 2               # of marshal, when all that is in it are bytes, text and numbers
FINDER = "ptyguard_core.bytecode"
QUICK = frozenset(              # modules that quick verbs load: where others are deflated, these are not
    ["ptyguard", "ptyguard_posix"] + ["ptyguard_core." + room for room in (
        "backend", "channel", "client", "errors", "frames", "jsontext", "listing", "quick", "reaching", "report",
        "sending", "canonical", "stall", "starting", "usage", "version")])
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
_HEADER_BYTES = 30              # of an entry, before its name: no extra field where it is small


def folder_of(tag, magic):
    """The folder of an interpreter, by `sys.implementation.cache_tag` and its magic number."""
    return f"{tag}-{magic.hex()}"


def compile_sources(sources, lead, optimize=2, version=marshal.version):
    """[(module, its code as bytes)] of sources by archive name; `lead` is said in tracebacks.

    Without docstrings, `optimize` 2: half the size.  Not of the package itself, which zipimport
    has to find.  `version` is marshal's.  Raises SyntaxError, ValueError.
    """
    return [(name[:-len(".py")].replace("/", "."),
             marshal.dumps(compile(sources[name], f"{lead}/{name}", "exec", dont_inherit=True, optimize=optimize),
                           version))
            for name in sorted(sources) if not name.endswith("/__init__.py")]


def add_folder(archive, folder, records, plain=None):
    """Write the two entries of an interpreter into an open ZipFile.

    Modules that `plain` names lie there as they are, the others deflated; None: all as they are.
    """
    parts, index, at = [], {}, 0
    for module, code in records:
        body, unpacked = code, 0
        if plain is not None and module not in plain:
            from zlib import compress
            body, unpacked = compress(code, 9), len(code)
        body = module.encode() + b"\0" + body
        parts.append(body)
        index[module] = (at, len(body), unpacked)
        at += len(body)
    begin = add_entry(archive, f"{folder}/code", b"".join(parts))
    index = {module: (begin + at, size, unpacked) for module, (at, size, unpacked) in index.items()}
    add_entry(archive, f"{folder}/index", marshal.dumps((dict(records)[FINDER], index), INDEX_VERSION))


def add_entry(archive, name, data, is_stored=True):
    """Write an entry, the same bytes at all times; the offset of its data in the file."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3             # Unix, wherever it is built
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data, zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED)
    return entry.header_offset + _HEADER_BYTES + len(name.encode())
