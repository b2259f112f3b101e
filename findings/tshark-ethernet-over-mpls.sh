#!/usr/bin/env bash
# Ethernet over MPLS: whether tshark reads a mirrored call depends on who made the network card.
#
# tshark 4.0.17-0+deb12u3 (Debian 12) with its libraries, Python 3.11, Linux x86_64.
#
# An Ethernet pseudowire (RFC 4448) has a control word of four bytes behind the MPLS label, or has none, and nothing in the
# packet says which. tshark guesses, and for that it looks whether the first three bytes of the inner destination address
# are in its table of manufacturers. Addresses that are nobody's, as every virtual machine (52:54:00, KVM) and many
# containers have them, are guessed wrong both ways: with the control word it is taken for a part of the address, and
# without it the packet is read four bytes too late, or not at all. An address of a known maker is read right with the
# word; without it only if its first half byte is 0. So the same RTP, mirrored over the same pseudowire, is a stream or is
# none. "-d mpls.label==1000,pwethcw" (or pwethnocw) settles it, both ways.
#
# Output seen (inner address, control word, what it is read as, port of the UDP datagram in it):
#   00:16:3e:00:00:02 no  eth:ethertype:mpls:pwethheuristic:pwethnocw:eth:ethertype:ip:udp:data 9000
#   00:16:3e:00:00:02 yes eth:ethertype:mpls:pwethheuristic:pwethcw:eth:ethertype:ip:udp:data 9000
#   f8:f2:1e:00:00:02 no  eth:ethertype:mpls:data none
#   f8:f2:1e:00:00:02 yes eth:ethertype:mpls:pwethheuristic:pwethcw:eth:ethertype:ip:udp:data 9000
#   52:54:00:00:00:02 no  eth:ethertype:mpls:data none
#   52:54:00:00:00:02 yes eth:ethertype:mpls:pwethheuristic:pwethnocw:eth:ethertype:data none
#   02:00:00:00:00:02 no  eth:ethertype:mpls:pwethheuristic:pwethcw:eth:llc:data none
#   02:00:00:00:00:02 yes eth:ethertype:mpls:pwethheuristic:pwethnocw:eth:ethertype:data none
#   told which: 9000 9000
set -euo pipefail
script=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
version=4.0.17-0+deb12u3
apt-get download -qq tshark=$version libwireshark16=$version libwiretap13=$version libwsutil14=$version \
  libwireshark-data=$version libc-ares2 libsmi2ldbl liblua5.2-0 libnghttp2-14 libsnappy1v5 libpcap0.8 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu" WIRESHARK_DATA_DIR="$work/root/usr/share/wireshark"
export WIRESHARK_CONFIG_DIR="$work/none"
tshark="$work/root/usr/bin/tshark"

cat >make.py <<'PYTHON'
import struct
import sys

SUM = 0xFFFF


def ipv4(payload: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    total = sum(struct.unpack(">10H", header))
    total = (total & SUM) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & SUM) + header[12:] + payload


path, inner, word = sys.argv[1:]
rtp = struct.pack(">BBHII", 0x80, 0, 1, 160, 7) + b"\xff" * 160
udp = struct.pack(">HHHH", 20000, 9000, 8 + len(rtp), 0) + rtp
ethernet = bytes.fromhex(inner.replace(":", "")) + bytes.fromhex("525400000001") + b"\x08\0" + ipv4(udp)
label = struct.pack(">I", 1000 << 12 | 1 << 8 | 64)
control = b"\0\0\0\0" if word == "yes" else b""
frame = bytes.fromhex("00163e00000900163e000008") + b"\x88\x47" + label + control + ethernet
with open(path, "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
    file.write(struct.pack("<IIII", 1_700_000_000, 0, len(frame), len(frame)) + frame)
PYTHON

read_as() {
  "$tshark" -r "$1" "${@:2}" -T fields -e frame.protocols -e udp.dstport 2>/dev/null | tr '\t' ' ' | sed 's/ $/ none/'
}

{
  for inner in 00:16:3e:00:00:02 f8:f2:1e:00:00:02 52:54:00:00:00:02 02:00:00:00:00:02; do
    for word in no yes; do
      python3 make.py one.pcap "$inner" "$word"
      printf '%s %-3s %s\n' "$inner" "$word" "$(read_as one.pcap)"
    done
  done
  told=()
  for word in no yes; do
    python3 make.py one.pcap 52:54:00:00:00:02 "$word"
    as=pwethnocw
    [ "$word" = no ] || as=pwethcw
    told+=("$(read_as one.pcap -d "mpls.label==1000,$as" | awk '{ print $NF }')")
  done
  echo "told which: ${told[*]}"
} | tee seen

sed -n 's/^#   //p' "$script" >expected
diff expected seen && echo "as it was"
