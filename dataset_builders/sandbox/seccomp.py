"""Seccomp filter program: the system calls that a sandbox may not make.

Capabilities already forbid most of these. A user namespace would give some of them back
within itself, and with them much of the kernel's surface, so making one is forbidden too.
Sockets are of the families that a network namespace holds in: AF_VSOCK, for one, leads from
a virtual machine to its host whatever the namespace.
Sources: seccomp(2), linux/filter.h, and the kernel's tables of system calls.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET} of clone and unshare."""
_X32 = 0x40000000
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}

# By machine: audit number, clone, unshare, socket, and calls that are always refused.
_X86_64 = {
    "add_key": 248, "bpf": 321, "delete_module": 176, "finit_module": 313, "fsconfig": 431,
    "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 175, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "kexec_file_load": 320, "kexec_load": 246,
    "keyctl": 250, "mount": 165, "mount_setattr": 442, "move_mount": 429,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "open_tree": 428,
    "perf_event_open": 298, "pivot_root": 155, "process_vm_readv": 310,
    "process_vm_writev": 311, "ptrace": 101, "quotactl": 179, "reboot": 169,
    "request_key": 249, "setns": 308, "swapoff": 168, "swapon": 167, "syslog": 103,
    "umount2": 166, "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
_AARCH64 = {
    "add_key": 217, "bpf": 280, "delete_module": 106, "finit_module": 273, "fsconfig": 431,
    "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 105, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "kexec_file_load": 294, "kexec_load": 104,
    "keyctl": 219, "mount": 40, "mount_setattr": 442, "move_mount": 429,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "open_tree": 428,
    "perf_event_open": 241, "pivot_root": 41, "process_vm_readv": 270,
    "process_vm_writev": 271, "ptrace": 117, "quotactl": 60, "reboot": 142,
    "request_key": 218, "setns": 268, "swapoff": 225, "swapon": 224, "syslog": 116,
    "umount2": 39, "userfaultfd": 282, "vhangup": 58,
}  # fmt: skip
_MACHINES = {
    "x86_64": (0xC000003E, 56, 272, 41, _X86_64),
    "aarch64": (0xC00000B7, 220, 97, 198, _AARCH64),
}
_CLONE3 = 435


def filter_program() -> bytes:
    """Return the filter for this machine, in the format of bubblewrap's `--seccomp`.

    A refused call fails with EPERM, a refused family of sockets with EAFNOSUPPORT; clone3,
    whose flags a filter cannot read, with ENOSYS, upon which the C library falls back to
    clone. Calls in another machine's numbering end the process.

    Returns:
        Instructions of 8 bytes; b"" on a machine whose calls are not known here.
    """
    known = _MACHINES.get(platform.machine())
    if known is None:
        return b""
    audit, clone, unshare, socket, refused = known
    refuse, allow = _ERROR | errno.EPERM, _ALLOW
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, refuse),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in refused.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    families = len(_FAMILIES)
    program += [(_EQUAL, 0, families + 3, socket), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    program += [(_EQUAL, families - i, 0, f) for i, f in enumerate(_FAMILIES.values())]
    program += [
        (_RETURN, 0, 0, _ERROR | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, allow),
        (_EQUAL, 1, 0, clone),
        (_EQUAL, 0, 3, unshare),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, allow),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
