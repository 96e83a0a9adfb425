"""The image without a container engine: image.py KARA lays out the same root file system in a folder, with the script
that the Dockerfile runs, and starts its entry point there as a container runtime would: root read-only, /data a volume,
user 1000, the server as process 1 of its own process numbers.

Where a container engine has built the Dockerfile, image.py ROOT tests what it made: ROOT is the image's root file system
(with Buildah: buildah bud --isolation chroot -f deploy/image/Dockerfile -t kara ., then buildah mount of a container).
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import redis

IMAGE = pathlib.Path(__file__).parents[2] / "deploy" / "image"
USER = 1000


def dockerfile():
    """What the last stage says: its variables, entry point, command and health check."""
    text = (IMAGE / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1].replace("\\\n", " ")
    words = {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines()[1:] if line and line[0] != "#"}
    env = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', words["ENV"])}
    assert words["USER"] == f"{USER}:{USER}" and words["WORKDIR"] == "/data" and words["VOLUME"] == "/data", words
    health = json.loads(words["HEALTHCHECK"].split("CMD ", 1)[1])
    return env, json.loads(words["ENTRYPOINT"]), json.loads(words["CMD"]), health


def enter(root, data, env, command):
    """Runs as the first process of its namespaces: what a runtime does before the entry point."""
    run = lambda *words: subprocess.run(words, check=True)
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", root, root)
    run("mount", "--bind", data, f"{root}/data")
    run("mount", "-t", "proc", "proc", f"{root}/proc")
    run("mount", "-o", "remount,bind,ro", root)
    os.chroot(root)
    os.chdir("/data")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    for path in ("/x", "/usr/local/bin/x", "/etc/x"):
        try:
            open(path, "w")
        except OSError:
            continue
        sys.exit(f"{path} can be written")
    env = json.loads(env)
    # As a runtime looks for the entry point: in the image's PATH.
    os.execvpe(command[0], command, env)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Image:
    def __init__(self, folder, kara):
        self.folder = folder
        self.root, self.data = folder / "root", folder / "data"
        if os.path.isdir(kara):
            subprocess.run(["cp", "-a", kara, self.root], check=True)
        else:
            subprocess.run([IMAGE / "assemble.sh", self.root, kara], check=True)
        self.data.mkdir()
        if os.geteuid() == 0:
            os.chown(self.data, USER, USER)
        self.env, self.entrypoint, self.command, self.health = dockerfile()
        self.port, self.metrics = free_port(), free_port()
        # This machine's network is shared, unlike a container's: other ports, and the loopback interface only.
        own = f"; bind 127.0.0.1; port {self.port}; metrics-port {self.metrics}"
        self.env["KARA_DEFAULTS"] += own

    def start(self, args, **env):
        """`docker run IMAGE args`."""
        spaces = ["--mount", "--pid", "--fork", "--kill-child=KILL"]
        if os.geteuid() != 0:
            spaces += ["--user", f"--map-user={USER}", f"--map-group={USER}", "--keep-caps"]
        command = self.entrypoint + (args or self.command)
        inner = [sys.executable, __file__, "enter", self.root, self.data, json.dumps({**self.env, **env}), *command]
        log = open(self.folder / "log", "ab")
        return subprocess.Popen(["unshare", *spaces, *inner], stdout=subprocess.PIPE, stderr=log)

    def output(self, args, code=0):
        process = self.start(args)
        said = process.communicate(timeout=60)[0].decode()
        assert process.returncode == code, f"{args}: {process.returncode}, {said}{self.log()}"
        return said

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def client(self, process, password="secret"):
        client = redis.Redis(port=self.port, password=password, socket_timeout=10)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.ping()
                return client
            except redis.RedisError as fault:
                assert process.poll() is None, f"it ended: {process.stdout.read().decode()}{self.log()}"
                assert time.monotonic() < deadline, fault
                time.sleep(0.05)

    def stop(self, process, server):
        """SIGTERM to the first process of the container, as a runtime sends it."""
        os.kill(server, signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0, f"{process.returncode} {self.log()}"


def child(process):
    """The number by which this side knows the container's first process."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if children.exists():
        return int(children.read_text().split()[0])
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        if f"\nPPid:\t{process.pid}\n" in status.read_text():
            return int(status.parent.name)
    raise AssertionError("no child")


def main(kara):
    with tempfile.TemporaryDirectory(prefix="kara-image-") as folder:
        os.chmod(folder, 0o755)
        image = Image(pathlib.Path(folder), kara)
        # Flags alone.
        process = image.start(["--requirepass", "secret"])
        client = image.client(process)
        server = child(process)
        assert client.config_get("dir")["dir"] == "/data"
        assert client.info("server")["process_id"] == 1
        status = pathlib.Path(f"/proc/{server}/status").read_text()
        uids = re.search(r"Uid:\t(\d+)", status).group(1)
        assert uids == str(USER if os.geteuid() == 0 else os.geteuid()), uids
        client.set("kept", "yes")
        client.save()
        client.set("kept", "by the last save")
        for page in ("healthz", "readyz", "metrics"):
            assert urllib.request.urlopen(f"http://127.0.0.1:{image.metrics}/{page}", timeout=10).status == 200
        ports = ["--metrics-port", str(image.metrics), "--port", str(image.port)]
        image.output([*image.health, *ports])
        for name in ("valkey-cli", "redis-cli"):
            if (image.root / "usr/local/bin" / name).exists():
                said = image.output([name, "-p", str(image.port), "-a", "secret", "--no-auth-warning", "GET", "kept"])
                assert said.strip() == "by the last save", said
        image.stop(process, server)
        assert (image.data / "dump.rdb").exists(), list(image.data.iterdir())
        image.output([*image.health, *ports], code=1)
        # A full command, under the older name; what the first one saved is there.
        process = image.start(["redis-server", "--requirepass", "secret"], VALKEY_EXTRA_FLAGS="--maxmemory 100mb")
        client = image.client(process)
        assert client.get("kept") == b"by the last save"
        assert client.config_get("maxmemory")["maxmemory"] == str(100 << 20)
        image.stop(process, child(process))
        # No argument at all, then what is no server.
        process = image.start([])
        client = image.client(process, password=None)
        assert client.get("kept") == b"by the last save"
        image.stop(process, child(process))
        assert image.output(["kara-server", "--version"]).startswith("Valkey server v=")
        image.output(["valkey-check-rdb", "dump.rdb"])
        image.output(["no-such-program"], code=127)
        size = sum(file.stat().st_size for file in image.root.rglob("*") if file.is_file() and not file.is_symlink())
        print(f"{size >> 20} MiB")


if __name__ == "__main__":
    if sys.argv[1] == "enter":
        enter(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
    else:
        main(sys.argv[1])
