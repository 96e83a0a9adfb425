"""How long a page of metrics takes while much is saved and loaded: scrape.py PROGRAM [KEYS [LIMIT_MS]].

Prints the longest and the mean page for each phase; fails where one takes longer than LIMIT_MS (50).
"""

import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import redis


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Run:
    def __init__(self, program, folder):
        self.command = [program, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--enable-debug-command", "yes"]
        self.log = open(f"{folder}/log", "wb")
        self.start()

    def start(self):
        self.port, self.metrics = free_port(), free_port()
        ports = ["--port", str(self.port), "--metrics-port", str(self.metrics)]
        self.process = subprocess.Popen(self.command + ports, stdout=self.log, stderr=self.log)
        self.url = f"http://127.0.0.1:{self.metrics}/metrics"

    def client(self):
        return redis.Redis(port=self.port, socket_timeout=600)

    def page(self):
        begun = time.perf_counter()
        text = urllib.request.urlopen(self.url, timeout=60).read().decode()
        return time.perf_counter() - begun, text

    def scrape(self, title, lasts, pause=0.05):
        """Pages as long as `lasts` says so."""
        times, own = [], []
        while lasts():
            try:
                took, text = self.page()
                times.append(took)
                # What the server itself took for the page before, without the network and this program.
                own += [float(n) for n in re.findall(r"^redis_exporter_last_scrape_duration_seconds (\S+)", text, re.M)]
            except OSError:
                assert not times, "a page was refused"
            time.sleep(pause)
        worst, mean = max(times), sum(times) / len(times)
        figures = f"mean {mean * 1e3:.1f} ms, longest {worst * 1e3:.1f} ms, in the server {max(own) * 1e3:.1f} ms"
        print(f"{title}: {len(times)} pages, {figures}", flush=True)
        return worst

    def is_loading(self):
        try:
            return "redis_loading_dump_file 1\n" in self.page()[1]
        except OSError:
            return True


def main(program, keys=10_000_000, limit_ms=50):
    with tempfile.TemporaryDirectory(prefix="kara-scrape-") as folder:
        run = Run(program, folder)
        try:
            worst = phases(run, keys)
        finally:
            run.process.kill()
            run.process.wait()
    assert worst * 1e3 <= limit_ms, f"{worst * 1e3:.1f} ms, at most {limit_ms} wanted"


def phases(run, keys):
    while True:
        try:
            run.client().ping()
            break
        except redis.RedisError:
            time.sleep(0.05)

    def during(title, *words):
        thread = threading.Thread(target=run.client().execute_command, args=words)
        thread.start()
        return run.scrape(title, thread.is_alive)

    worst = during(f"{keys} keys added by one command", "DEBUG", "POPULATE", keys)
    until = time.monotonic() + 2
    worst = max(worst, run.scrape("nothing to do", lambda: time.monotonic() < until))
    worst = max(worst, during("SAVE", "SAVE"))
    client = run.client()
    client.execute_command("BGSAVE")
    saving = lambda: client.info("persistence")["rdb_bgsave_in_progress"]
    worst = max(worst, run.scrape("BGSAVE", saving))
    run.process.kill()
    run.process.wait()
    run.start()
    return max(worst, run.scrape("loading", run.is_loading))


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:]))
