"""Runs a command under a seccomp filter, as an older kernel or a container's profile has it: a script, and not a test.

`python seccomp_filter.py ERRNO NUMBER... -- COMMAND [ARG...]` has each of these system calls fail with this error.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("code", ctypes.c_char_p))


def refuse(numbers: list[int], error: int) -> None:
    instructions = [(LOAD, 0, 0, 0)]  # the number of the call: seccomp_data.nr
    for number in numbers:
        instructions += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | error)]
    instructions.append((RETURN, 0, 0, ALLOW))
    program = Program(len(instructions), b"".join(struct.pack("=HBBI", *one) for one in instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, values in ((PR_SET_NO_NEW_PRIVS, (1, 0)), (PR_SET_SECCOMP, (SECCOMP_MODE_FILTER, ctypes.addressof(program)))):
        if libc.prctl(option, *map(ctypes.c_ulong, values), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "prctl")


cut = sys.argv.index("--")
refuse([int(word) for word in sys.argv[2:cut]], int(sys.argv[1]))
os.execvp(sys.argv[cut + 1], sys.argv[cut + 1 :])
