import { afterEach, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemRandom } from "../lib/random.ts";
import { loadNodeId, writeAwsProfile } from "./data-dir.ts";

const folders: string[] = [];
const folder = async () => {
  const made = await mkdtemp(join(tmpdir(), "hive-data-dir-"));
  folders.push(made);
  return made;
};
afterEach(async () => {
  for (const made of folders.splice(0)) await rm(made, { recursive: true, force: true });
});

test("a node keeps its id", async () => {
  const dir = await folder();
  const first = await loadNodeId(dir, systemRandom);
  expect(first.ok && first.value).toMatch(/^node-[0-9a-f]{17}$/);
  expect(await loadNodeId(dir, systemRandom)).toEqual(first);
});

test("a data directory that cannot be written is an error that names it", async () => {
  const result = await loadNodeId("/proc/nowhere", systemRandom);
  expect(result.ok === false && result.error.message).toContain("/proc/nowhere/node-id");
});

test("the profile is for its owner's eyes alone", async () => {
  const dir = await folder();
  const facts = { endpoint: "http://127.0.0.1:1", region: "us-east-1", accessKeyId: "AKIA", secretAccessKey: "s/s=" };
  expect(await writeAwsProfile(dir, facts)).toEqual({ ok: true, value: join(dir, "aws") });
  expect((await stat(join(dir, "aws/credentials"))).mode & 0o777).toBe(0o600);
  expect(await readFile(join(dir, "aws/config"), "utf8")).toContain(
    "[profile hive]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:1\n",
  );
});
