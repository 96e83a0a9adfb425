// What a platform's cache is for, through popular libraries: usecases.mjs CASE PORT [lru] (KARA_NODE names their folder).
// `lru` says that the server runs with a memory limit and allkeys-lru: then the case also fills it.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [name, port, mode] = process.argv.slice(2);
const lru = mode === "lru";
const load = createRequire(process.env.KARA_NODE + "/");
// Packages that are modules only.
const module = (package_) => import(pathToFileURL(load.resolve(package_)).href);
const url = `redis://127.0.0.1:${port}`;
const { createClient, BasicClientSideCache } = load("redis");
const r = await createClient({ url }).connect();

async function until(what, message) {
  const deadline = Date.now() + 5000;
  while (!(await what())) {
    assert.ok(Date.now() < deadline, message);
    await sleep(5);
  }
}

async function info(field) {
  return Number((await r.info()).match(new RegExp(`^${field}:(.*)$`, "m"))[1]);
}

// Fills the memory, uses what `touch` uses, and writes more than there is room for: what wasn't used goes.
async function fill(touch) {
  const value = "x".repeat(4096);
  const limit = await info("maxmemory");
  const evicted = await info("evicted_keys");
  const keys = Math.floor((limit - (await info("used_memory"))) / 4300);
  const write = (what, count) =>
    Promise.all(Array.from({ length: count }, (_, n) => r.set(`${what}:${n}`, value, { EX: 300 })));
  await write("old", Math.floor(keys * 0.8));
  // The clock of LRU counts in seconds.
  await sleep(1200);
  await touch();
  await write("new", Math.floor(keys * 0.5));
  assert.ok((await info("evicted_keys")) > evicted, "nothing was evicted");
  assert.ok((await info("used_memory")) <= limit * 1.05, "the limit doesn't hold");
}

// express-session with connect-redis: 24 h, renewed by each use.
async function sessions() {
  const express = load("express");
  const session = load("express-session");
  const { RedisStore } = await module("connect-redis");
  const day = 24 * 3600;
  const app = express();
  app.use(
    session({
      store: new RedisStore({ client: r, prefix: "sess:", ttl: day }),
      secret: "s",
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: day * 1000 },
    }),
  );
  app.get("/count", (request, response) => {
    request.session.n = (request.session.n ?? 0) + 1;
    response.send(String(request.session.n));
  });
  app.get("/leave", (request, response) => request.session.destroy(() => response.send("bye")));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const visitor = () => {
    let cookie;
    return async (path) => {
      const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`, {
        headers: cookie ? { cookie } : {},
      });
      cookie = response.headers.get("set-cookie")?.split(";")[0] ?? cookie;
      return response.text();
    };
  };
  const [one, other] = [visitor(), visitor()];
  assert.deepEqual([await one("/count"), await one("/count"), await other("/count")], ["1", "2", "1"]);
  const keys = await r.keys("sess:*");
  assert.equal(keys.length, 2);
  for (const key of keys) assert.ok((await r.ttl(key)) > day - 60);
  await r.expire(keys[0], 100);
  await Promise.all([one("/count"), other("/count")]);
  assert.ok((await r.ttl(keys[0])) > day - 60, "use didn't renew it");
  if (lru) {
    await fill(() => one("/count"));
    assert.equal(await one("/count"), "5", "the session in use was evicted");
  } else {
    await other("/leave");
    assert.equal((await r.keys("sess:*")).length, 1);
  }
  server.close();
  server.closeAllConnections();
}

// rate-limiter-flexible: windows of a minute by a script; and INCR with EXPIRE as applications write it.
async function limits() {
  const { RateLimiterRedis } = load("rate-limiter-flexible");
  const limiter = new RateLimiterRedis({
    storeClient: r,
    useRedisPackage: true,
    keyPrefix: "limit",
    points: 5,
    duration: 60,
  });
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => limiter.consume("someone")));
  assert.equal(outcomes.filter((outcome) => outcome.status === "fulfilled").length, 5);
  const refused = outcomes.find((outcome) => outcome.status === "rejected").reason;
  assert.ok(refused.msBeforeNext > 50_000 && refused.msBeforeNext <= 60_000 && refused.remainingPoints === 0);
  assert.equal((await limiter.consume("someone else")).remainingPoints, 4);
  const ttl = await r.pTTL("limit:someone");
  assert.ok(ttl > 50_000 && ttl <= 60_000);
  const allowed = async (user, most = 3) => {
    const [count] = await r.multi().incr(`rate:${user}`).expire(`rate:${user}`, 60, "NX").exec();
    return count <= most;
  };
  const answers = [];
  for (let n = 0; n < 5; n++) answers.push(await allowed("u"));
  assert.deepEqual(answers, [true, true, true, false, false]);
  assert.ok((await r.ttl("rate:u")) > 50);
  // Many at once are counted exactly.
  const many = await Promise.all(Array.from({ length: 200 }, () => allowed("crowd", 50)));
  assert.equal(many.filter(Boolean).length, 50);
}

// cache-manager with Keyv: answers for five minutes, asked for once however many want them.
async function apiCache() {
  const { createCache } = load("cache-manager");
  const { default: Keyv } = load("keyv");
  const { default: KeyvRedis } = load("@keyv/redis");
  const store = new Keyv({ store: new KeyvRedis(url, { namespace: "api" }), useKeyPrefix: false });
  const cache = createCache({ stores: [store], ttl: 300_000 });
  let asked = 0;
  const answer = (path) =>
    cache.wrap(path, async () => {
      asked++;
      await sleep(5);
      return { path, items: Array.from({ length: 50 }, (_, n) => n) };
    });
  const many = await Promise.all(Array.from({ length: 20 }, () => answer("/users")));
  assert.equal(many[19].items[49], 49);
  assert.equal(asked, 1);
  const [key] = await r.keys("*/users");
  assert.ok((await r.ttl(key)) > 290);
  await cache.mset([
    { key: "/a", value: 1 },
    { key: "/b", value: [2] },
  ]);
  assert.deepEqual(await cache.mget(["/a", "/b", "/c"]), [1, [2], undefined]);
  await cache.set("/short", 1, 20);
  await until(async () => (await cache.get("/short")) === undefined, "it didn't expire");
  if (lru) {
    await fill(() => answer("/users"));
    assert.equal(asked, 1, "the answer in use was evicted");
  } else {
    await cache.del("/users");
    await answer("/users");
    assert.equal(asked, 2);
  }
  await cache.disconnect();
}

// node-redis's client-side cache: flags come from memory until the server tells of a change.
async function flags() {
  const clientSideCache = new BasicClientSideCache({ ttl: 60_000, maxEntries: 100, evictPolicy: "LRU" });
  const cached = await createClient({ url, RESP: 3, clientSideCache }).connect();
  await r.set("flag:new-ui", "off", { EX: 60 });
  assert.equal(await cached.get("flag:new-ui"), "off");
  const before = clientSideCache.stats();
  for (let n = 0; n < 50; n++) assert.equal(await cached.get("flag:new-ui"), "off");
  const after = clientSideCache.stats();
  assert.equal(after.hitCount - before.hitCount, 50);
  assert.equal(after.missCount, before.missCount);
  await r.set("flag:new-ui", "on", { EX: 60 });
  await until(async () => (await cached.get("flag:new-ui")) === "on", "the change was not told");
  await r.pExpire("flag:new-ui", 20);
  await until(async () => (await cached.get("flag:new-ui")) === null, "the end was not told");
  if (lru) {
    await r.set("flag:old", "on");
    assert.equal(await cached.get("flag:old"), "on");
    await fill(async () => {});
    await until(
      async () => (await r.exists("flag:old")) || (await cached.get("flag:old")) === null,
      "the eviction was not told",
    );
  }
  cached.destroy();
}

await { sessions, limits, "api-cache": apiCache, flags }[name]();
process.exit(0);
