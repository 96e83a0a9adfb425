"""What an application does with redis-py or valkey-py, over RESP2 and RESP3: smoke.py MODULE PROTOCOL PORT."""

import importlib
import sys
import threading


def expect(actual, wanted, what):
    if actual != wanted:
        sys.exit(f"{what}: {actual!r} instead of {wanted!r}")


def basics(r):
    expect(r.ping(), True, "PING")
    expect(r.set("k", "v", ex=100), True, "SET EX")
    expect(r.get("k"), b"v", "GET")
    expect(0 < r.ttl("k") <= 100, True, "TTL")
    expect(r.set("k", "other", nx=True), None, "SET NX on a present key")
    expect(r.getdel("k"), b"v", "GETDEL")
    expect(r.get("k"), None, "GET of a missing key")
    expect(r.incrby("n", 41) + r.incr("n"), 83, "INCR")
    expect(r.incrbyfloat("f", 1.5), 1.5, "INCRBYFLOAT")
    big = bytes(range(256)) * 40_000
    r.set("big", big)
    expect(r.get("big") == big, True, "a value of 10 MB")
    expect(r.mget("n", "missing"), [b"42", None], "MGET")


def collections(r):
    expect(r.rpush("l", *range(100)), 100, "RPUSH")
    expect(r.lrange("l", 0, 2), [b"0", b"1", b"2"], "LRANGE")
    expect(r.hset("h", mapping={"a": 1, "b": "two"}), 2, "HSET")
    expect(r.hgetall("h"), {b"a": b"1", b"b": b"two"}, "HGETALL")
    expect(r.sadd("s", "x", "y", "x"), 2, "SADD")
    expect(set(r.smembers("s")), {b"x", b"y"}, "SMEMBERS")
    expect(r.zadd("z", {"one": 1, "half": 0.5}), 2, "ZADD")
    expect([tuple(pair) for pair in r.zrange("z", 0, -1, withscores=True)], [(b"half", 0.5), (b"one", 1.0)], "ZRANGE")
    expect(r.zscore("z", "half"), 0.5, "ZSCORE")
    entry = r.xadd("x", {"f": "v"})
    expect([(entry, {b"f": b"v"})], [tuple(row) for row in r.xrange("x")], "XRANGE")
    expect(sorted(r.scan_iter(match="?", count=3)), sorted([b"n", b"f", b"l", b"h", b"s", b"z", b"x"]), "SCAN")


def pipelines(r, module):
    with r.pipeline(transaction=False) as p:
        for number in range(1000):
            p.set(f"p:{number}", number)
        expect(p.execute(), [True] * 1000, "a pipeline of 1,000")
    with r.pipeline(transaction=True) as p:
        p.incr("n").lpush("l", "t").get("missing")
        expect(p.execute(), [43, 101, None], "MULTI/EXEC")
    with r.pipeline() as p:
        p.watch("n")
        r.incr("n")
        p.multi()
        p.set("n", "lost")
        try:
            p.execute()
            sys.exit("EXEC after a change of a watched key succeeded")
        except module.exceptions.WatchError:
            pass
    try:
        r.lpush("n", "x")
        sys.exit("LPUSH on a string succeeded")
    except module.exceptions.ResponseError as fault:
        expect(str(fault), "WRONGTYPE Operation against a key holding the wrong kind of value", "the error")


def blocking_and_messages(r):
    threading.Timer(0.1, lambda: r.rpush("queue", "job")).start()
    expect(list(r.blpop("queue", timeout=10)), [b"queue", b"job"], "BLPOP")
    expect(r.blpop("queue", timeout=0.05), None, "BLPOP's time")
    with r.pubsub() as subscriber:
        subscriber.subscribe("news")
        subscriber.psubscribe("ne*")
        for _ in range(2):
            subscriber.get_message(timeout=10)
        expect(r.publish("news", "hello"), 2, "PUBLISH")
        kinds = sorted(subscriber.get_message(timeout=10)["type"] for _ in range(2))
        expect(kinds, ["message", "pmessage"], "messages")


def main():
    module = importlib.import_module(sys.argv[1])
    connection = module.Redis if hasattr(module, "Redis") else module.Valkey
    r = connection(host="127.0.0.1", port=int(sys.argv[3]), protocol=int(sys.argv[2]), client_name="smoke")
    expect(r.client_getname() in ("smoke", b"smoke"), True, "CLIENT GETNAME")
    r.flushall()
    basics(r)
    r.delete("big")
    collections(r)
    pipelines(r, module)
    blocking_and_messages(r)
    print("ok")


main()
