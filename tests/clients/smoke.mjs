// What an application does with ioredis or node-redis: smoke.mjs LIBRARY PORT (NODE_PATH names their folder).

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [library, port] = process.argv.slice(2);
const load = createRequire(process.env.KARA_NODE + "/");
const big = "0123456789".repeat(500_000);

async function ioredis() {
  const Redis = load("ioredis");
  const r = new Redis(Number(port), "127.0.0.1");
  await r.flushall();
  assert.equal(await r.ping(), "PONG");
  assert.equal(await r.set("k", "v", "EX", 100), "OK");
  assert.equal(await r.get("k"), "v");
  const ttl = await r.ttl("k");
  assert.ok(ttl > 0 && ttl <= 100, `TTL ${ttl}`);
  assert.equal(await r.set("big", big), "OK");
  assert.equal(await r.get("big"), big);
  assert.equal(await r.hset("h", { a: 1, b: 2 }), 2);
  assert.deepEqual(await r.hgetall("h"), { a: "1", b: "2" });
  assert.equal(await r.zadd("z", 1.5, "m"), 1);
  assert.deepEqual(await r.zrange("z", 0, -1, "WITHSCORES"), ["m", "1.5"]);
  const piped = await Promise.all(Array.from({ length: 1000 }, (_, n) => r.incr(`n:${n % 10}`)));
  assert.equal(Math.max(...piped), 100);
  assert.deepEqual(await r.multi().incr("c").get("missing").exec(), [[null, 1], [null, null]]);
  await assert.rejects(r.lpush("k", "x"), /^ReplyError: WRONGTYPE/);
  const subscriber = r.duplicate();
  const heard = new Promise((resolve) => subscriber.on("message", (_, text) => resolve(text)));
  await subscriber.subscribe("news");
  assert.equal(await r.publish("news", "hello"), 1);
  assert.equal(await heard, "hello");
  subscriber.disconnect();
  const waiting = r.duplicate();
  const job = waiting.blpop("queue", 10);
  setTimeout(() => r.rpush("queue", "job"), 100);
  assert.deepEqual(await job, ["queue", "job"]);
  assert.equal(await waiting.blpop("queue", 0.05), null);
  waiting.disconnect();
  await r.quit();
}

async function nodeRedis(RESP) {
  const { createClient } = load("redis");
  const r = createClient({ socket: { host: "127.0.0.1", port: Number(port) }, RESP });
  await r.connect();
  await r.flushAll();
  assert.equal(await r.ping(), "PONG");
  assert.equal(await r.set("k", "v", { EX: 100 }), "OK");
  assert.equal(await r.get("k"), "v");
  assert.equal(await r.set("big", big), "OK");
  assert.equal(await r.get("big"), big);
  assert.equal(await r.hSet("h", { a: 1, b: 2 }), 2);
  assert.deepEqual({ ...(await r.hGetAll("h")) }, { a: "1", b: "2" });
  assert.equal(await r.zAdd("z", { score: 1.5, value: "m" }), 1);
  assert.deepEqual(await r.zRangeWithScores("z", 0, -1), [{ value: "m", score: 1.5 }]);
  assert.deepEqual([...(await r.sMembers("none"))], []);
  const piped = await Promise.all(Array.from({ length: 1000 }, (_, n) => r.incr(`n:${n % 10}`)));
  assert.equal(Math.max(...piped), 100);
  assert.deepEqual(await r.multi().incr("c").get("missing").exec(), [1, null]);
  await assert.rejects(r.lPush("k", "x"), /WRONGTYPE/);
  const subscriber = r.duplicate();
  await subscriber.connect();
  const heard = new Promise((resolve) => subscriber.subscribe("news", resolve).then(() => r.publish("news", "hello")));
  assert.equal(await heard, "hello");
  await subscriber.close();
  const waiting = r.duplicate();
  await waiting.connect();
  const job = waiting.blPop("queue", 10);
  setTimeout(() => r.rPush("queue", "job"), 100);
  assert.deepEqual({ ...(await job) }, { key: "queue", element: "job" });
  assert.equal(await waiting.blPop("queue", 0.05), null);
  await waiting.close();
  await r.close();
}

const runs = { ioredis, "node-redis-2": () => nodeRedis(2), "node-redis-3": () => nodeRedis(3) };
await runs[library]();
console.log("ok");
