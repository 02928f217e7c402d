#!/usr/bin/env python3
"""Lays the golden records of tests/format into the corpus of the targets that decode them."""

import base64
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "format"


def golden(name):
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text().replace("\n", ""))


def put(target, name, data):
    directory = HERE / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if not path.exists():
        path.write_bytes(data)


def main():
    put("batch", "golden", golden("batch-1"))
    put("ops", "golden", golden("ops-1"))
    put("ops", "golden-members", golden("ops-members-1"))
    put("node", "golden", golden("node-1"))
    put("version", "golden", golden("version-1"))
    # The target's first two bytes are the length that the reference says.
    put("chunk", "golden", len("The bytes of a chunk.").to_bytes(2, "little") + golden("chunk-1"))
    put("record", "golden", golden("ops-1"))
    # A node without the byte that says how its chunk is sealed.
    put("manifest", "golden", golden("manifest-1")[1:])
    text = golden("ticket-1")
    put("ticket", "golden", text)
    word = text.decode()[len("tidefs") :].upper()
    put("ticket_body", "golden", base64.b32decode(word + "=" * (-len(word) % 8))[:-4])
    rest, index = golden("frames-1"), 0
    while rest:
        length = int.from_bytes(rest[:4], "little")
        body, rest = rest[4 : 4 + length], rest[4 + length :]
        # The last is a request for chunks.
        put("frame" if rest else "request", f"golden-{index}", body)
        put("length", f"golden-{index}", length.to_bytes(4, "little"))
        index += 1
    for index, name in enumerate([b"report (conflict).odt", b"..", "日本/ü".encode()]):
        put("name", f"golden-{index}", name)
    put("name", "golden-device", b"tidefs.device." + b"01" * 32 + b"a" * 78)


main()
