"""Hosts on a LAN of network namespaces: one namespace a host, a bridge between them in one more."""

import contextlib
import os
import secrets
import subprocess
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Lan:
    """Host `i` has 10.77.0.(i+1) on eth0. `close` removes everything."""

    prefix: str = field(default_factory=lambda: f"hl{secrets.token_hex(3)}")
    hosts: list[str] = field(default_factory=list)

    @property
    def switch(self) -> str:
        return f"{self.prefix}-sw"

    def open(self) -> None:
        """Raises CalledProcessError or OSError where namespaces cannot be made."""
        ip("netns", "add", self.switch)
        inside(self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        inside(self.switch, "link", "set", "br0", "up")

    def add_host(self) -> str:
        """The namespace of a new host."""
        number = len(self.hosts) + 1
        host = f"{self.prefix}-h{number}"
        ip("netns", "add", host)
        self.hosts.append(host)
        inside(host, "link", "set", "lo", "up")
        port = f"p{number}"
        inside(host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch)
        inside(self.switch, "link", "set", port, "master", "br0", "up")
        inside(host, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        inside(host, "link", "set", "eth0", "up")
        inside(host, "route", "add", "224.0.0.0/4", "dev", "eth0")
        return host

    def close(self) -> None:
        for namespace in (*self.hosts, self.switch):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", namespace)


def open_lan() -> Lan:
    """Skips the test without root, saying so; in CI that is a failure."""
    lan = Lan()
    try:
        if os.geteuid() != 0:
            raise PermissionError("root is needed")
        lan.open()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"network namespaces cannot be made here: {getattr(error, 'stderr', None) or error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return lan


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


def inside(namespace: str, *words: str) -> None:
    ip("-netns", namespace, *words)
