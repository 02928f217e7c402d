"""Shared by the scripts that need several devices: each in a network namespace of its own, joined by
a bridge, paired, mounted. Needs root. Ends only what it started, and takes its namespaces away."""

import contextlib
import os
import pathlib
import subprocess
import time

import workspace as lib

MOUNT_OPTIONS = ["listen={address}:0"]


def command(*words):
    """Runs a program that must succeed."""
    done = subprocess.run(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise lib.Failed(f"{' '.join(map(str, words))}: {done.stdout.strip()}")
    return done.stdout


def need(program, package):
    """Installs a Debian package unless its program is there."""
    if subprocess.run(["which", program], stdout=subprocess.DEVNULL).returncode != 0:
        command("apt-get", "update", "-qq")
        command("apt-get", "install", "-y", "-qq", package)


def may_run():
    """Are namespaces and mounts open to us?"""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.W_OK)


class Network:
    """Namespaces on one bridge, numbered from 1."""

    def __init__(self, count):
        self.count = count
        self.mark = os.getpid()
        self.bridge = f"tdb{self.mark}"

    def namespace(self, number):
        return f"tidefs-{self.mark}-{number}"

    def outside(self, number):
        """The end of a device's cable that is here; its counters count what passes."""
        return f"td{self.mark}-{number}"

    def address(self, number):
        return f"10.77.0.{number}"

    def __enter__(self):
        command("ip", "link", "add", self.bridge, "type", "bridge")
        command("ip", "link", "set", self.bridge, "up")
        for number in range(1, self.count + 1):
            space, end = self.namespace(number), self.outside(number)
            command("ip", "netns", "add", space)
            command("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
            command("ip", "link", "set", end, "master", self.bridge, "up")
            command("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            command("ip", "-n", space, "link", "set", "eth0", "up")
            command("ip", "-n", space, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for number in range(1, self.count + 1):
            subprocess.run(["ip", "netns", "del", self.namespace(number)], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", self.bridge], stderr=subprocess.DEVNULL)

    def inside(self, number, *words):
        """A command line that runs in a device's namespace."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(number)}", *map(str, words)]

    def sent(self, number):
        """Bytes that a device has put on its cable, Ethernet's and IP's headers among them."""
        return self._counter(number, "rx_bytes")

    def received(self, number):
        return self._counter(number, "tx_bytes")

    def total(self):
        """Bytes that all devices have sent."""
        return sum(self.sent(number) for number in range(1, self.count + 1))

    def _counter(self, number, name):
        path = f"/sys/class/net/{self.outside(number)}/statistics/{name}"
        return int(pathlib.Path(path).read_text())

    def cable(self, number, is_in):
        """Plugs a device in, or pulls its cable."""
        command("ip", "link", "set", self.outside(number), "up" if is_in else "down")


class Device(lib.Workspace):
    """One device: a state directory and a mount, served from its namespace."""

    def __init__(self, network, number, parent):
        parent = pathlib.Path(parent) / f"device{number}"
        parent.mkdir()
        options = [option.format(address=network.address(number)) for option in MOUNT_OPTIONS]
        super().__init__(parent, options)
        self.network, self.number = network, number

    def command(self, *arguments):
        return self.network.inside(self.number, *super().command(*arguments))

    def invite(self):
        done = subprocess.run(
            self.command("invite", lib.NAME), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, check=False,
        )
        if done.returncode != 0:
            raise lib.Failed(f"tidefs invite: {done.stderr.strip()}")
        return done.stdout.strip()

    def join(self, ticket):
        options = [word for option in self.options for word in ("-o", option)]
        self.run("join", ticket, self.mnt, "--workspace", lib.NAME, *options)

    def detach(self):
        """Takes away a mount whose process was killed."""
        while self.is_mounted():
            self.abort()
            command("umount", "--lazy", self.mnt)

    def abort(self):
        """Ends every call that still waits for the process."""
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            rows = [line.split(" ") for line in table]
        numbers = [row[2].split(":")[1] for row in rows if row[4] == str(self.mnt)]
        for number in numbers:
            with contextlib.suppress(OSError):
                pathlib.Path(f"/sys/fs/fuse/connections/{number}/abort").write_text("1")

    def log(self):
        with contextlib.suppress(OSError):
            return (self.state / lib.NAME / "tidefs.log").read_text(errors="replace")
        return ""

    def close(self):
        if self.is_mounted():
            with contextlib.suppress(lib.Failed, OSError, ValueError):
                self.kill()
            self.detach()


@contextlib.contextmanager
def group(count, parent=None):
    """(network, devices): as many devices as asked for, paired and mounted."""
    lib.build()
    with lib.temp_dir(parent) as base, Network(count) as network:
        devices = [Device(network, number, base) for number in range(1, count + 1)]
        try:
            devices[0].mount()
            for device in devices[1:]:
                device.join(devices[0].invite())
            yield network, devices
        finally:
            for device in devices:
                device.close()


def await_that(what, is_so, bound_s=120, pause_s=0.002):
    """Waits until something is so; returns how long that took, in seconds."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > bound_s:
            raise lib.Failed(f"after {bound_s} s, not yet so: {what}")
        time.sleep(pause_s)
    return time.monotonic() - began
