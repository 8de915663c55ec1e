"""Machines on a network of our own: namespaces whose packets this process passes on, delays, drops or stops.

Each machine has one interface, a TUN device: what it sends is read here, and written to the device of the machine that
it is for. That needs root and ``ip``, but no bridge and no traffic control of the kernel.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
MTU, PREFIX = 1500, "10.77.0."
TUN = Path("/dev/net/tun")


class Network:
    """``count`` machines; ``delay`` is in seconds, one way; ``loss`` a share of packets; with ``cut`` none passes."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.delay, self.loss, self.cut = 0.0, 0.0, False
        self.sent = self.lost = 0
        self._devices = [_machine(number) for number in range(count)]
        self._rng, self._done = random.Random(seed), threading.Event()
        self._router = threading.Thread(target=self._route, daemon=True)
        self._router.start()

    @staticmethod
    def address(machine: int) -> str:
        """Its address, the same from all machines."""
        return f"{PREFIX}{machine + 1}"

    @staticmethod
    def inside(machine: int, *words: object) -> list[str]:
        """A command as it is started on a machine; gloo would look for its interface by the host's name."""
        variables = ["env", f"GLOO_SOCKET_IFNAME={_device(machine)}"]
        return ["ip", "netns", "exec", _name(machine), *variables, *map(str, words)]

    def close(self) -> None:
        """Takes the machines down; their processes have to have ended."""
        self._done.set()
        self._router.join()
        for machine, device in enumerate(self._devices):
            os.close(device)
            _ip("netns", "delete", _name(machine))

    def _route(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        while not self._done.is_set():
            due = waiting[0][0] - time.monotonic() if waiting else 0.1
            for device in select.select(self._devices, [], [], min(0.1, max(0.0, due)))[0]:
                packet = os.read(device, MTU)
                machine = packet[19] - 1 if packet[0] >> 4 == 4 else -1  # the last byte of IPv4's destination
                if 0 <= machine < len(self._devices) and self._passes():
                    heapq.heappush(waiting, (time.monotonic() + self.delay, next(numbers), machine, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, machine, packet = heapq.heappop(waiting)
                os.write(self._devices[machine], packet)

    def _passes(self) -> bool:
        self.sent += 1
        lost = self.cut or self._rng.random() < self.loss
        self.lost += lost
        return not lost


@contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of so many machines."""
    made = Network(count)
    try:
        yield made
    finally:
        made.close()


def missing() -> str:
    """Why this machine can have no network of its own; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not TUN.exists():
        return f"there is no {TUN}"
    tried = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return "there is no `ip` that has namespaces" if tried.returncode else ""


def _name(machine: int) -> str:
    return f"verydeep-{os.getpid()}-{machine}"


def _device(machine: int) -> str:
    return f"vd{os.getpid() % 100000}-{machine}"


def _machine(number: int) -> int:
    """Makes a namespace with its device; returns the file descriptor at which its packets are read and written."""
    device, space = _device(number), _name(number)
    opened = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    _ip("netns", "add", space)
    _ip("link", "set", device, "netns", space)
    for words in (
        ("address", "add", f"{Network.address(number)}/24", "dev", device),
        ("link", "set", device, "mtu", MTU, "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip("-n", space, *words)
    return opened


def _ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True)
