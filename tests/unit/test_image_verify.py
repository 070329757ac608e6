"""How two roots are compared: every difference is found, and the engine's own files are none."""

import io
import tarfile
from collections.abc import Callable

import pytest

from orchestrator.sandbox.image_verify import compare, read_content


def content_of(
    change: Callable[[tarfile.TarInfo], None] = lambda _: None, **data: bytes
) -> dict[str, str]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in data.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return read_content(stream)


def test_equal_roots_do_not_differ() -> None:
    """The control: nothing is reported where there is nothing."""
    assert compare(content_of(a=b"x"), content_of(a=b"x")) == ()


@pytest.mark.parametrize(
    "other",
    [
        content_of(a=b"y"),
        content_of(),
        content_of(a=b"x", b=b""),
        content_of(lambda member: setattr(member, "mode", 0o4755), a=b"x"),
        content_of(lambda member: setattr(member, "uid", 1), a=b"x"),
        content_of(lambda member: setattr(member, "type", tarfile.SYMTYPE), a=b"x"),
    ],
)
def test_every_difference_is_found(other: dict[str, str]) -> None:
    """Content, mode, owner, kind, one more and one less: each is named, in either direction."""
    assert len(compare(content_of(a=b"x"), other)) == 1
    assert len(compare(other, content_of(a=b"x"))) == 1


def test_files_of_the_engine_are_not_compared() -> None:
    """What an engine puts into every container is no difference; a neighbour of it is one."""

    def place(path: str) -> Callable[[tarfile.TarInfo], None]:
        return lambda member: setattr(member, "name", path)

    nothing = content_of()

    assert compare(content_of(place("etc/hosts"), a=b""), nothing) == ()
    assert len(compare(content_of(place("etc/shadow"), a=b""), nothing)) == 1
