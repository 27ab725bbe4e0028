"""A network in which a packet takes as long as it is told: hosts are network namespaces, whose TUN devices this process holds.

    relay.py MICROSECONDS NAMESPACE DEVICE...

Host i of the list has an address that ends in .(i + 1). A packet is written to the device of its address once it has been
held for so long. It ends when its standard input does. Needs Linux and root; network.sh makes namespaces and devices."""

from __future__ import annotations

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LARGEST = 65536


def attach(namespace: str, device: str) -> int:
    """The packets of a device in a namespace, in which this process is afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    inside = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(inside, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"namespace {namespace}")
    os.close(inside)
    packets = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(packets, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    return packets


def relay(hosts: list[int], hold: float) -> None:
    # All are held equally long, so the first that came is the first due.
    held: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        wait = None if not held else max(held[0][0] - time.monotonic(), 0.0)
        ready, _, _ = select.select([*hosts, sys.stdin], [], [], wait)
        if sys.stdin in ready:
            return
        for host in ready:
            packet = os.read(host, LARGEST)
            to = packet[19] - 1
            # IPv4 to one of the hosts; the rest is the kernel's own talk.
            if packet[0] >> 4 == 4 and 0 <= to < len(hosts):
                held.append((time.monotonic() + hold, hosts[to], packet))
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, host, packet = held.popleft()
            os.write(host, packet)


def main() -> None:
    hold, pairs = float(sys.argv[1]) / 1e6, sys.argv[2:]
    hosts = [attach(namespace, device) for namespace, device in zip(pairs[::2], pairs[1::2], strict=True)]
    print("ready", flush=True)
    relay(hosts, hold)


if __name__ == "__main__":
    main()
