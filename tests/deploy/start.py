"""Starts the servers of the manifests with exactly the rendered arguments: start.py FOLDER, where FOLDER holds the
programs. Runs in network and mount namespaces of its own, in which the primary's name resolves.
"""

import fcntl
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import redis

import chart

PASSWORD = "pass word's \"$x"
SECRETS = {"VALKEY_PASSWORD": PASSWORD, "MASTER_PASSWORD": PASSWORD, "VALKEY_USER_1_PASSWORD": "--app's > \"word"}


def own_namespaces():
    """Brings the loopback interface up, and makes the primary's name known."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCSIFFLAGS with IFF_UP and IFF_RUNNING.
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    host = chart.examples()["disaster-recovery"]["disasterRecovery"]["host"]
    hosts = tempfile.NamedTemporaryFile("w", delete=False)
    hosts.write(f"127.0.0.1 localhost {host}\n")
    hosts.close()
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", hosts.name, "/etc/hosts"], check=True)
    os.unlink(hosts.name)


def start(example, programs, more=""):
    """As the kubelet does it: `$(NAME)` in arguments is replaced by the variable's value."""
    container = chart.container(example)
    env = {row["name"]: row.get("value") or SECRETS[row["name"]] for row in container["env"]}
    args = [re.sub(r"\$\((\w+)\)", lambda name: env[name.group(1)], arg) for arg in container["args"]]
    env["KARA_DEFAULTS"] += more
    env["PATH"] = str(programs)
    folder = tempfile.mkdtemp(prefix="kara-deploy-")
    log = open(f"{folder}/log", "wb")
    command = [f"{programs}/kara-entrypoint", *args]
    return subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log), folder


def until(what, is_so):
    deadline = time.monotonic() + 60
    while True:
        try:
            if is_so():
                return
        except (redis.RedisError, OSError):
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def page(port, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read().decode()


def main(programs):
    own_namespaces()
    primary, first = start("primary", programs)
    # One network for both here, so another port; the arguments are the manifest's.
    recovery, second = start("disaster-recovery", programs, "; port 6380; metrics-port 9122")
    shared, third = start("replicas", programs, "; port 6381; metrics-port 9123")
    try:
        one = redis.Redis(port=6379, password=PASSWORD, socket_timeout=10)
        two = redis.Redis(port=6380, socket_timeout=10)
        until("the primary", one.ping)
        until("the disaster recovery", two.ping)
        assert one.config_get("maxmemory")["maxmemory"] == str(2 << 30)
        try:
            redis.Redis(port=6379).ping()
        except redis.AuthenticationError:
            pass
        else:
            raise AssertionError("no password was asked for")
        app = redis.Redis(port=6381, username="app", password=SECRETS["VALKEY_USER_1_PASSWORD"], socket_timeout=10)
        until("a user's own password", app.ping)
        assert app.get("app:a") is None
        for refused in (lambda: app.get("other"), app.flushall):
            try:
                refused()
            except redis.exceptions.NoPermissionError:
                continue
            raise AssertionError("the user may do more than the chart says")
        one.set("a", "1")
        until("replication", lambda: two.get("a") == b"1")
        until("readiness", lambda: page(9121, "/readyz") == page(9122, "/readyz") == "ok\n")
        assert "valkey_connected_replicas 1\n" in page(9121, "/metrics")
        assert re.search(r"redis_master_link_up\{.*\} 1\n", page(9122, "/metrics"))
        for process in (recovery, primary, shared):
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, process.returncode
        assert pathlib.Path(first, "dump.rdb").exists()
    except BaseException:
        for folder in (first, second, third):
            print(pathlib.Path(folder, "log").read_text(errors="replace")[-3000:])
        raise
    finally:
        for process, folder in ((primary, first), (recovery, second), (shared, third)):
            process.kill()
            process.wait()
            subprocess.run(["rm", "-r", folder], check=False)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
