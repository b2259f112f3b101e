#!/usr/bin/env bash
# What a socket filter refuses, Linux counts as the socket's drops: the same figure as for full buffers.
#
# Seen on Linux 6.x with the Python standard library (3.11); nothing else is installed.
#
# A UDP receiver that tells its users "N datagrams were lost because the buffer was full" reads the "drops" column of
# /proc/net/udp or SK_MEMINFO_DROPS of SO_MEMINFO. A classic BPF program on the socket (SO_ATTACH_FILTER) that refuses
# datagrams on purpose (other hosts, or everything, while the socket is about to be closed) adds to that very counter:
# with an empty buffer of ample size, drops = what the filter refused. Nothing in either place tells the two apart, and
# the counter stays when the filter is taken off again. So who filters has to subtract what came since.
#
# Output seen:
#   no filter:     sent 50, readable 50, drops 0
#   filter ret 0:  sent 50, readable 0, drops 50
#   taken off:     sent 50, readable 50, drops 50
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/drops.py" <<'PYTHON'
import ctypes
import socket
import struct
import sys
import time

SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO, DROPS = 26, 27, 55, 8


def drops(sock):
    return struct.unpack_from("I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36), 4 * DROPS)[0]


def send_and_read(name, receiver, sender, count=50):
    for number in range(count):
        sender.send(bytes([number]) * 160)
    time.sleep(0.2)
    readable = 0
    while True:
        try:
            receiver.recv(2048, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        readable += 1
    print(f"{name:14} sent {count}, readable {readable}, drops {drops(receiver)}")
    return readable, drops(receiver)


receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(receiver.getsockname())
program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0: take nothing
seen = [send_and_read("no filter:", receiver, sender)]
receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
seen.append(send_and_read("filter ret 0:", receiver, sender))
receiver.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
seen.append(send_and_read("taken off:", receiver, sender))
sys.exit(0 if seen == [(50, 0), (0, 50), (50, 50)] else "this has changed")
PYTHON
python3 "$work/drops.py"
