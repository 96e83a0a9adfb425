"""What a platform's cache is for, through popular libraries: usecases.py CASE PORT [lru].

`lru` says that the server runs with a memory limit and allkeys-lru: then the case also fills it and looks at what stays.
"""

import sys
import time

import redis

case, port = sys.argv[1], int(sys.argv[2])
lru = "lru" in sys.argv[3:]
url = f"redis://127.0.0.1:{port}/0"
r = redis.Redis(port=port)


def fill(touch):
    """Fills the memory, uses what `touch` uses, and writes more than there is room for: what wasn't used goes."""
    value = "x" * 4096
    before = r.info()
    limit = before["maxmemory"]
    keys = (limit - before["used_memory"]) // 4300

    def write(name, count):
        with r.pipeline(transaction=False) as pipe:
            for n in range(count):
                pipe.set(f"{name}:{n}", value, ex=300)
            pipe.execute()

    write("old", keys * 8 // 10)
    # The clock of LRU counts in seconds.
    time.sleep(1.2)
    touch()
    write("new", keys * 5 // 10)
    info = r.info()
    assert info["evicted_keys"] > before["evicted_keys"], "nothing was evicted"
    assert info["used_memory"] <= limit * 1.05, info["used_memory"]


def sessions():
    """Flask-Session: 24 h, renewed by each use."""
    from flask import Flask, session
    from flask_session import Session

    day = 24 * 3600
    app = Flask(__name__)
    app.config.update(
        SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=port), PERMANENT_SESSION_LIFETIME=day,
        SESSION_KEY_PREFIX="session:",
    )
    Session(app)

    @app.route("/count")
    def count():
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    @app.route("/leave")
    def leave():
        session.clear()
        return "bye"

    one, other = app.test_client(), app.test_client()
    assert [one.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert other.get("/count").text == "1"
    keys = r.keys("session:*")
    assert len(keys) == 2
    assert all(day - 60 < r.ttl(key) <= day for key in keys)
    r.expire(keys[0], 100)
    [client.get("/count") for client in (one, other)]
    assert r.ttl(keys[0]) > day - 60, "use didn't renew it"
    if lru:
        fill(lambda: one.get("/count"))
        assert one.get("/count").text == "6", "the session in use was evicted"
        assert r.ttl(r.keys("session:*")[0]) > day - 60
    else:
        other.get("/leave")
        assert len(r.keys("session:*")) == 1
        r.delete(*r.keys("session:*"))
        assert one.get("/count").text == "1", "a session that expired begins anew"


def limits():
    """limits: windows of a minute, fixed by INCR and EXPIRE in a script, moving by another."""
    from limits import RateLimitItemPerMinute
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

    storage = storage_from_string(url)
    assert storage.check()
    for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
        limiter = strategy(storage)
        five = RateLimitItemPerMinute(5)
        name = strategy.__name__
        # A fixed window that ends meanwhile would begin anew: then it is tried again.
        for _ in range(2):
            before = int(time.time()) // 60
            outcomes = [limiter.hit(five, name, "someone") for _ in range(8)]
            if int(time.time()) // 60 == before:
                break
            limiter.clear(five, name, "someone")
        assert outcomes == [True] * 5 + [False] * 3, (name, outcomes)
        assert not limiter.test(five, name, "someone")
        assert limiter.hit(five, name, "someone else")
        reset, remaining = limiter.get_window_stats(five, name, "someone")
        # The library says "now" where a counter has exactly a minute left, and time goes on until it is compared here.
        assert remaining == 0 and -1 <= reset - time.time() <= 61, (name, reset - time.time(), remaining)
        limiter.clear(five, name, "someone")
        assert limiter.hit(five, name, "someone")
    assert all(0 < r.ttl(key) <= 121 for key in r.keys("LIMITS*")), "every window ends"

    # As applications write it themselves: INCR, and EXPIRE with the first.
    def allowed(user, most=3):
        with r.pipeline() as pipe:
            pipe.incr(f"rate:{user}")
            pipe.expire(f"rate:{user}", 60, nx=True)
            return pipe.execute()[0] <= most

    assert [allowed("u") for _ in range(5)] == [True, True, True, False, False]
    first = r.pttl("rate:u")
    assert 0 < first <= 60_000 and allowed("v")
    allowed("u")
    assert r.pttl("rate:u") <= first, "the window must not be prolonged"


def api_cache():
    """cachelib, which Flask-Caching uses: answers for five minutes."""
    from cachelib import RedisCache

    cache = RedisCache(host="127.0.0.1", port=port, default_timeout=300, key_prefix="api:")
    asked = []

    def answer(path):
        found = cache.get(path)
        if found is None:
            asked.append(path)
            found = {"path": path, "items": list(range(50))}
            assert cache.set(path, found)
        return found

    for _ in range(3):
        assert answer("/users")["items"][49] == 49
    assert asked == ["/users"]
    assert 290 < r.ttl("api:/users") <= 300
    assert cache.set_many({"/a": 1, "/b": [2]}) and cache.get_many("/a", "/b", "/c") == [1, [2], None]
    assert cache.add("/a", 9) is False and cache.inc("hits") == 1 and cache.inc("hits", 4) == 5
    assert cache.set("/short", 1, timeout=1)
    r.pexpire("api:/short", 1)
    time.sleep(0.01)
    assert cache.get("/short") is None and not cache.has("/short")
    assert cache.delete_many("/a", "/b")
    if lru:
        fill(lambda: answer("/users"))
        assert asked == ["/users"], "the answer in use was evicted"
    else:
        assert cache.clear()
        assert answer("/users") and asked == ["/users", "/users"]


def flags():
    """valkey-py's client-side cache (redis-py's wants a server named redis): flags are read from memory until the
    server tells of a change."""
    import valkey

    cached = valkey.Valkey(
        port=port, protocol=3, cache_enabled=True, cache_max_size=100, cache_ttl=60, decode_responses=True
    )
    r.set("flag:new-ui", "off", ex=60)
    r.hset("flag:limits", mapping={"a": "1"})

    def commands():
        return r.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]

    assert cached.get("flag:new-ui") == "off"
    before = commands()
    for _ in range(50):
        assert cached.get("flag:new-ui") == "off"
    assert commands() == before, "the flag was asked for again"
    r.set("flag:new-ui", "on", ex=60)
    deadline = time.monotonic() + 5
    while cached.get("flag:new-ui") != "on":
        assert time.monotonic() < deadline, "the change was not told"
    assert 0 < r.ttl("flag:new-ui") <= 60
    # A flag that expires is told too.
    assert cached.hgetall("flag:limits") == {"a": "1"}
    r.pexpire("flag:limits", 20)
    deadline = time.monotonic() + 5
    while cached.hgetall("flag:limits"):
        assert time.monotonic() < deadline, "the end was not told"
        time.sleep(0.01)
    if lru:
        # The server's reads are none while the client answers from memory: so the flag may go, and that is told.
        fill(lambda: None)
        deadline = time.monotonic() + 5
        while cached.get("flag:new-ui") is not None:
            assert r.exists("flag:new-ui") or time.monotonic() < deadline, "the eviction was not told"
            if r.exists("flag:new-ui"):
                break


started = time.monotonic()
{"sessions": sessions, "limits": limits, "api-cache": api_cache, "flags": flags}[case]()
print(f"{case}: {time.monotonic() - started:.1f} s")
