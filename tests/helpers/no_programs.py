"""Run a command where no program may be attached to sockets, as in some sandboxes (seccomp(2)).

Arguments: the command.
"""

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
SO_ATTACH_REUSEPORT_CBPF = 51
EPERM, ALLOW = 0x00050001, 0x7FFF0000

LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, THIRD_ARGUMENT_AT = 0, 32  # struct seccomp_data; its lower half

FILTER = [
    (LOAD_WORD, 0, 0, NUMBER_AT),
    (JUMP_EQUAL, 0, 3, SETSOCKOPT[platform.machine()]),
    (LOAD_WORD, 0, 0, THIRD_ARGUMENT_AT),
    (JUMP_EQUAL, 0, 1, SO_ATTACH_REUSEPORT_CBPF),
    (RETURN, 0, 0, EPERM),
    (RETURN, 0, 0, ALLOW),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def main() -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in FILTER))
    program = Program(len(FILTER), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
