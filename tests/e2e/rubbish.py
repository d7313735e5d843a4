"""Malformed messages by the hundred thousand, from a seed. Each differs from a request by a damage
that makes it invalid by construction; only harmless commands get damages that might miss.
"""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from recd.config.messages import COMMANDS, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from recd.config.versions import ENDURING

HARMLESS = ("hello", "status", "episodes", "shm", "devices", "config", "plan.status")
NOT_AN_ID = ("", "a b", "x" * 65, "ä", "../x", b"short", b"x" * 17, 0, 1.5, None, [], {}, True)
NOT_MS = (0, -1, 2**63, 3_600_001, float("nan"), float("inf"), 1.5, True, "10", b"1", None, [], {})
WRONG_BY_KIND: dict[str, tuple[Any, ...]] = {
    "text": (
        5,
        1.5,
        True,
        b"x",
        [],
        {},
        ["x"],
        "a\x00b",
        "a\nb",
        "\x1b[2J",
        "x" * 4097,
        "é" * 2049,
    ),
    "name": (5, "", "A", "../x", "x" * 99, b"main", ["main"], {"main": 1}, "main\n"),
    "uid": (5, "", "x" * 32, "0" * 31, b"0" * 32, ["0" * 32], "../" + "0" * 29),
    "flag": (0, 1, "true", [], {}, 0.0),
    "count": (0, -1, 2**63, 1.5, True, float("nan"), "5", [], 10**7),
    "number": (-1, float("nan"), float("inf"), 1e300, "5", True, [], 2**64 - 1),
}
HUGE_CLAIMS = (b"\xdf", b"\xdd", b"\xdb", b"\xc6", b"\xc9")
"""map32, array32, str32, bin32, ext32: followed by a length that never comes."""


def request(dice: random.Random, cmd: str = "") -> dict[str, Any]:
    cmd = cmd or dice.choice(list(COMMANDS))
    return {"v": 1, "ty": "req", "id": f"{dice.getrandbits(128):032x}", "cmd": cmd, "args": {},
            "deadline_ms": dice.randrange(1, 60_000)}  # fmt: skip


def pack(message: object) -> bytes:
    return bytes(msgpack.packb(message, use_bin_type=True))


def truncated(dice: random.Random) -> bytes:
    data = pack(request(dice))
    return data[: dice.randrange(len(data))]


def with_a_tail(dice: random.Random) -> bytes:
    return pack(request(dice)) + dice.randbytes(dice.randrange(1, 40))


def flipped(dice: random.Random) -> bytes:
    data = bytearray(pack(request(dice, dice.choice(HARMLESS))))
    for _ in range(dice.randrange(1, 8)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def random_bytes(dice: random.Random) -> bytes:
    # 0xc1 is no msgpack at all, so no random message can be a request.
    return b"\xc1" + dice.randbytes(dice.randrange(300))


def deep(dice: random.Random) -> bytes:
    kind = dice.choice((b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"))
    depth = dice.choice((9, 100, 512, 2000, 20_000))
    return pack({**request(dice), "x": 0})[:-1] + kind * depth + b"\x01"


def deep_but_whole(dice: random.Random) -> bytes:
    value: object = 1
    for _ in range(dice.randrange(9, 200)):
        value = [value] if dice.random() < 0.5 else {"k": value}
    return pack({**request(dice), "args": {"x": value}})


def huge_claim(dice: random.Random) -> bytes:
    length = dice.choice((2**32 - 1, 2**31, 2**24, 100_000))
    claim = dice.choice(HUGE_CLAIMS) + struct.pack(">I", length)
    head = b"" if dice.random() < 0.3 else b"\x82\xa1v\x01\xa4args"
    return head + claim + dice.randbytes(dice.randrange(20))


def bad_field(dice: random.Random) -> bytes:
    message = request(dice)
    field, wrong = dice.choice((
        ("v", (0, -1, "1", 1.5, None, [], True, 2**64 - 1, float("nan"))),
        ("ty", ("rep", "", None, 1, ["req"], b"req")),
        ("id", NOT_AN_ID),
        ("cmd", ("", "no.such", "__class__", "start ", "START", 1, None, ["start"], b"start")),
        ("args", ([], [1], "x", 1, True, b"", None, float("nan"))),
        ("deadline_ms", NOT_MS),
    ))  # fmt: skip
    message[field] = dice.choice(wrong)
    return pack(message)


def other_protocol(dice: random.Random) -> bytes:
    cmd = dice.choice([name for name in COMMANDS if name not in ENDURING])
    return pack({**request(dice, cmd), "v": dice.choice((2, 3, 900))})


def bad_argument(dice: random.Random) -> bytes:
    command = dice.choice([command for command in COMMANDS.values() if command.args])
    name, arg = dice.choice(list(command.args.items()))
    wrong = ("bogus", 3, [], {}, True, b"x") if arg.choices else WRONG_BY_KIND[arg.kind]
    return pack({**request(dice, command.name), "args": {name: dice.choice(wrong)}})


def missing_field(dice: random.Random) -> bytes:
    message = request(dice)
    for field in dice.sample(("v", "ty", "id", "cmd"), dice.randrange(1, 5)):
        del message[field]
    return pack(message)


def extension(dice: random.Random) -> bytes:
    code, length = dice.choice((0, 5, 127, 128, 255)), dice.choice((0, 1, 4, 8, 12, 70))
    data = b"\xc7" + bytes((length, code)) + dice.randbytes(length)  # 255 is -1: a timestamp
    message = request(dice)
    field = dice.choice(("args", "extra"))
    message.pop(field, None)
    value = data if dice.random() < 0.5 else b"\xd6\xff" + dice.randbytes(4)
    return pack({**message, field: 0})[:-1] + value


def duplicate_key(dice: random.Random) -> bytes:
    data = pack(request(dice))
    return bytes((data[0] + 1,)) + data[1:] + b"\xa3cmd" + pack(dice.choice(list(COMMANDS)))


def wrong_key(dice: random.Random) -> bytes:
    key: object = dice.choice((1, None, True, 1.5, b"x", "k" * 65, "k" * 4000))
    return pack({**request(dice), key: 1})


def bad_text(dice: random.Random) -> bytes:
    return pack({**request(dice), "x": "abcd"})[:-4] + dice.choice(
        (b"\xff\xfe\xfd\xfc", b"\xc3(()")
    )


def many_values(dice: random.Random) -> bytes:
    count = dice.choice((4097, 5000, 20_000))
    return pack({**request(dice), "x": [0] * count})


def large(dice: random.Random) -> bytes:
    return pack({**request(dice), "x": b"x" * dice.choice((MAX_REQUEST_BYTES, 200_000))})


Damage = Callable[[random.Random], bytes]
DAMAGES: tuple[tuple[Damage, int], ...] = (
    (truncated, 14), (with_a_tail, 6), (flipped, 20), (random_bytes, 8), (deep, 4),
    (deep_but_whole, 4), (huge_claim, 6), (bad_field, 12), (other_protocol, 2), (bad_argument, 14),
    (missing_field, 4), (extension, 6), (duplicate_key, 4), (wrong_key, 4), (bad_text, 3),
    (many_values, 1), (large, 1),
)  # fmt: skip
"""Damage -> how often."""


def messages(seed: int) -> Iterator[list[bytes]]:
    """Frames of one message after the other, endless."""
    dice = random.Random(seed)
    damages, weights = zip(*DAMAGES, strict=True)
    while True:
        frames = [dice.choices(damages, weights)[0](dice)]
        match dice.randrange(40):
            case 0:
                frames = [b"x", *frames]
            case 1:
                frames += [b""] * dice.randrange(1, 60)
            case 2:
                frames = [b"", *frames]  # as a REQ socket sends it
            case 3:
                frames = [pack(request(dice))] * 2
        yield frames


def too_large(dice: random.Random) -> bytes:
    """Beyond what the socket takes: libzmq closes the connection."""
    return dice.randbytes(MAX_MESSAGE_BYTES + dice.randrange(1, 4096))


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"[:40]


def below_messages(dice: random.Random) -> bytes:
    """What is sent on a bare connection instead of ZMTP, or after its greeting."""
    noise = dice.randbytes(dice.randrange(1, 400))
    return dice.choice((noise, GREETING + noise, GREETING + READY + noise, GREETING[:20],
                        b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n",
                        GREETING + READY + b"\x02" + b"\xff" * 8))  # fmt: skip
