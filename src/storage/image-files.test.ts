import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom } from "../lib/random.ts";
import { ImageFiles } from "./image-files.ts";

let dataDir = "";
let files: ImageFiles;
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "hive-images-"));
  files = new ImageFiles(dataDir, seededRandom(1));
  await files.open(new Set());
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const listed = (folder: string) => readdirSync(join(dataDir, folder)).sort();
const body = (...chunks: string[]) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
/** Receives a body that has to arrive. */
async function upload(text: string): Promise<string> {
  const received = await files.receive(body(text), 1000);
  if (!received.ok) throw new Error(received.error.message);
  return received.value.uploadId;
}

test("an upload is kept whole, for root alone", async () => {
  const received = await files.receive(body("one", "", "two"), 6);
  expect(received).toMatchObject({ ok: true, value: { bytes: 6 } });
  const [name] = listed("incoming");
  const file = join(dataDir, "incoming", name!);
  expect(readFileSync(file, "utf8")).toBe("onetwo");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(statSync(join(dataDir, "incoming")).mode & 0o777).toBe(0o700);
});

test("one that is too large is refused where it passes the limit, and leaves nothing", async () => {
  let pulled = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulled++;
      controller.enqueue(new Uint8Array(1000));
    },
  });
  expect(await files.receive(endless, 5500)).toMatchObject({ ok: false, error: { kind: "too-large" } });
  expect(pulled).toBeLessThan(10);
  expect(listed("incoming")).toEqual([]);
});

test("one whose client leaves in the middle leaves nothing", async () => {
  const leaves = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new Uint8Array(1000)),
    pull: (controller) => controller.error(new Error("the connection was closed")),
  });
  expect(await files.receive(leaves, 5500)).toMatchObject({
    ok: false,
    error: { kind: "io", message: expect.stringContaining("the connection was closed") },
  });
  expect(listed("incoming")).toEqual([]);
});

test("without a folder to write to, an upload fails in a sentence", async () => {
  rmSync(join(dataDir, "incoming"), { recursive: true });
  expect(await files.receive(body("x"), 10)).toMatchObject({ ok: false, error: { kind: "not-found" } });
});

test("a placed set is whole, read-only, and passable for QEMU's user", async () => {
  const [disk, kernel, initrd] = [await upload("disk"), await upload("kernel"), await upload("initrd")];
  const at = (id: string) => files.uploadFile(id);
  expect((await files.place("snap-1", { disk: at(disk), kernel: at(kernel), initrd: at(initrd) })).ok).toBe(true);
  expect(listed("snapshots/snap-1")).toEqual(["disk.qcow2", "initrd", "kernel"]);
  expect(statSync(join(dataDir, "snapshots/snap-1/disk.qcow2")).mode & 0o777).toBe(0o444);
  expect(statSync(join(dataDir, "snapshots/snap-1")).mode & 0o777).toBe(0o711);
  // Forgetting the upload doesn't take the placed file away.
  await files.forget(disk);
  expect(readFileSync(join(dataDir, "snapshots/snap-1/disk.qcow2"), "utf8")).toBe("disk");
});

test("a set of which a file is missing is not placed at all", async () => {
  const disk = files.uploadFile(await upload("disk"));
  const placed = await files.place("snap-1", { disk, kernel: files.uploadFile("0".repeat(32)) });
  expect(placed).toMatchObject({ ok: false, error: { kind: "not-found" } });
  expect(listed("snapshots")).toEqual([]);
});

test("a second set of the same id is refused, and the first stays as it is", async () => {
  const [first, second] = [await upload("first"), await upload("second")];
  await files.place("snap-1", { disk: files.uploadFile(first) });
  expect((await files.place("snap-1", { disk: files.uploadFile(second) })).ok).toBe(false);
  expect(readFileSync(join(dataDir, "snapshots/snap-1/disk.qcow2"), "utf8")).toBe("first");
  expect(listed("snapshots")).toEqual(["snap-1"]);
});

test("the next start sweeps uploads, half-placed sets and sets without a record, and keeps the rest", async () => {
  await files.place("snap-1", { disk: files.uploadFile(await upload("kept")) });
  await files.place("snap-2", { disk: files.uploadFile(await upload("no record")) });
  mkdirSync(join(dataDir, "snapshots/.snap-3"));
  writeFileSync(join(dataDir, "snapshots/.snap-3/disk.qcow2"), "half");
  await upload("never imported");
  const { removed } = await new ImageFiles(dataDir, seededRandom(2)).open(new Set(["snap-1"]));
  expect([...removed].sort()).toEqual([".snap-3", "snap-2"]);
  expect([listed("snapshots"), listed("incoming")]).toEqual([["snap-1"], []]);
});

test("removing and forgetting what is not there does nothing", async () => {
  await files.remove("snap-9");
  await files.forget("f".repeat(32));
  expect(existsSync(join(dataDir, "snapshots"))).toBe(true);
});
