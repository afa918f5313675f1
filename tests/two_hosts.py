"""Two hosts on one machine: network namespaces with a cable between them, and perhaps a disk of their own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


ADDRESSES = "10.77.0.1", "10.77.0.2"
CABLE = "cable"


class Host:
    """A network namespace, and the job that runs in it."""

    def __init__(self, rank: int):
        self.name = f"slam-hf-{os.getpid()}-{rank}"
        self.address = ADDRESSES[rank]
        self.job: subprocess.Popen | None = None
        self.log = Path()

    def start(
        self, command: Sequence[str], log: Path, disk: Path | None = None, shared: Path | None = None, **environment
    ) -> None:
        """Start a job. A `disk` of its own is seen in the place of the folder `shared`."""
        mount = [] if disk is None else ["sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', disk, shared]
        # Without a name server, gloo would offer other hosts the address of this machine's own name, 127.0.0.1.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": CABLE, **environment}
        self.log = log
        with open(log, "w") as file:
            self.job = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *mount, *command],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill all processes of the host at once."""
        names = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout.split()
        for name in names:
            with suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)

    def unplug(self) -> None:
        """Pull the cable: whatever waits for the other host gets no answer."""
        subprocess.run(["ip", "-n", self.name, "link", "set", CABLE, "down"], check=True)

    def wait(self, timeout: float) -> int:
        """Wait for the job, and return its exit status."""
        return self.job.wait(timeout)

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until the job has printed a text."""
        end = time.monotonic() + timeout
        while text not in self.log.read_text(errors="replace"):
            assert self.job.poll() is None and time.monotonic() < end, self.log.read_text(errors="replace")[-5000:]
            time.sleep(0.1)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else. Skips the test where there can be none."""
    if shutil.which("ip") is None:
        pytest.skip("There is no `ip` (iproute2) to make network namespaces with.")
    hosts = Host(0), Host(1)
    made = []
    try:
        for host in hosts:
            result = subprocess.run(["ip", "netns", "add", host.name], capture_output=True, text=True)
            if result.returncode:
                pytest.skip(f"Network namespaces cannot be made here: {result.stderr.strip()}")
            made.append(host)
        ends = ["type", "veth", "peer", "name", CABLE, "netns", hosts[1].name]
        _ip("link", "add", CABLE, "netns", hosts[0].name, *ends)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in made:
            host.kill()
            _ip("netns", "delete", host.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
