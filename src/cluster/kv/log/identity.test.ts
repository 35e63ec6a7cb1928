import { expect, test } from "bun:test";
import { seededRandom } from "../../../lib/random.ts";
import { diskError, MemoryDisk } from "../memory-disk.ts";
import { checkIdentity, createIdentity, IDENTITY_NAME, loadIdentity } from "./identity.ts";

const own = { clusterId: "cluster-1", nodeId: "node-1", createdAt: "2024-05-06T07:08:09.000Z" };
const PATH = `/store/${IDENTITY_NAME}`;

test("an identity is read as it was written, and there is none before", async () => {
  const disk = new MemoryDisk();
  expect(await loadIdentity(disk, "/store")).toEqual({ ok: true, value: undefined });
  expect(await createIdentity(disk, "/store", own)).toEqual({ ok: true, value: undefined });
  expect(await loadIdentity(disk.afterCrash(seededRandom(1), "nothing"), "/store")).toEqual({ ok: true, value: own });
  expect(await disk.list("/store")).toEqual([IDENTITY_NAME]);
});

test("a crash at any operation leaves all of it or nothing, and it can be made again", async () => {
  for (let point = 1; ; point++) {
    for (const keep of ["nothing", "some", "everything"] as const) {
      const disk = new MemoryDisk();
      disk.before = ({ number }) => {
        if (number >= point) throw diskError("CRASH");
      };
      const created = await createIdentity(disk, "/store", own);
      if (created.ok) return expect(point).toBeGreaterThan(5);
      const after = disk.afterCrash(seededRandom(point), keep);
      const loaded = await loadIdentity(after, "/store");
      expect(loaded.ok).toBe(true);
      if (loaded.ok && loaded.value) expect(loaded.value).toEqual(own);
      else expect(await createIdentity(after, "/store", own)).toMatchObject({ ok: true });
      expect(await loadIdentity(after, "/store")).toEqual({ ok: true, value: own });
    }
  }
});

test("another cluster's or node's store is refused, by a sentence with both names", () => {
  expect(checkIdentity("/store", own, own)).toMatchObject({ ok: true });
  for (const [expected, words] of [
    [{ ...own, clusterId: "cluster-2" }, ["cluster cluster-1", "cluster cluster-2", "/store"]],
    [{ ...own, nodeId: "node-2" }, ["node node-1", "node node-2", "/store"]],
  ] as const) {
    const refused = checkIdentity("/store", own, expected);
    expect(refused).toMatchObject({ ok: false, error: { reason: "foreign" } });
    for (const word of words) expect(refused.ok || refused.error.message).toContain(word);
  }
});

test("one flipped bit anywhere is noticed", async () => {
  const disk = new MemoryDisk();
  await createIdentity(disk, "/store", own);
  const bytes = disk.peek(PATH);
  // The last byte is the end of the line.
  for (let bit = 0; bit < (bytes.length - 1) * 8; bit++) {
    const rotten = disk.afterCrash(seededRandom(1), "nothing");
    rotten.damage(PATH, bit >> 3, Uint8Array.of(bytes[bit >> 3]! ^ (1 << (bit & 7))));
    expect(await loadIdentity(rotten, "/store")).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  }
});

test("a later format is refused as such, what the disk can't read as its failure", async () => {
  const disk = new MemoryDisk();
  const file = await disk.open(PATH, "create");
  const content = { format: 2, anything: true };
  await file.write(0, Buffer.from(JSON.stringify({ ...content, crc: Bun.hash.crc32(JSON.stringify(content)) })));
  expect(await loadIdentity(disk, "/store")).toMatchObject({ ok: false, error: { reason: "newer" } });
  disk.before = () => {
    throw diskError("EIO");
  };
  expect(await loadIdentity(disk, "/store")).toMatchObject({ ok: false, error: { reason: "failed" } });
});
