import { afterEach, describe, expect, test } from "bun:test";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { type Log, silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { ok } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import { isSegmentName } from "../kv/log/segment-files.ts";
import { diskError, MemoryDisk } from "../kv/memory-disk.ts";
import { snapshotName } from "../kv/snapshot-format.ts";
import { configurationOf } from "../raft/configuration.ts";
import { Cluster, DIRECTORY, eventually, type Node, type NodeOptions, numbered } from "./raft-runtime-cluster.ts";
import { TRANSFER_LIMITS } from "./snapshot-transfer.ts";
import type { Frame } from "./transport.ts";

const opened: Cluster[] = [];
afterEach(async () => {
  for (const cluster of opened.splice(0)) await cluster.closeAll();
});
async function clusterOf(ids: readonly string[], options?: NodeOptions): Promise<Cluster> {
  const cluster = await Cluster.of(ids, options);
  opened.push(cluster);
  return cluster;
}
const THREE = ["n1", "n2", "n3"];

const snapshotsOf = async ({ disk }: Node) =>
  (await disk.list(DIRECTORY)).filter((name) => name.includes(".snapshot")).sort();
const firstOther = (cluster: Cluster, ...besides: Node[]) =>
  [...cluster.nodes.values()].find((node) => !besides.includes(node))!;
const propose = ({ runtime, machine }: Node, ...values: string[]) =>
  runtime.propose(
    machine.ledTerm!,
    values.map((value) => Buffer.from(value)),
  );

describe("one voter", () => {
  test("leads at once, applies what is proposed, and finds it again when it is opened anew", async () => {
    const cluster = await clusterOf(["n1"]);
    const { machine, disk } = await cluster.leader();
    expect(machine.events).toEqual(["leader n1", "gained 1"]);
    await cluster.write(["a", "b"]);
    await cluster.write(["c"]);
    expect(cluster.node("n1").runtime.status()).toMatchObject({ role: "leader", health: "ok", appliedIndex: 4 });
    await cluster.close("n1");
    const again = await cluster.open("n1", disk, { configuration: configurationOf(["n1"]) });
    await cluster.leader();
    expect(again.machine.values).toEqual(["a", "b", "c"]);
    expect(again.machine.events).toEqual(["leader n1", "gained 2"]);
  });

  test("64 callers of one turn share one write, one sync and one batch", async () => {
    const cluster = await clusterOf(["n1"]);
    const leader = await cluster.leader();
    let writes = 0;
    leader.disk.before = ({ kind }) => {
      if (kind === "write" || kind === "writeDurable") writes++;
    };
    leader.machine.batches.length = 0;
    for (const value of numbered("v", 64)) propose(leader, value);
    await leader.machine.until(() => leader.machine.values.length === 64);
    expect(writes).toBe(1);
    expect(leader.machine.batches).toEqual([64]);
    expect(leader.machine.values).toEqual(numbered("v", 64));
  });

  test("what waits while a sync is under way shares the next one", async () => {
    const cluster = await clusterOf(["n1"]);
    const leader = await cluster.leader();
    let syncs = 0;
    leader.disk.before = ({ kind }) => {
      if (kind === "datasync" || kind === "writeDurable") syncs++;
    };
    for (const value of numbered("v", 30)) {
      propose(leader, value);
      await Promise.resolve();
      await Promise.resolve();
    }
    await leader.machine.until(() => leader.machine.values.length === 30);
    expect(syncs).toBeGreaterThan(1);
    expect(syncs).toBeLessThan(15);
    expect(leader.machine.values).toEqual(numbered("v", 30));
  });

  test("has no timer running while nothing happens", async () => {
    let sleeping = 0;
    const clock: Clock = {
      ...systemClock,
      async sleep(ms, signal) {
        sleeping++;
        await systemClock.sleep(ms, signal);
        sleeping--;
      },
    };
    const cluster = await clusterOf(["n1"], { clock });
    await cluster.write(["a"]);
    expect(await cluster.node("n1").runtime.readIndex()).toMatchObject({ ok: true });
    await eventually("no timer runs", () => sleeping === 0, 1000);
    await Bun.sleep(100);
    expect(sleeping).toBe(0);
    await cluster.write(["b"]);
  });

  test("writes of a term that it doesn't lead are dropped", async () => {
    const cluster = await clusterOf(["n1"]);
    const { runtime, machine } = await cluster.leader();
    runtime.propose(machine.ledTerm! + 1, [Buffer.from("x")]);
    await cluster.write(["a"]);
    expect(machine.values).toEqual(["a"]);
  });

  test("a long log is applied in bounded batches, before leadership is told", async () => {
    const cluster = await clusterOf(["n1"]);
    for (let i = 0; i < 5; i++) await cluster.write(numbered(`v${i}.`, 600));
    const { disk } = cluster.node("n1");
    await cluster.close("n1");
    const { machine } = await cluster.open("n1", disk, { configuration: configurationOf(["n1"]) });
    await cluster.leader();
    expect(machine.values).toHaveLength(3000);
    expect(Math.max(...machine.batches)).toBeLessThanOrEqual(1024);
  });
});

describe("three voters", () => {
  test("elect a leader, and hold the same", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(numbered("v", 100));
    await cluster.converged("v99");
    for (const { machine, id } of cluster.nodes.values()) {
      expect(machine.leader).toBe(leader.id);
      expect(machine.values).toEqual(numbered("v", 100));
      if (id !== leader.id) expect(machine.events.some((event) => event.startsWith("gained"))).toBe(false);
    }
    await eventually("the leader knows", () =>
      leader.runtime.status().peers.every((peer) => peer.isActive && peer.match >= 101),
    );
    expect(leader.runtime.status().peers).toHaveLength(2);
  });

  test("survive the loss of the leader, who hears of it and follows when it is back", async () => {
    const cluster = await clusterOf(THREE);
    const first = await cluster.write(["a"]);
    cluster.net.isolate(first.id);
    propose(first, "never");
    const second = await cluster.leader(first.id);
    await eventually("the first leads no more", () => first.machine.ledTerm === undefined);
    await cluster.write(["b"]);
    cluster.net.heal();
    await cluster.converged("b");
    expect(first.machine.values).toEqual(["a", "b"]);
    expect(second.machine.values).toEqual(["a", "b"]);
  });

  test("a node that was down catches up, and so does the whole cluster after a power cut", async () => {
    const cluster = await clusterOf(THREE);
    await cluster.write(["a"]);
    await cluster.converged("a");
    const { disk: third } = cluster.node("n3");
    await cluster.close("n3");
    await cluster.write(["b"]);
    const disks = ["n1", "n2"].map((id) => cluster.node(id).disk);
    await cluster.close("n1");
    await cluster.close("n2");
    for (const [i, disk] of disks.entries()) {
      const after = disk.afterCrash(seededRandom(i), "nothing");
      await cluster.open(`n${i + 1}`, after, { configuration: configurationOf(THREE) });
    }
    await cluster.write(["c"]);
    await cluster.open("n3", third, { configuration: configurationOf(THREE) });
    await cluster.converged("c");
    expect(cluster.node("n3").machine.values).toEqual(["a", "b", "c"]);
  });

  test("a follower's read index covers what was written before, and needs a quorum", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    const follower = firstOther(cluster, leader);
    const reads = await Promise.all(Array.from({ length: 10 }, () => follower.runtime.readIndex()));
    for (const read of reads) {
      expect(read.ok && read.value).toBeGreaterThanOrEqual(leader.runtime.status().commitIndex);
    }
    cluster.net.isolate(follower.id);
    let settled = false;
    const waiting = follower.runtime.readIndex().then((read) => {
      settled = true;
      return read;
    });
    await cluster.write(["b"]);
    await Bun.sleep(100);
    expect(settled).toBe(false);
    cluster.net.heal();
    const read = await waiting;
    expect(read.ok && read.value).toBeGreaterThanOrEqual(leader.machine.applied);
  });

  test("leadership goes to whom it is handed to, without an election timeout, and nothing is lost", async () => {
    const cluster = await clusterOf(THREE, { options: { electionMs: 1000, heartbeatMs: 100 } });
    const leader = await cluster.write(["a"]);
    const heir = firstOther(cluster, leader);
    const started = performance.now();
    expect(await leader.runtime.transferLeadership(heir.id)).toMatchObject({ ok: true });
    await eventually("the heir leads", () => heir.machine.ledTerm !== undefined);
    expect(performance.now() - started).toBeLessThan(900);
    await cluster.write(["b"]);
    await cluster.converged("b");
    expect(await leader.runtime.transferLeadership()).toMatchObject({ ok: false, error: { reason: "refused" } });
    expect(await heir.runtime.transferLeadership("n9")).toMatchObject({ ok: false, error: { reason: "refused" } });
  });

  test("a question reaches another node's store, and a lost one times out", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    const [from, to] = [firstOther(cluster, leader), leader];
    const answer = await from.runtime.request(to.id, Buffer.from("q"), 1000);
    expect(answer.ok && Buffer.from(answer.value).toString()).toBe(`${from.id}:q`);
    cluster.net.cut(from.id, to.id);
    const lost = await from.runtime.request(to.id, Buffer.from("q"), 100);
    expect(lost).toMatchObject({ ok: false, error: { reason: "unavailable" } });
    expect(await from.runtime.request(to.id, new Uint8Array(17e6), 100)).toMatchObject({
      ok: false,
      error: { reason: "refused" },
    });
  });

  test("nobody answers the questions of a node that is no member", async () => {
    const cluster = await clusterOf(["n1"]);
    await cluster.leader();
    const stranger = await cluster.open("n9", new MemoryDisk(), { configuration: configurationOf([]) });
    const answer = await stranger.runtime.request("n1", Buffer.from("q"), 100);
    expect(answer).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  });
});

describe("membership", () => {
  test("a node that waits is added, caught up and promoted, and serves when another is gone", async () => {
    const cluster = await clusterOf(["n1"], { snapshotBytesMin: 4000 });
    await cluster.write(numbered("v", 500));
    const added = await cluster.open("n2", new MemoryDisk());
    await Bun.sleep(50);
    expect(added.runtime.status()).toMatchObject({ role: "follower", term: 0, lastIndex: 0 });
    const { runtime } = cluster.node("n1");
    expect(await runtime.changeConfiguration({ n2: "voter" })).toEqual({ ok: true, value: undefined });
    await eventually("n2 votes", () => added.runtime.status().configuration.voters.includes("n2"));
    await cluster.open("n3", new MemoryDisk());
    await eventually("the next change is begun", async () => (await runtime.changeConfiguration({ n3: "voter" })).ok);
    await cluster.write(["w"]);
    await cluster.converged("w");
    await eventually("n3 votes", () => runtime.status().configuration.voters.length === 3);
    await cluster.close("n1");
    await cluster.write(["x"]);
    await cluster.converged("x");
    expect(cluster.node("n3").machine.values).toHaveLength(502);
  });

  test("a member is removed, the leader too, and a learner does not vote", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    const other = firstOther(cluster, leader);
    expect(await other.runtime.changeConfiguration({ n9: "voter" })).toMatchObject({
      ok: false,
      error: { reason: "refused", message: `Node ${leader.id} leads, and has to be asked.` },
    });
    expect(await leader.runtime.changeConfiguration({ [other.id]: "learner" })).toMatchObject({ ok: true });
    expect(await leader.runtime.changeConfiguration({ [leader.id]: "removed" })).toMatchObject({ ok: true });
    const next = await cluster.leader(leader.id);
    expect(next.id).toBe(firstOther(cluster, leader, other).id);
    await eventually("the old leader leads no more", () => leader.machine.ledTerm === undefined);
    await cluster.close(leader.id);
    await cluster.write(["b"]);
    await cluster.converged("b");
    expect(next.runtime.status().configuration).toMatchObject({ voters: [next.id], learners: [other.id] });
  });
});

describe("snapshots", () => {
  test("two are kept, and the log is cut behind the older", async () => {
    const cluster = await clusterOf(["n1"], { snapshotBytesMin: 20_000 });
    const values: string[] = [];
    for (let i = 0; i < 60; i++) {
      const more = numbered(`v${i}.`, 20, 100);
      values.push(...more);
      await cluster.write(more);
    }
    const node = cluster.node("n1");
    await eventually("the log is cut", () => node.storage.firstIndex > 400);
    await cluster.close("n1");
    expect(await snapshotsOf(node)).toHaveLength(2);
    const again = await cluster.open("n1", node.disk);
    await cluster.leader();
    expect(again.machine.values).toEqual(values);
    expect(again.storage.firstIndex).toBeGreaterThan(400);
  });

  test("one that fails costs nothing but another try after as much growth", async () => {
    const cluster = await clusterOf(["n1"], { snapshotBytesMin: 5000 });
    const { disk, runtime } = await cluster.leader();
    let tries = 0;
    disk.before = ({ kind, path }) => {
      if (kind !== "create" || !path.includes(".snapshot")) return;
      if (++tries < 3) throw diskError("ENOSPC");
    };
    for (let i = 0; runtime.status().snapshotIndex === 0; i++) await cluster.write(numbered(`v${i}.`, 10));
    expect(tries).toBe(3);
    expect(runtime.status().health).toBe("ok");
  });

  test("a node that lags behind the log gets one, and the older files go", async () => {
    const cluster = await clusterOf(THREE, { snapshotBytesMin: 20_000 });
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const lagging = firstOther(cluster, leader);
    cluster.net.isolate(lagging.id);
    for (let i = 0; leader.storage.firstIndex < 300; i++) await cluster.write(numbered(`v${i}.`, 20, 100));
    cluster.net.heal();
    await cluster.write(["z"]);
    await cluster.converged("z");
    expect(lagging.machine.events.some((event) => event.startsWith("installed"))).toBe(true);
    expect(lagging.storage.firstIndex).toBeGreaterThan(300);
    // What it got is a good beginning for the next life.
    const { disk } = lagging;
    await cluster.close(lagging.id);
    expect(await snapshotsOf(lagging)).toHaveLength(1);
    const values = [...leader.machine.values];
    const again = await cluster.open(lagging.id, disk);
    await cluster.converged("z");
    expect(again.machine.values).toEqual(values);
  });

  test("a crash at any moment of receiving and installing one is survived", async () => {
    const cluster = await clusterOf(["n1"], {
      snapshotBytesMin: 10_000,
      transferLimits: { ...TRANSFER_LIMITS, silenceMs: 20 },
    });
    for (let i = 0; i < 30; i++) await cluster.write(numbered(`v${i}.`, 20, 100));
    const { runtime, storage } = cluster.node("n1");
    await eventually("the log is cut", () => storage.firstIndex > 100);
    // As a learner, it is not needed for anything while it is down.
    expect(await runtime.changeConfiguration({ n2: "learner" })).toMatchObject({ ok: true });
    const found = { "no snapshot": 0, "a part": 0, "a snapshot beyond the log": 0, "a snapshot in the log": 0 };
    for (let point = 1, isReached = true; isReached; point++) {
      const disk = new MemoryDisk();
      disk.before = ({ number }) => {
        if (number >= point) throw diskError("EIO");
      };
      const before = await cluster.open("n2", disk).catch(() => undefined);
      if (before) {
        const isThere = () => before.machine.values.length === 600;
        await eventually("it is hurt, or caught up", () => disk.operations >= point || isThere());
        isReached = disk.operations >= point;
        await cluster.close("n2");
      }
      const after = await cluster.open("n2", disk.afterCrash(seededRandom(point), "some"));
      const names = await snapshotsOf(after);
      if (after.startedOver) found["a snapshot beyond the log"]++;
      else if (names.some((name) => name.endsWith(".snapshot"))) found["a snapshot in the log"]++;
      else found[names.length > 0 ? "a part" : "no snapshot"]++;
      await cluster.converged("v29.19".padEnd(100, "."));
      expect(after.runtime.status().health).toBe("ok");
      await cluster.close("n2");
      expect(await snapshotsOf(after)).toHaveLength(1);
    }
    for (const count of Object.values(found)) expect(count).toBeGreaterThan(0);
  }, 30_000);

  test("the configuration that a snapshot holds is that of its last entry, also after one that was received", async () => {
    const cluster = await clusterOf(["n1"], { snapshotBytesMin: 20_000 });
    const { runtime, storage } = await cluster.leader();
    const grow = async (id: string) => {
      const { snapshotIndex } = cluster.node(id).runtime.status();
      for (let i = 0; cluster.node(id).runtime.status().snapshotIndex === snapshotIndex; i++) {
        await cluster.write(numbered(`${id}.${snapshotIndex}.${i}.`, 20, 100));
        await Bun.sleep(1);
      }
    };
    expect(await runtime.changeConfiguration({ n2: "learner" })).toMatchObject({ ok: true });
    await grow("n1");
    await grow("n1");
    await eventually("the log is cut", () => storage.firstIndex > 10);
    const learner = await cluster.open("n2", new MemoryDisk());
    await eventually("it is installed", () => learner.runtime.status().snapshotIndex > 0);
    await grow("n2");
    const { disk } = learner;
    await cluster.close("n2");
    const { start } = await cluster.open("n2", disk);
    expect(learner.machine.events).toContainEqual(expect.stringMatching("installed"));
    expect(start).toEqual({ voters: ["n1"], outgoing: [], learners: ["n2"], joining: [] });
  });

  test("a leader's snapshot holds nothing that its own log lacks", async () => {
    const cluster = await clusterOf(THREE, { snapshotBytesMin: 2000, options: { diskStallMs: 60_000 } });
    const leader = await cluster.write(["a"]);
    const { disk, machine } = leader;
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    disk.pause = ({ kind }) => (kind === "writeDurable" ? released : undefined);
    await cluster.write(numbered("v", 50, 100));
    expect(machine.applied).toBeGreaterThan(50);
    await Bun.sleep(20);
    expect(await snapshotsOf(leader)).toEqual([]);
    release();
    await cluster.write(["z"]);
    await eventually("a snapshot is taken", () => leader.runtime.status().snapshotIndex > 50);
  });

  test("when a rotten entry can't be sent, a snapshot is made that holds it", async () => {
    const options = { windowBytesMax: 0, electionMs: 400 };
    const cluster = await clusterOf(THREE, { options, snapshotBytesMin: 100_000 });
    const leader = await cluster.write(["a"]);
    const lagging = firstOther(cluster, leader);
    cluster.net.isolate(lagging.id);
    const snapshotIndex = () => leader.runtime.status().snapshotIndex;
    for (let i = 0; snapshotIndex() === 0; i++) await cluster.write(numbered(`v${i}.`, 5, 1000));
    // Not enough for another one, and too much to be kept in memory.
    const before = snapshotIndex();
    for (let i = 0; i < 16; i++) await cluster.write(numbered(`w${i}.`, 5, 1000));
    expect(snapshotIndex()).toBe(before);
    for (const name of (await leader.disk.list(DIRECTORY)).filter(isSegmentName)) {
      const path = `${DIRECTORY}/${name}`;
      const at = leader.disk.peek(path).indexOf("w0.3.");
      if (at >= 0) leader.disk.damage(path, at, Buffer.from("!"));
    }
    cluster.net.heal();
    await cluster.converged("w15.4".padEnd(1000, "."));
    expect(snapshotIndex()).toBeGreaterThan(before);
    expect(lagging.machine.events).toContainEqual(expect.stringMatching("installed"));
  });
});

describe("disks that fail", () => {
  const full = ({ disk }: Node) => {
    // Space for nothing but the mark that ends a refused write.
    disk.before = ({ kind, path }) => {
      if (kind === "create" && path.startsWith(DIRECTORY)) throw diskError("ENOSPC");
    };
  };

  test("one that is full stops the writes of a single voter until there is space", async () => {
    const cluster = await clusterOf(["n1"]);
    const node = await cluster.leader();
    const { runtime, machine } = node;
    full(node);
    for (let i = 0; machine.ledTerm !== undefined && i < 100; i++) {
      const { length } = machine.values;
      propose(node, ...numbered(`v${i}.`, 20, 100));
      await eventually("applied or lost", () => machine.ledTerm === undefined || machine.values.length === length + 20);
    }
    expect(machine.events).toContain("lost 1");
    expect(runtime.status()).toMatchObject({ health: "full" });
    expect(runtime.status().message).toContain("no space left");
    const held = [...machine.values];
    node.disk.before = () => {};
    await cluster.write(["z"]);
    expect(runtime.status().health).toBe("ok");
    expect(machine.values).toEqual([...held, "z"]);
    await cluster.close("n1");
    const again = await cluster.open("n1", node.disk, { configuration: configurationOf(["n1"]) });
    await cluster.leader();
    expect(again.machine.values).toEqual([...held, "z"]);
  });

  test("one that is full on the leader gives the lead to another, and it follows when there is space", async () => {
    const cluster = await clusterOf(THREE);
    const first = await cluster.write(["a"]);
    full(first);
    for (let i = 0; first.machine.ledTerm !== undefined && i < 100; i++)
      await cluster.write(numbered(`v${i}.`, 20, 100));
    await cluster.write(["y"]);
    expect(first.runtime.status().health).toBe("full");
    first.disk.before = () => {};
    await cluster.write(["z"]);
    await cluster.converged("z");
    await eventually("it is healthy", () => first.runtime.status().health === "ok");
  });

  test("one whose sync fails stops its node, and the others go on", async () => {
    const errors: string[] = [];
    const log: Log = { ...silentLog, error: (event) => errors.push(event), with: () => log };
    const cluster = await clusterOf(THREE, { log });
    const first = await cluster.write(["a"]);
    first.disk.before = ({ kind }) => {
      if (kind === "datasync" || kind === "writeDurable") throw diskError("EIO");
    };
    propose(first, "b");
    await eventually("it stops", () => first.runtime.status().health === "failed");
    expect(errors).toContain("raft.failed");
    expect(first.machine.ledTerm).toBeUndefined();
    expect(await first.runtime.readIndex()).toMatchObject({ ok: false, error: { reason: "unavailable" } });
    const second = await cluster.leader(first.id);
    await cluster.write(["c"]);
    expect(second.machine.values).toContain("c");
    expect(first.machine.values).not.toContain("c");
  });

  test("one that hangs makes its node give up the lead", async () => {
    const cluster = await clusterOf(THREE);
    const first = await cluster.write(["a"]);
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    first.disk.pause = () => released;
    propose(first, "b");
    const second = await cluster.leader(first.id);
    await eventually("it leads no more", () => first.machine.ledTerm === undefined);
    await cluster.write(["c"]);
    expect(second.machine.values).toContain("c");
    release();
    await cluster.converged("c");
  });
});

describe("a snapshot that rotted", () => {
  test("is made anew for a peer that needs it", async () => {
    const transferLimits = { ...TRANSFER_LIMITS, silenceMs: 100, silencesMax: 3, setbacksMax: 2, transferMs: 5000 };
    const cluster = await clusterOf(THREE, {
      options: { windowBytesMax: 0 },
      snapshotBytesMin: 100_000,
      transferLimits,
    });
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const lagging = firstOther(cluster, leader);
    cluster.net.isolate(lagging.id);
    for (let i = 0; leader.storage.firstIndex === 1; i++) await cluster.write(numbered(`v${i}.`, 5, 1000));
    await cluster.write(["z"]);
    const path = `${DIRECTORY}/${snapshotName(leader.runtime.status().snapshotIndex)}`;
    leader.disk.damage(path, 2000, Buffer.from("!"));
    cluster.net.heal();
    await eventually("it catches up", () => lagging.machine.values.includes("z"), 12_000);
  }, 20_000);
});

describe("logs that were damaged", () => {
  test("a node is no voter before it holds again what it may have acknowledged, and then notes that it does", async () => {
    const cluster = await clusterOf(THREE);
    await cluster.write(["a"]);
    await cluster.converged("a");
    const { disk } = cluster.node("n3");
    await cluster.close("n3");
    const recoverThrough = cluster.node("n1").runtime.status().lastIndex + 2;
    const hurt = await cluster.open("n3", disk, { configuration: configurationOf(THREE), recoverThrough });
    let noted = 0;
    hurt.storage.recovered = async () => {
      noted++;
      return ok(undefined);
    };
    const other = await cluster.leader();
    const third = firstOther(cluster, hurt, other);
    // With one of the others gone, the two that are left have no majority of votes: one of them has none to give.
    cluster.net.isolate(other.id);
    await eventually("it leads no more", () => other.machine.ledTerm === undefined);
    await Bun.sleep(400);
    expect(hurt.runtime.status()).toMatchObject({ health: "recovering", role: "follower" });
    expect(third.machine.ledTerm).toBeUndefined();
    expect(noted).toBe(0);
    cluster.net.heal();
    await cluster.write(["b", "c"]);
    await eventually("it is recovered", () => hurt.runtime.status().health === "ok");
    expect(noted).toBe(1);
    // Its disk did not keep that: at its next start it owes nothing all the same, and needs nobody to know it.
    await eventually("it holds everything", () => hurt.storage.lastIndex >= recoverThrough);
    await cluster.close("n3");
    cluster.net.isolate(other.id);
    const again = await cluster.open("n3", disk, { configuration: configurationOf(THREE), recoverThrough });
    expect(again.runtime.status().health).toBe("ok");
    await eventually("one of the two that are left leads", () =>
      [again, third].some(({ machine }) => machine.ledTerm !== undefined),
    );
  });

  test("one that lost its log says so, and follows without a vote", async () => {
    const cluster = await clusterOf(THREE);
    await cluster.write(["a"]);
    await cluster.close("n3");
    const configuration = configurationOf(THREE);
    const lost = await cluster.open("n3", new MemoryDisk(), { configuration, recoverThrough: "lost" });
    await cluster.write(["b"]);
    await cluster.converged("b");
    expect(lost.runtime.status().health).toBe("lost");
  });
});

describe("a single voter with a learner", () => {
  test("does not decide alone: the learner may show what is not applied here", async () => {
    const cluster = await clusterOf(["n1"]);
    const n1 = await cluster.leader();
    expect(n1.runtime.status().decidesAlone).toBe(true);
    const n2 = await cluster.open("n2", new MemoryDisk());
    expect(await n1.runtime.changeConfiguration({ n2: "learner" })).toEqual(ok(undefined));
    await cluster.write(["a"]);
    await cluster.converged("a");
    // Its store's thread is busy: what is handed over lies there.
    const busy = Promise.withResolvers<void>();
    const apply = n1.machine.apply.bind(n1.machine);
    n1.machine.apply = async (entries) => {
      await busy.promise;
      await apply(entries);
    };
    propose(n1, "b");
    await eventually("the learner shows it", () => n2.machine.values.includes("b"));
    expect(n1.machine.values).not.toContain("b");
    expect(n1.runtime.status().decidesAlone).toBe(false);
    busy.resolve();
  });
});

describe("states that came apart", () => {
  test("are found at the next digest, and the node that follows stops", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const wrong = firstOther(cluster, leader);
    wrong.machine.put("out of nowhere");
    for (let i = 0; i < 6; i++) await cluster.write(numbered(`v${i}.`, 200));
    await eventually("it is found", () => wrong.runtime.status().health === "failed");
    expect(wrong.runtime.status().message).toContain("differs from the others' at entry 1024");
    expect(wrong.runtime.status().message).toContain(`move its store directory ${DIRECTORY} away`);
    expect(wrong.machine.leader).toBeUndefined();
    await cluster.write(["z"]);
    for (const node of cluster.nodes.values()) {
      if (node !== wrong) expect(node.runtime.status().health).toBe("ok");
    }
    expect(wrong.machine.values).not.toContain("z");
  });

  test("stop the leader, if it is the one that is wrong, and none of those that are right", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    leader.machine.put("out of nowhere");
    for (let i = 0; i < 6; i++) propose(leader, ...numbered(`v${i}.`, 200));
    await eventually("it is found", () => leader.runtime.status().health === "failed");
    await cluster.write(["z"]);
    for (const node of cluster.nodes.values()) if (node !== leader) expect(node.runtime.status().health).toBe("ok");
  });

  test("of two voters, the one that follows gives way, and says that nobody knows who is right", async () => {
    const cluster = await clusterOf(["n1", "n2"]);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const other = firstOther(cluster, leader);
    other.machine.put("out of nowhere");
    for (let i = 0; i < 6; i++) await cluster.write(numbered(`v${i}.`, 200));
    propose(leader, ...numbered("more.", 1100));
    await eventually("it gives way", () => other.runtime.status().health === "failed");
    expect(other.runtime.status().message).toContain("no majority tells which is right");
    expect(other.runtime.status().message).not.toContain("move");
    expect(leader.runtime.status().health).toBe("ok");
  });

  test("a state machine that can't go on stops its node, and no other", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const wrong = firstOther(cluster, leader);
    wrong.machine.apply = () => {
      throw new Error("a record of a later version");
    };
    await cluster.write(["b"]);
    await eventually("it stops", () => wrong.runtime.status().health === "failed");
    expect(wrong.runtime.status().message).toContain("a record of a later version");
    await cluster.write(["c"]);
  });
});

describe("a state machine that lags", () => {
  test("is handed a bounded part, its node holds a bounded part of the log, and goes on when it does", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const slow = firstOther(cluster, leader);
    const term = leader.machine.ledTerm;
    const before = slow.machine.applied;
    const going = Promise.withResolvers<void>();
    slow.machine.lag = () => going.promise;
    for (let i = 0; i < 64; i++) await cluster.write([`v${i}.`.padEnd(MIB, ".")]);
    await Bun.sleep(500);
    // Entries of 1 MiB each: 8 handed over, and 32 in the core's memory, and little more.
    const { lastIndex } = slow.runtime.status();
    expect(slow.machine.applied - before).toBeWithin(8, 10);
    expect(lastIndex - slow.machine.applied).toBeWithin(28, 36);
    expect(leader.runtime.status().lastIndex).toBe(before + 64);
    // It has heard its leader all the while, and counts as one that lives.
    expect(leader.machine.ledTerm).toBe(term);
    expect(leader.runtime.status().peers.every(({ isActive }) => isActive)).toBe(true);
    slow.machine.lag = undefined;
    going.resolve();
    await cluster.converged("v63.".padEnd(MIB, "."));
    expect(leader.machine.ledTerm).toBe(term);
  }, 30_000);

  test("and fails at what it was handed stops its node, and no other", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    await cluster.converged("a");
    const wrong = firstOther(cluster, leader);
    wrong.machine.lag = async () => {
      await Bun.sleep(5);
      throw new Error("a record of a later version");
    };
    await cluster.write(["b"]);
    await eventually("it stops", () => wrong.runtime.status().health === "failed");
    expect(wrong.runtime.status().message).toContain("a record of a later version");
    await cluster.write(["c"]);
  });
});

describe("closing", () => {
  test("tells everyone who waits, and waits for the disk", async () => {
    const cluster = await clusterOf(THREE);
    const leader = await cluster.write(["a"]);
    const follower = firstOther(cluster, leader);
    cluster.net.isolate(follower.id);
    const waiting = [
      follower.runtime.readIndex(),
      follower.runtime.request(leader.id, Buffer.from("q"), 60_000),
    ] as const;
    await follower.runtime.close();
    for (const result of await Promise.all(waiting)) {
      expect(result).toMatchObject({ ok: false, error: { reason: "closed" } });
    }
    expect(follower.runtime.status().health).toBe("closed");
    expect(await follower.runtime.readIndex()).toMatchObject({ ok: false, error: { reason: "closed" } });
    expect(await follower.runtime.changeConfiguration({ n9: "voter" })).toMatchObject({ error: { reason: "closed" } });
  });
});

describe("what comes from the network", () => {
  test("what names another sender, or answers nothing that was asked, is not heard", async () => {
    const cluster = await clusterOf(["n1"]);
    const { machine } = await cluster.leader();
    const frames: Frame[] = [];
    const liar = cluster.net.transport("liar");
    liar.listen({ frame: (_, frame) => frames.push(frame), unreachable() {} });
    const message = {
      type: "append",
      from: "n7",
      to: "n1",
      term: 99,
      prevIndex: 0,
      prevTerm: 0,
      entries: [],
      commit: 0,
      round: 0,
    } as const;
    liar.send("n1", { type: "raft", message });
    liar.send("n1", { type: "request", id: 1, body: Buffer.of(1, 2, 3) });
    liar.send("n1", { type: "response", id: 1, body: Buffer.of(0) });
    liar.send("n1", { type: "snapshot-ack", term: 1, index: 1, offset: 1, done: true });
    await cluster.write(["a"]);
    expect(machine.ledTerm).toBe(1);
    expect(frames).toEqual([]);
    await liar.close();
  });
});
