"""Reads which shared libraries an ELF file needs, so that the image holds those and no others.

Naming the libraries by hand would break on the other architecture and on the next Debian; asking
a tool (ldd, readelf) would either run foreign code or need a package the host may not have.
Layout of the structures: elf(5).
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")  # Elf64_Ehdr, little-endian
_PROGRAM = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
_DYNAMIC = struct.Struct("<qQ")  # Elf64_Dyn
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the loader must find before an ELF file can run."""

    interpreter: str | None  # absolute path; only programs name one
    libraries: tuple[str, ...]  # sonames, in the file's order


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def is_elf(data: bytes) -> bool:
    """Whether `data` is an ELF file."""
    return data.startswith(_MAGIC)


def read_needs(data: bytes) -> Needs:
    """Returns what the ELF file `data` needs.

    Raises:
        ValueError: It is not a 64-bit little-endian ELF file.
    """
    if not is_elf(data) or data[4] != _CLASS_64 or data[5] != _LITTLE_ENDIAN:
        message = f"expected a 64-bit little-endian ELF file, got one that begins {data[:6]!r}"
        raise ValueError(message)
    segments = tuple(_segments(data))
    interpreters = [_string(data, part.offset) for part in segments if part.kind == _PT_INTERP]
    dynamic = [
        entry for part in segments if part.kind == _PT_DYNAMIC for entry in _tags(data, part)
    ]
    tables = [_file_offset(segments, value) for tag, value in dynamic if tag == _DT_STRTAB]
    return Needs(
        interpreter=interpreters[0] if interpreters else None,
        libraries=tuple(_string(data, tables[0] + at) for tag, at in dynamic if tag == _DT_NEEDED),
    )


def close_over(
    start: dict[str, bytes], *, find: Callable[[str], tuple[str, bytes]]
) -> dict[str, bytes]:
    """Returns every library that the files of `start` need, and those need in turn.

    Args:
        start: ELF files by path.
        find: Returns path and content of the library with a soname, or of the interpreter with an
            absolute path.

    Returns:
        Paths and contents, without those of `start`.
    """
    found: dict[str, bytes] = {}
    waiting = list(start.values())
    while waiting:
        needs = read_needs(waiting.pop())
        for wanted in (*needs.libraries, *filter(None, [needs.interpreter])):
            path, data = find(wanted)
            if path not in start and path not in found:
                found[path] = data
                waiting.append(data)
    return found


def _segments(data: bytes) -> Iterator[_Segment]:
    header = _HEADER.unpack_from(data)
    table_offset, entry_size, entry_count = header[5], header[9], header[10]
    for index in range(entry_count):
        kind, _, offset, address, _, size, _, _ = _PROGRAM.unpack_from(
            data, table_offset + index * entry_size
        )
        yield _Segment(kind, offset, address, size)


def _tags(data: bytes, part: _Segment) -> Iterator[tuple[int, int]]:
    for tag, value in _DYNAMIC.iter_unpack(data[part.offset : part.offset + part.size]):
        if tag == _DT_NULL:
            return
        yield tag, value


def _file_offset(segments: tuple[_Segment, ...], address: int) -> int:
    for part in segments:
        if part.kind == _PT_LOAD and part.address <= address < part.address + part.size:
            return address - part.address + part.offset
    message = f"no loaded segment holds address {address:#x}"
    raise ValueError(message)


def _string(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode("ascii")
