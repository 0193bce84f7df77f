// node-redlock 5 as a contender: the protocol of benchmarks/worker.py, one JSON object per line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const { default: Redlock } = require("redlock");
const { default: Redis } = require("ioredis");

const clock = () => process.hrtime.bigint(); // CLOCK_MONOTONIC
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
};

class Locks {
  constructor(urls, ttl) {
    this.ttl = Math.round(ttl * 1000);
    this.clients = urls.map((url) => new Redis(url));
    for (const client of this.clients) client.on("error", () => {});
    this.once = new Redlock(this.clients, { retryCount: 0 });
    this.waits = new Redlock(this.clients);
    for (const locks of [this.once, this.waits]) locks.on("error", () => {});
  }
  take(resource) {
    return this.once.acquire([resource], this.ttl).catch(() => null);
  }
  free(held) {
    return held.release().catch(() => null);
  }
  close() {
    for (const client of this.clients) client.disconnect();
  }
}

function version(name) {
  const url = new URL(`node_modules/${name}/package.json`, import.meta.url); // Not exported to `require`.
  return `${name} ${JSON.parse(readFileSync(url, "utf8")).version}`;
}

let locks = null;

const answers = {
  async open({ urls, ttl }) {
    locks = new Locks(urls, ttl);
    return { version: [version("redlock"), version("ioredis"), `Node ${process.versions.node}`].join(", ") };
  },

  async pairs({ resource, count, warm = 0, seconds = 3600, fresh = false }) {
    for (let i = 0; i < warm; i++) {
      const held = await locks.take(resource);
      if (held) await locks.free(held);
    }
    const acquire = [];
    const release = [];
    let failed = 0;
    const before = cpu();
    const giveUpAt = clock() + BigInt(Math.round(seconds * 1e9));
    for (let i = 0; i < count; i++) {
      const began = clock();
      if (began > giveUpAt) break;
      const held = await locks.take(fresh ? `${resource}-${i}` : resource);
      const between = clock();
      if (!held) {
        failed++;
        continue;
      }
      await locks.free(held);
      release.push(Number(clock() - between));
      acquire.push(Number(between - began));
    }
    return { acquire, release, failed, cpu: cpu() - before };
  },

  async first({ urls, resource }) {
    const began = clock();
    const made = new Locks(urls, 10);
    const held = await made.take(resource);
    const ready = Number(clock() - began);
    if (held) await made.free(held);
    made.close();
    return { ready, granted: held !== null };
  },

  async contend({ resource, seconds, section }) {
    const turns = [];
    const before = cpu();
    const until = clock() + BigInt(Math.round(seconds * 1e9));
    for (;;) {
      const asked = clock();
      if (asked >= until) break;
      const held = await locks.waits.acquire([resource], locks.ttl).catch(() => null);
      if (!held) continue;
      const entered = clock();
      await sleep(section);
      const left = clock();
      await locks.free(held);
      turns.push([Number(asked), Number(entered), Number(left)]);
    }
    return { turns, cpu: cpu() - before };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...question } = JSON.parse(line);
  const answer = Object.hasOwn(answers, name)
    ? await answers[name](question)
    : { error: "node-redlock's adapter does not know this question" };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
if (locks) locks.close();
