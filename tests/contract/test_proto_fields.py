from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from rlm_sandbox.v1 import sandbox_pb2 as pb

COMMITTED = Path(__file__).with_name("wire_fields.txt")

#: Names of `FieldDescriptor.type`, as the contract writes them.
TYPE_NAMES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
}


def current() -> list[str]:
    """Returns one line for each method, field and value the contract has."""
    lines = list(_methods())
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        lines += _of_message(message)
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        lines += _of_enum(enum)
    return sorted(lines)


def _methods() -> Iterator[str]:
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            asks = "stream " if method.client_streaming else ""
            answers = "stream " if method.server_streaming else ""
            yield (
                f"{service.name}.{method.name}"
                f"({asks}{method.input_type.name}) -> {answers}{method.output_type.name}"
            )


def _of_message(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        kind = field.message_type or field.enum_type
        type_name = kind.full_name if kind else TYPE_NAMES[field.type]
        many = "repeated " if field.is_repeated else ""
        choice = field.containing_oneof.name if field.containing_oneof else ""
        # An `optional` field is a oneof of its own, whose name begins with an underscore.
        presence = "" if not choice else "optional " if choice[0] == "_" else f"oneof {choice} "
        yield f"{message.full_name}.{field.name} = {field.number}: {many}{presence}{type_name}"
    for nested in message.nested_types:
        yield from _of_message(nested)
    for enum in message.enum_types:
        yield from _of_enum(enum)


def _of_enum(enum: EnumDescriptor) -> Iterator[str]:
    for value in enum.values:
        yield f"{enum.full_name}.{value.name} = {value.number}"


def test_nothing_is_ever_taken_from_the_contract() -> None:
    """Every field, value and method that was ever committed is there, same number, same type."""
    assert set(COMMITTED.read_text().splitlines()) - set(current()) == set()


def test_additions_are_committed() -> None:
    """What was added is in the list, so that the next change cannot take it away unseen."""
    missing = sorted(set(current()) - set(COMMITTED.read_text().splitlines()))

    assert missing == [], f"add these lines to {COMMITTED.name}, in their places"


def test_list_is_sorted_and_has_no_doubles() -> None:
    """A difference in the list is a difference in the contract."""
    lines = COMMITTED.read_text().splitlines()

    assert lines == sorted(set(lines))
