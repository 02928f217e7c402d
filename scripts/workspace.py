"""Shared by the Python scripts here: a fresh workspace, mounted; a directory to work in."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = ROOT / "target" / "release" / "tidefs"
TIDEFS = pathlib.Path(os.environ.get("TIDEFS", BUILT))
NAME = "test"


class Failed(Exception):
    """What a suite found wrong; its text is for a person."""


def say(*words):
    print(*words, flush=True)


def build():
    """Builds the program in release form, unless $TIDEFS names another."""
    if TIDEFS == BUILT:
        subprocess.run(
            ["cargo", "build", "--quiet", "--release", "-p", "tidefs-mount"], cwd=ROOT, check=True
        )


def new_seed(given):
    """The seed given, or a new one."""
    return given if given is not None else random.SystemRandom().randrange(1 << 32)


class Workspace:
    """A workspace of its own below `parent`, mounted with `options` (as for -o)."""

    def __init__(self, parent, options=(), arguments=()):
        self.parent = pathlib.Path(parent)
        self.state = self.parent / "state"
        self.mnt = self.parent / "mnt"
        self.options = list(options)
        self.arguments = list(arguments)

    def command(self, *arguments):
        return [str(TIDEFS), "--state", str(self.state), *map(str, arguments)]

    def mount(self):
        options = [word for option in self.options for word in ("-o", option)]
        self.run("mount", self.mnt, "--workspace", NAME, *options, *self.arguments)

    def unmount(self):
        self.run("umount", self.mnt)

    def run(self, *arguments):
        """Runs `tidefs`; its output, or Failed with it."""
        done = subprocess.run(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode != 0:
            raise Failed(f"tidefs {' '.join(map(str, arguments))}: {done.stdout.strip()}")
        return done.stdout

    def verify(self):
        """`tidefs verify` must find nothing wrong; the workspace must not be mounted."""
        return self.run("verify", NAME)

    def pid(self):
        """The process that serves this workspace; none but ours, whatever the file says."""
        served = json.loads((self.state / NAME / "mount.json").read_text())
        pid = int(served["pid"])
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(self.state) not in command:
            raise Failed(f"process {pid} does not serve {self.state}")
        return pid

    def kill(self):
        """Kills the process that serves, and waits until it is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.001)

    def is_mounted(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            return any(line.split(" ")[4] == str(self.mnt) for line in table)

    def close(self):
        if not self.is_mounted():
            return
        with contextlib.suppress(Failed):
            self.unmount()
        if self.is_mounted():
            with contextlib.suppress(Failed):
                self.run("umount", "--lazy", self.mnt)


def is_alive(pid):
    """Is there such a process, or one of its threads?"""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    # The first thread may be gone while others still hold the process's files.
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X") or len(threads) > 1


@contextlib.contextmanager
def temp_dir(parent=None):
    """A new directory below `parent`, which others may enter; removed at the end."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="tidefs-", dir=parent)).resolve()
    path.chmod(0o755)
    try:
        yield path
    except BaseException:
        if os.environ.get("KEEP"):
            say(f"kept: {path}")
            raise
        remove(path)
        raise
    remove(path)


def remove(path):
    """Removes a tree, unless something is still mounted in it."""
    if os.path.ismount(path / "mnt"):
        say(f"{path}/mnt is still mounted")
        return
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def fresh_workspace(options=(), arguments=(), parent=None):
    """A new workspace, mounted; unmounted and removed at the end."""
    if not os.access("/dev/fuse", os.W_OK):
        raise Failed("/dev/fuse is not open to this user: name a directory")
    build()
    with temp_dir(parent) as path:
        workspace = Workspace(path, options, arguments)
        try:
            workspace.mount()
            yield workspace
        finally:
            workspace.close()


@contextlib.contextmanager
def place(directory, options=()):
    """Where to test: (an empty directory, its workspace or None)."""
    if directory is None:
        with fresh_workspace(options) as workspace:
            work = workspace.mnt / "work"
            work.mkdir()
            yield work, workspace
    else:
        with temp_dir(directory) as work:
            yield work, None


def main(name, body):
    """Runs a suite: Failed and a signal end it in order, and its exit status tells."""
    def stop(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        body()
    except Failed as error:
        say(f"{name}: FAILED: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
