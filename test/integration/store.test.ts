import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { openEmbeddedStore } from "../../src/cluster/open-embedded-store.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { ok } from "../../src/lib/result.ts";
import { put, type Store } from "../../src/model/store.ts";
import { ledger } from "./store-ledger.ts";

const cleanups: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function freshDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "hive-store-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const open = (directory: string) =>
  openEmbeddedStore({
    directory,
    tables: [ledger],
    disk: realDisk,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    segmentBytes: 256 * 1024,
    snapshotBytesMin: 128 * 1024,
  });

async function opened(directory: string): Promise<Store> {
  const result = await open(directory);
  if (!result.ok) throw new Error(result.error.message);
  cleanups.push(() => result.value.close());
  return result.value;
}

function startChild(directory: string) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "store-child.ts"), directory], {
    stdout: "pipe",
    stderr: "inherit",
  });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  return child;
}

test("kill -9 at any moment, again and again: what was acknowledged is there, and nothing is there by half", async () => {
  const directory = freshDirectory();
  let acknowledged = 0;
  for (let round = 0; round < 15; round++) {
    const child = startChild(directory);
    // After a number of acknowledgements that differs from round to round, in the middle of others.
    let text = "";
    const decoder = new TextDecoder();
    const killAfter = 1 + ((round * 397) % 2500);
    let killed = false;
    for await (const chunk of child.stdout) {
      text += decoder.decode(chunk, { stream: true });
      if (!killed && text.split("\n").length > killAfter) {
        child.kill("SIGKILL");
        killed = true;
      }
    }
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    // The last line may be cut off by the kill: then its number was not heard.
    const lines = text.split("\n").slice(0, -1);
    expect(lines[0]).toStartWith("open ");
    for (const line of lines.slice(1)) acknowledged = Math.max(acknowledged, Number(line));
    const store = await opened(directory);
    const state = store.read();
    expect(state.get(ledger, "count")?.units ?? 0).toBeGreaterThanOrEqual(acknowledged);
    const accounts = state.range(ledger, { prefix: "account-" });
    expect(accounts.reduce((sum, { units }) => sum + units, 0)).toBe(accounts.length * 100);
    expect(state.revision).toBeGreaterThanOrEqual(acknowledged);
    await store.close();
  }
  expect(acknowledged).toBeGreaterThan(1000);
}, 60_000);

test("a second process on the same directory is refused by name, until the first is killed", async () => {
  const directory = freshDirectory();
  const child = startChild(directory);
  const reader = child.stdout.getReader();
  await reader.read();
  const refused = await open(directory);
  expect(refused).toMatchObject({ ok: false, error: { reason: "locked" } });
  expect(refused.ok || refused.error.message).toContain(`process ${child.pid}`);
  child.kill("SIGKILL");
  await child.exited;
  const store = await opened(directory);
  expect(store.status().health).toBe("ok");
});

test("a child process that outlives the store's owner does not hold its lock", async () => {
  const directory = freshDirectory();
  const store = await opened(directory);
  const survivor = Bun.spawn(["sleep", "60"]);
  cleanups.push(async () => {
    survivor.kill("SIGKILL");
    await survivor.exited;
  });
  await store.close();
  const again = await opened(directory);
  expect(again.status().health).toBe("ok");
});

test("a file system that is full refuses writes by name, goes on reading, and recovers when there is space", async () => {
  const directory = freshDirectory();
  const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "hive-store-test", directory]);
  if (!mounted.success) {
    console.warn(
      `SKIPPED: no tmpfs can be mounted here (${mounted.stderr.toString().trim()}); the full-disk test needs one`,
    );
    return;
  }
  cleanups.push(() => {
    Bun.spawnSync(["umount", "-l", directory]);
  });
  const store = await opened(join(directory, "store"));
  const write = (n: number) =>
    store.transact(() =>
      ok({ writes: [put(ledger, { id: `row-${n % 40}`, units: n, pad: "p".repeat(900) })], value: n }),
    );
  expect(await write(0)).toMatchObject({ ok: true });

  const ballast = join(directory, "ballast");
  let bytes = 1024 * 1024;
  // Fills what is left, to the last page.
  while (bytes >= 4096) {
    try {
      writeFileSync(ballast, Buffer.alloc(bytes), { flag: "a" });
    } catch {
      bytes = Math.floor(bytes / 2);
    }
  }
  let last = 0;
  let failure: unknown;
  for (let n = 1; n < 2000 && !failure; n++) {
    const done = await write(n);
    if (done.ok) last = n;
    else failure = done.error;
  }
  expect(failure).toMatchObject({ kind: "store", reason: "full" });
  expect(store.status().health).toBe("full");
  expect(store.read().get(ledger, `row-${last % 40}`)?.units).toBe(last);
  expect(await write(5000)).toMatchObject({ ok: false, error: { reason: "full" } });

  rmSync(ballast);
  expect(await write(last + 1)).toMatchObject({ ok: true });
  expect(store.status().health).toBe("ok");
  await store.close();
  const again = await opened(join(directory, "store"));
  expect(again.read().get(ledger, `row-${(last + 1) % 40}`)?.units).toBe(last + 1);
  expect(again.read().revision).toBe(last + 2);
});

test("a directory that cannot be written is refused with the reason", async () => {
  const directory = freshDirectory();
  writeFileSync(join(directory, "file"), "");
  const result = await open(join(directory, "file"));
  expect(result).toMatchObject({ ok: false, error: { kind: "store", reason: "failed" } });
  expect(result.ok || result.error.message).toContain("file");
});
