"""Libraries that live on scripts, through their own client code: scripts.py LIBRARY PORT."""

import math
import sys
import threading
import time

import redis
from redis.exceptions import LockError

library, port = sys.argv[1], int(sys.argv[2])


def locks():
    r = redis.Redis(port=port)
    lock = r.lock("name", timeout=5)
    assert lock.acquire()
    assert not r.lock("name", timeout=5).acquire(blocking=False)
    assert lock.extend(10) and 10_000 < r.pttl("name") <= 15_000
    assert lock.reacquire() and r.pttl("name") <= 5_000
    assert lock.owned() and lock.locked()
    lock.release()
    try:
        lock.release()
        raise AssertionError("released twice")
    except LockError:
        pass
    inside, most = [0], [0]

    def work():
        own = redis.Redis(port=port)
        for _ in range(20):
            with own.lock("shared", timeout=5, sleep=0.001):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most[0] == 1
    # Registered scripts: EVALSHA, and LOAD where the server doesn't know the script.
    add = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert add(keys=["n"], args=[5]) == 5
    r.script_flush()
    assert add(keys=["n"], args=[5]) == 10
    with r.pipeline() as pipe:
        add(keys=["n"], args=[1], client=pipe)
        pipe.get("n")
        assert pipe.execute() == [11, b"11"]


def rq():
    from rq import Queue, SimpleWorker

    r = redis.Redis(port=port)
    queue = Queue("default", connection=r)
    jobs = [queue.enqueue(pow, n, 2) for n in range(10)]
    after = queue.enqueue(max, 1, 7, depends_on=jobs[-1])
    bad = queue.enqueue(math.factorial, -1)
    SimpleWorker([queue], connection=r).work(burst=True, logging_level="ERROR")
    assert [job.latest_result().return_value for job in jobs] == [n * n for n in range(10)]
    assert after.latest_result().return_value == 7
    assert bad.get_status(refresh=True) == "failed"
    assert len(queue.failed_job_registry) == 1


started = time.monotonic()
{"locks": locks, "rq": rq}[library]()
print(f"{library}: {time.monotonic() - started:.1f} s")
