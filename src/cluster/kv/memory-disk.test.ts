import { expect, test } from "bun:test";
import { seededRandom } from "../../lib/random.ts";
import { diskError, MemoryDisk } from "./memory-disk.ts";

const bytes = (text: string) => new Uint8Array(Buffer.from(text));
const textOf = (disk: MemoryDisk, path = "/d/a") => disk.peek(path).toString();
const crashed = (disk: MemoryDisk, keep: "nothing" | "everything" = "nothing") =>
  disk.afterCrash(seededRandom(1), keep);

async function withFile(text: string) {
  const disk = new MemoryDisk();
  const file = await disk.open("/d/a", "create");
  await file.write(0, bytes(text));
  await file.datasync();
  await disk.syncDirectory("/d");
  return { disk, file };
}

test("a crash keeps what was made durable, and may keep the rest", async () => {
  const { disk, file } = await withFile("aaaa");
  await file.write(0, bytes("bb"));
  await file.writeDurable(2, bytes("cc"));
  expect(textOf(disk)).toBe("bbcc");
  expect(textOf(crashed(disk))).toBe("aacc");
  expect(textOf(crashed(disk, "everything"))).toBe("bbcc");
  await file.datasync();
  expect(textOf(crashed(disk))).toBe("bbcc");
});

test("a durable write stays over what was written there before and is not durable", async () => {
  const { disk, file } = await withFile("aaaaaa");
  await file.write(0, bytes("bbbbbb"));
  await file.writeDurable(2, bytes("cc"));
  expect(textOf(crashed(disk))).toBe("aaccaa");
  expect(textOf(crashed(disk, "everything"))).toBe("bbccbb");
});

test("a write that fails is half there for want of space, and otherwise seen and not durable", async () => {
  for (const [code, seen, durable, mayBe] of [
    ["ENOSPC", "bbaa", "aaaa", "bbaa"],
    ["EIO", "bbbb", "aaaa", "aaaa"],
    ["CRASH", "bbbb", "aaaa", "bbbb"],
  ] as const) {
    const { disk, file } = await withFile("aaaa");
    disk.before = () => {
      throw diskError(code);
    };
    expect(file.writeDurable(0, bytes("bbbb"))).rejects.toThrow(code);
    await Bun.sleep(0);
    expect(textOf(disk)).toBe(seen);
    expect(textOf(crashed(disk))).toBe(durable);
    expect(textOf(crashed(disk, "everything"))).toBe(mayBe);
  }
});

test("an operation takes as long as it is told to, and a crash may keep what was under way", async () => {
  const { disk, file } = await withFile("aaaa");
  const { promise, resolve } = Promise.withResolvers<void>();
  disk.pause = ({ kind }) => (kind === "writeDurable" ? promise : undefined);
  let isDone = false;
  const writing = file.writeDurable(0, bytes("bbbb")).then(() => {
    isDone = true;
  });
  await file.read(0, 1);
  await file.read(0, 1);
  expect(isDone).toBe(false);
  expect(textOf(disk)).toBe("aaaa");
  expect(textOf(crashed(disk))).toBe("aaaa");
  expect(textOf(crashed(disk, "everything"))).toBe("bbbb");
  resolve();
  await writing;
  expect(textOf(crashed(disk))).toBe("bbbb");
});

test("space runs out, is there again once a file is removed, and is not needed to write in place", async () => {
  const { disk, file } = await withFile("aaaa");
  disk.capacityBytes = 6;
  expect(file.write(2, bytes("bbbbbb"))).rejects.toThrow("ENOSPC");
  await Bun.sleep(0);
  expect(textOf(disk)).toBe("aabbbb");
  expect(disk.usedBytes).toBe(6);
  await file.writeDurable(0, bytes("cccccc"));
  const other = await disk.open("/d/b", "create");
  expect(other.write(0, bytes("x"))).rejects.toThrow("ENOSPC");
  await Bun.sleep(0);
  await disk.remove("/d/a");
  expect(disk.usedBytes).toBe(0);
  await other.write(0, bytes("xyz"));
  await other.datasync();
  // The removal was not made durable, so the removed file has its space again.
  const after = crashed(disk, "nothing");
  expect(after.usedBytes).toBe(6);
  expect(after.capacityBytes).toBe(6);
});
