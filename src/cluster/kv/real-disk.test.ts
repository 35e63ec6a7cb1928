import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realDisk } from "./real-disk.ts";

const directory = mkdtempSync(join(tmpdir(), "hive-disk-"));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const O_DSYNC = 0o10000;

/** The flags of this process's descriptors on a file. */
const flagsOn = (path: string): number[] =>
  readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) !== path) return [];
      return [Number.parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "", 8)];
    } catch {
      return [];
    }
  });

test("a durable write is one write to a descriptor that syncs data, and both are closed", async () => {
  const path = join(directory, "file");
  const file = await realDisk.open(path, "create");
  expect(flagsOn(path).map((flags) => (flags & O_DSYNC) !== 0)).toEqual([false, true]);
  await file.write(0, Buffer.alloc(8192));
  await file.datasync();
  await file.writeDurable(4090, Buffer.from("across a block"));
  expect(Buffer.from(await file.read(4090, 14)).toString()).toBe("across a block");
  expect(await file.size()).toBe(8192);
  await file.close();
  expect(flagsOn(path)).toEqual([]);
  expect(readFileSync(path).toString("latin1", 4090, 4104)).toBe("across a block");
  const again = await realDisk.open(path, "write");
  await again.writeDurable(0, Buffer.from("x"));
  await again.close();
  expect(readFileSync(path)[0]).toBe(0x78);
});
