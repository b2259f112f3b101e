#!/usr/bin/env bash
# A member of a packet fanout group that makes its ring after it has joined gives up its place in the group.
#
# Versions: Linux 6.18; Python 3.11's standard library. Needs CAP_NET_RAW (root), and a network namespace of its own if it
# may make one (`unshare -n`).
#
# Three packet sockets join a fanout group whose program (PACKET_FANOUT_CBPF) always returns 0: the first member gets all.
# When that member then asks for a ring (PACKET_RX_RING), the kernel takes it off the link and puts it on again, for the
# ring's sake. In the group that is leaving and joining: the last member moves into its place, and it becomes the last
# one itself. So what it was to get, another member gets, though nobody left. Rings that are made before joining, or
# before the others join, move nobody. packet(7) tells neither.
#
# Output seen:
#   all three joined: [5, 0, 0]
#   the first makes its ring: [0, 0, 5]
set -euo pipefail
if [ "$(id -u)" != 0 ]; then echo "needs root (CAP_NET_RAW)"; exit 1; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/fanout.py" <<'EOF'
import ctypes, socket, struct, subprocess, sys

subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
SOL_PACKET, RX_RING, FANOUT, FANOUT_DATA, IGNORE_OUTGOING = 263, 5, 18, 22, 23
CBPF, ETH_P_IP = 6, 0x0800


def member(group: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    sock.bind(("lo", ETH_P_IP))
    sock.setblocking(False)
    sock.setsockopt(SOL_PACKET, FANOUT, group | CBPF << 16)
    return sock


def got(sock: socket.socket) -> int:
    """Packets that this member was given since it was asked last; PACKET_STATISTICS counts ring or not."""
    return struct.unpack("II", sock.getsockopt(SOL_PACKET, 6, 8))[0]


def send() -> list[int]:
    for sock in members:
        got(sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        for _ in range(5):
            sender.sendto(b"x" * 20, port.getsockname())
    return [got(sock) for sock in members]


members = [member(4242) for _ in range(3)]
program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # ret 0
members[0].setsockopt(SOL_PACKET, FANOUT_DATA, struct.pack("HL", 1, ctypes.addressof(program)))
first = send()
print("all three joined:", first)
members[0].setsockopt(SOL_PACKET, RX_RING, struct.pack("IIII", 4096, 4, 2048, 8))
second = send()
print("the first makes its ring:", second)
sys.exit(0 if (first, second) == ([5, 0, 0], [0, 0, 5]) else 1)
EOF
if unshare -n true 2>/dev/null; then unshare -n python3 "$work/fanout.py"; else python3 "$work/fanout.py"; fi
