"""The committed stubs say what worker.proto says. (`make proto` generates them; here is no generator.)"""

import re
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from hyperlane.control import worker_pb2 as pb

PROTO = Path(__file__).parents[2] / "proto" / "hyperlane" / "control" / "worker.proto"
TYPE_NAMES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def blocks(kind: str) -> dict[str, str]:
    """Name -> body of each `kind NAME { ... }` of the file; bodies hold at most one level of braces."""
    text = re.sub(r"//.*", "", PROTO.read_text())
    return dict(re.findall(kind + r" (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text))


def fields_written(body: str) -> set[tuple[bool, str, str, int]]:
    found = re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body)
    return {(bool(repeated), kind, name, int(number)) for repeated, kind, name, number in found}


def fields_generated(message: Descriptor) -> set[tuple[bool, str, str, int]]:
    return {(field.is_repeated, type_name(field), field.name, field.number) for field in message.fields}


def type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.name
    return field.enum_type.name if field.enum_type is not None else TYPE_NAMES[field.type]


def test_messages_are_those_of_the_proto_file() -> None:
    written = {name: fields_written(body) for name, body in blocks("message").items()}
    generated = {name: fields_generated(message) for name, message in pb.DESCRIPTOR.message_types_by_name.items()}
    assert generated == written
    assert sum(map(len, written.values())) > 50


def test_oneofs_are_those_of_the_proto_file() -> None:
    for name, body in blocks("message").items():
        written = {
            oneof: {field for _, _, field, _ in fields_written(inner)}
            for oneof, inner in re.findall(r"oneof (\w+) \{([^{}]*)\}", body)
        }
        message = pb.DESCRIPTOR.message_types_by_name[name]
        assert {one.name: {field.name for field in one.fields} for one in message.oneofs} == written


def test_enums_are_those_of_the_proto_file() -> None:
    for name, body in blocks("enum").items():
        written = {value: int(number) for value, number in re.findall(r"(\w+) = (\d+);", body)}
        values = pb.DESCRIPTOR.enum_types_by_name[name].values
        assert {value.name: value.number for value in values} == written


def test_calls_are_those_of_the_proto_file() -> None:
    pattern = r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\)"
    written = {
        (name, bool(up), request, bool(down), reply)
        for name, up, request, down, reply in re.findall(pattern, blocks("service")["Worker"])
    }
    methods = pb.DESCRIPTOR.services_by_name["Worker"].methods
    generated = {
        (one.name, one.client_streaming, one.input_type.name, one.server_streaming, one.output_type.name)
        for one in methods
    }
    assert generated == written
