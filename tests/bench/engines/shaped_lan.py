"""Two hosts on a shaped link: network namespaces, and `tc tbf` on what each of them sends."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.namespaces import Lan

BURST_S, LEAST_BURST_BYTES = 0.004, 3000  # short, so that little of a message goes at once
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@contextmanager
def shaped_lan() -> Iterator[Lan]:
    """Two hosts, ADDRESSES; the coordinator belongs on the first. Not shaped yet."""
    lan = Lan()
    try:
        lan.open()
        for _ in ADDRESSES:
            lan.add_host()
        yield lan
    except (PermissionError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or error
        raise SystemExit(f"network namespaces cannot be made, root is needed: {reason}") from error
    finally:
        lan.close()


def shape(lan: Lan, mbit_s: float) -> None:
    """Let neither host send faster, headers counted; 0 takes the limit away."""
    for host in lan.hosts:
        if not mbit_s:
            subprocess.run(
                ["tc", "-netns", host, "qdisc", "del", "dev", "eth0", "root"], capture_output=True, check=False
            )
            continue
        burst = max(LEAST_BURST_BYTES, int(mbit_s * 1e6 / 8 * BURST_S))
        limit = f"rate {mbit_s}mbit burst {burst}b latency 200ms".split()
        command = ["tc", "-netns", host, "qdisc", "replace", "dev", "eth0", "root", "tbf", *limit]
        subprocess.run(command, check=True, capture_output=True, text=True)
