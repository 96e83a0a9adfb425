// Libraries that live on scripts, through their own client code: scripts.mjs LIBRARY PORT (KARA_NODE names their folder).

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [library, port] = process.argv.slice(2);
const load = createRequire(process.env.KARA_NODE + "/");
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
const Redis = load("ioredis");

async function bullmq() {
  const { Queue, Worker, QueueEvents, FlowProducer } = load("bullmq");
  const queue = new Queue("jobs", { connection });
  const events = new QueueEvents("jobs", { connection });
  await events.waitUntilReady();
  const done = [];
  let failures = 0;
  const worker = new Worker(
    "jobs",
    async (job) => {
      if (job.name === "fails" && failures++ === 0) throw new Error("once");
      await job.updateProgress(50);
      done.push(job.data.n);
      return job.data.n * 2;
    },
    { connection, concurrency: 4 },
  );
  await worker.waitUntilReady();
  const jobs = await queue.addBulk(Array.from({ length: 40 }, (_, n) => ({ name: "plain", data: { n } })));
  const urgent = await queue.add("plain", { n: 100 }, { priority: 1 });
  const late = await queue.add("plain", { n: 200 }, { delay: 300 });
  const twice = await queue.add("fails", { n: 300 }, { attempts: 2, backoff: { type: "fixed", delay: 50 } });
  const all = [...jobs, urgent, late, twice];
  const results = await Promise.all(all.map((job) => job.waitUntilFinished(events, 20000)));
  assert.deepEqual(results, [...Array.from({ length: 40 }, (_, n) => n * 2), 200, 400, 600]);
  assert.equal(done.length, 43);
  assert.equal((await queue.getJobCounts("completed")).completed, 43);
  const flow = new FlowProducer({ connection });
  const tree = await flow.add({
    name: "plain",
    queueName: "jobs",
    data: { n: 1 },
    children: [{ name: "plain", queueName: "jobs", data: { n: 2 } }],
  });
  assert.equal(await tree.job.waitUntilFinished(events, 20000), 2);
  await queue.pause();
  assert.equal(await queue.isPaused(), true);
  await queue.resume();
  await queue.drain();
  await flow.close();
  await worker.close();
  await events.close();
  await queue.obliterate({ force: true });
  await queue.close();
}

async function redlock() {
  const Redlock = load("redlock").default;
  const r = new Redis(Number(port), "127.0.0.1");
  const locks = new Redlock([r], { retryCount: 3, retryDelay: 50 });
  let lock = await locks.acquire(["{a}1", "{a}2"], 2000);
  await assert.rejects(locks.acquire(["{a}2"], 2000));
  lock = await lock.extend(3000);
  assert.ok((await r.pttl("{a}1")) > 2000);
  await lock.release();
  assert.equal(await r.exists("{a}1", "{a}2"), 0);
  let inside = 0;
  await Promise.all(
    Array.from({ length: 5 }, () =>
      new Redlock([r], { retryCount: 200, retryDelay: 10, retryJitter: 10 }).using(["one"], 1000, async () => {
        assert.equal(++inside, 1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        inside--;
      }),
    ),
  );
  r.disconnect();
}

async function rateLimiter() {
  const { RateLimiterRedis } = load("rate-limiter-flexible");
  const r = new Redis(Number(port), "127.0.0.1");
  const limiter = new RateLimiterRedis({ storeClient: r, points: 5, duration: 30, blockDuration: 60 });
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => limiter.consume("someone")));
  assert.equal(outcomes.filter((o) => o.status === "fulfilled").length, 5);
  const refused = outcomes.find((o) => o.status === "rejected").reason;
  assert.ok(refused.msBeforeNext > 0 && refused.remainingPoints === 0);
  await limiter.delete("someone");
  assert.equal((await limiter.consume("someone", 2)).remainingPoints, 3);
  assert.equal((await limiter.reward("someone", 1)).remainingPoints, 4);
  assert.equal((await limiter.get("someone")).consumedPoints, 1);
  r.disconnect();
}

await { bullmq, redlock, "rate-limiter-flexible": rateLimiter }[library]();
process.exit(0);
