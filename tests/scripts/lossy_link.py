"""A link between two TAP devices that loses frames: the kernel at hand may have no netem.

lossy_link.py NAME NAME: makes the devices, prints "ready", then forwards frames between them. A line on standard input is
the share to be lost from then on (0.05); each is answered by how many frames were forwarded and lost before. Ends with its
input. Needs root and /dev/net/tun.
"""

import fcntl
import os
import random
import selectors
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
FRAME_MAX = 65536


def tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_WITHOUT_HEADER))
    return device


def main():
    ends = [tap(name) for name in sys.argv[1:3]]
    print("ready", flush=True)
    dice = random.Random(7)
    share, forwarded, lost = 0.0, 0, 0
    ready = selectors.DefaultSelector()
    for device, other in (ends, ends[::-1]):
        ready.register(device, selectors.EVENT_READ, other)
    ready.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    return
                print(forwarded, lost, flush=True)
                share, forwarded, lost = float(line), 0, 0
                continue
            for _ in range(64):
                try:
                    frame = os.read(key.fd, FRAME_MAX)
                except OSError:
                    break
                if share and dice.random() < share:
                    lost += 1
                    continue
                forwarded += 1
                try:
                    os.write(key.data, frame)
                except OSError:
                    pass  # a device that is down, or full: a frame lost like any other


main()
