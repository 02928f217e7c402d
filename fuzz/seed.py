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
    put("part", "golden", golden("snapshot-part-1"))
    put("page", "golden-head", golden("snapshot-head-1"))
    put("page", "golden-rows", golden("snapshot-rows-1"))
    # The target's first two bytes are the length that the reference says.
    put("chunk", "golden", len("The bytes of a chunk.").to_bytes(2, "little") + golden("chunk-1"))
    put("record", "golden", golden("ops-1"))
    # A node without the byte that says how its chunk is sealed.
    put("manifest", "golden", golden("manifest-1")[1:])
    text = golden("ticket-1")
    put("ticket", "golden", text)
    word = text.decode()[len("tidefs") :].upper()
    put("ticket_body", "golden", base64.b32decode(word + "=" * (-len(word) % 8))[:-4])
    rest, bodies = golden("frames-1"), []
    while rest:
        length = int.from_bytes(rest[:4], "little")
        bodies.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    for index, body in enumerate(bodies):
        # The last two are requests.
        put("frame" if index < len(bodies) - 2 else "request", f"golden-{index}", body)
        put("length", f"golden-{index}", len(body).to_bytes(4, "little"))
    for index, name in enumerate([b"report (conflict).odt", b"..", "日本/ü".encode()]):
        put("name", f"golden-{index}", name)
    put("name", "golden-device", b"tidefs.device." + b"01" * 32 + b"a" * 78)


main()
