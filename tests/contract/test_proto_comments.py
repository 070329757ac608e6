from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc  # type: ignore[import-untyped]  # ships no type information

CONTRACT = "rlm_sandbox/v1/sandbox.proto"
PROTO_ROOT = Path(__file__).parents[2] / "proto"

#: A path into a `FileDescriptorProto`, as `SourceCodeInfo.Location.path` has it.
Place = tuple[int, ...]


def describe(root: Path, name: str, target: Path) -> FileDescriptorProto:
    """Compiles `name` below `root` with its comments."""
    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{root}",
            f"-I{well_known}",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            name,
        ]
    )
    assert status == 0
    (described,) = FileDescriptorSet.FromString(target.read_bytes()).file
    return described


def everything(file: FileDescriptorProto) -> Iterator[tuple[str, Place]]:
    """Yields name and place of each service, method, message, field, oneof, enum and value."""
    for index, service in enumerate(file.service):
        yield service.name, (file.SERVICE_FIELD_NUMBER, index)
        for number, method in enumerate(service.method):
            place = (file.SERVICE_FIELD_NUMBER, index, service.METHOD_FIELD_NUMBER, number)
            yield f"{service.name}.{method.name}", place
    yield from of_messages(file.message_type, (file.MESSAGE_TYPE_FIELD_NUMBER,), "")
    yield from of_enums(file.enum_type, (file.ENUM_TYPE_FIELD_NUMBER,), "")


def of_messages(
    messages: Sequence[DescriptorProto], place: Place, prefix: str
) -> Iterator[tuple[str, Place]]:
    """Yields the messages and what is in them."""
    for index, message in enumerate(messages):
        name, here = f"{prefix}{message.name}", (*place, index)
        yield name, here
        for kind, parts in (
            (message.FIELD_FIELD_NUMBER, [field.name for field in message.field]),
            # An `optional` field is a oneof of its own in the descriptor, and nowhere else.
            (
                message.ONEOF_DECL_FIELD_NUMBER,
                [oneof.name for oneof in message.oneof_decl if not oneof.name.startswith("_")],
            ),
        ):
            for number, part in enumerate(parts):
                yield f"{name}.{part}", (*here, kind, number)
        inner = (*here, message.NESTED_TYPE_FIELD_NUMBER)
        yield from of_messages(message.nested_type, inner, f"{name}.")
        yield from of_enums(message.enum_type, (*here, message.ENUM_TYPE_FIELD_NUMBER), f"{name}.")


def of_enums(
    enums: Sequence[EnumDescriptorProto], place: Place, prefix: str
) -> Iterator[tuple[str, Place]]:
    """Yields the enums and their values."""
    for index, enum in enumerate(enums):
        name, here = f"{prefix}{enum.name}", (*place, index)
        yield name, here
        for number, value in enumerate(enum.value):
            yield f"{name}.{value.name}", (*here, enum.VALUE_FIELD_NUMBER, number)


def uncommented(file: FileDescriptorProto) -> list[str]:
    """Returns the names of what has no comment of its own, neither before nor beside it."""
    commented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip() or location.trailing_comments.strip()
    }
    return [name for name, place in everything(file) if place not in commented]


def test_everything_in_the_contract_is_explained(tmp_path: Path) -> None:
    """Every service, method, message, field, oneof, enum and value carries a comment."""
    described = describe(PROTO_ROOT, CONTRACT, tmp_path / "set")

    assert len(list(everything(described))) > 100
    assert uncommented(described) == []


@pytest.mark.parametrize(
    ("bare", "name"),
    [
        ("message Answer {", "Answer"),
        ("string content = 1;", "Answer.content"),
        ("oneof outcome {", "QueryAnswer.outcome"),
        ("OUTCOME_RAISED = 2;", "Outcome.OUTCOME_RAISED"),
        ("enum Reason {", "QueryError.Reason"),
        ("REASON_CANCELLED = 7;", "QueryError.Reason.REASON_CANCELLED"),
        ("rpc LlmQuery(", "SandboxBroker.LlmQuery"),
        ("service SandboxBroker {", "SandboxBroker"),
    ],
)
def test_missing_comment_is_found_control(tmp_path: Path, bare: str, name: str) -> None:
    """A comment taken away is missed, whatever it belongs to."""
    lines = (PROTO_ROOT / CONTRACT).read_text().splitlines()
    index = next(number for number, line in enumerate(lines) if line.strip().startswith(bare))
    while lines[index - 1].strip().startswith("//"):
        index -= 1
        del lines[index]
    (tmp_path / "bare.proto").write_text("\n".join(lines))

    assert name in uncommented(describe(tmp_path, "bare.proto", tmp_path / "set"))
