/** The proof of an accelerator, on the real QEMU and, where there is one, the real /dev/kvm. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bootProof, chooseAccel } from "../../src/host/accel.ts";
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { present } from "../../src/lib/assert.ts";
import { IMAGE_CACHE } from "../support/hive.ts";

let kernel = "";
let dataDir = "";
beforeAll(async () => {
  const built = await buildTiny({ cacheDirectory: IMAGE_CACHE, workDirectory: IMAGE_CACHE });
  if (!built.ok) throw new Error(built.error.message);
  kernel = present(built.value.kernelFile, "tiny boots directly");
  dataDir = mkdtempSync(join(tmpdir(), "hive-accel-test-"));
});
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

test("a guest that reaches user space is a proof", async () => {
  expect(await bootProof("tcg", kernel, 60_000)).toBeUndefined();
});

test("a guest that is silent until the time limit is none, and is ended", async () => {
  const startedAt = performance.now();
  expect(await bootProof("tcg", kernel, 50)).toBe("did not reach user space within 0.05 s");
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});

test("a file that is no kernel is none", async () => {
  expect(await bootProof("tcg", import.meta.path, 20_000)).toContain("before it reached user space");
});

test.skipIf(!existsSync("/dev/kvm"))(
  "a /dev/kvm that opens is believed only when a guest ran",
  async () => {
    const failure = await bootProof("kvm", kernel);
    const verdict = await chooseAccel({ mode: "auto", dataDir, kernels: [kernel] });
    // Either KVM ran the guest, or it is not used and the verdict says why.
    if (failure === undefined) expect(["kvm", "tcg"]).toContain(verdict.accel);
    else {
      expect(verdict.accel).toBe("tcg");
      expect(verdict.reason).toStartWith("KVM is not used: ");
    }
  },
  60_000,
);
