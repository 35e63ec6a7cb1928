/** qemu-img itself, on sound, damaged and hostile files. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertImage, createVolume, inspectImage, resizeVolume } from "../../src/host/qemu-img.ts";
import { runChecked } from "../../src/host/run.ts";
import { GIB, MIB } from "../../src/lib/units.ts";

const directory = mkdtempSync(join(tmpdir(), "hive-qemu-img-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const at = (name: string) => join(directory, name);
const must = async (argv: string[]) => {
  const result = await runChecked(argv);
  if (!result.ok) throw new Error(result.error.message);
};
function written(name: string, content: string): string {
  writeFileSync(at(name), content);
  return at(name);
}
/** A raw disk with a boot record and `bytes` of data that compresses badly. */
function rawDisk(name: string, bytes: number): string {
  const disk = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i += 65_536) crypto.getRandomValues(disk.subarray(i, Math.min(bytes, i + 65_536)));
  disk.set([0x55, 0xaa], 510);
  writeFileSync(at(name), disk);
  return at(name);
}

describe("inspectImage", () => {
  test("a qcow2 and a raw image are described, and a converted one reads back the same", async () => {
    const raw = rawDisk("sound.raw", 2 * MIB);
    expect(await inspectImage(raw)).toEqual({
      ok: true,
      value: { format: "raw", virtualBytes: 2 * MIB, fileBytes: 2 * MIB },
    });
    const qcow2 = at("sound.qcow2");
    expect(
      (await convertImage({ from: { file: raw, format: "raw" }, to: { file: qcow2, format: "qcow2" }, compress: true }))
        .ok,
    ).toBe(true);
    expect(await inspectImage(qcow2)).toMatchObject({ ok: true, value: { format: "qcow2", virtualBytes: 2 * MIB } });
    await must(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow2]);
  });

  const refused: [string, () => Promise<string>, string, RegExp][] = [
    ["nothing", async () => at("absent"), "not-found", /absent/],
    ["an empty file", async () => written("empty", ""), "bad-image", /is empty/],
    ["a directory", async () => directory, "bad-image", /not a regular file/],
    ["a text file", async () => written("text", "hello\n".repeat(1000)), "bad-image", /not a disk image/],
    [
      "a qcow2 image that is cut short",
      async () => {
        await must(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", rawDisk("whole.raw", 2 * MIB), at("cut.qcow2")]);
        truncateSync(at("cut.qcow2"), 1 * MIB);
        return at("cut.qcow2");
      },
      "bad-image",
      /damaged or cut short/,
    ],
    [
      "a qcow2 image over another file",
      async () => {
        await must(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", at("backed.qcow2")]);
        return at("backed.qcow2");
      },
      "bad-image",
      /backing file/,
    ],
    [
      "a qcow2 image whose data is elsewhere",
      async () => {
        await must([
          "qemu-img",
          "create",
          "-q",
          "-f",
          "qcow2",
          "-o",
          `data_file=${at("data")}`,
          at("external.qcow2"),
          "1M",
        ]);
        return at("external.qcow2");
      },
      "bad-image",
      /external file/,
    ],
    [
      "a VMDK",
      async () => {
        await must(["qemu-img", "create", "-q", "-f", "vmdk", at("disk.vmdk"), "1M"]);
        return at("disk.vmdk");
      },
      "bad-image",
      /VMDK.*qemu-img convert/,
    ],
  ];
  test.each(refused)("%s is refused", async (_, make, kind, reason) => {
    const result = await inspectImage(await make());
    expect(result).toMatchObject({ ok: false, error: { kind } });
    expect(!result.ok && result.error.message).toMatch(reason);
  });
});

describe("volumes", () => {
  test("a volume over an image shows the image's content, larger if asked, and leaves the image as it was", async () => {
    const base = rawDisk("base.raw", 2 * MIB);
    chmodSync(base, 0o444);
    const made = await createVolume({
      file: at("over.qcow2"),
      format: "qcow2",
      sizeBytes: GIB,
      backing: { file: base, format: "raw" },
    });
    expect(made.ok).toBe(true);
    expect(statSync(at("over.qcow2")).size).toBeLessThan(MIB);
    await must(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", base, at("over.qcow2")]);
    expect((await resizeVolume(at("over.qcow2"), "qcow2", 2 * GIB)).ok).toBe(true);
    expect((await resizeVolume(at("over.qcow2"), "qcow2", GIB)).ok).toBe(false); // would cut data off
  });

  test("an existing volume is never written over", async () => {
    writeFileSync(at("taken.qcow2"), "precious");
    const result = await createVolume({ file: at("taken.qcow2"), format: "qcow2", sizeBytes: GIB });
    expect(result.ok).toBe(false);
    expect(await Bun.file(at("taken.qcow2")).text()).toBe("precious");
  });

  test("a missing backing image fails and leaves nothing", async () => {
    const result = await createVolume({
      file: at("none.qcow2"),
      format: "qcow2",
      sizeBytes: GIB,
      backing: { file: at("gone"), format: "qcow2" },
    });
    expect(result).toMatchObject({ ok: false, error: { kind: "command-failed", program: "qemu-img" } });
    expect(readdirSync(directory).filter((name) => name.includes("none.qcow2"))).toEqual([]);
  });

  test("an empty raw volume is sparse", async () => {
    expect((await createVolume({ file: at("empty.raw"), format: "raw", sizeBytes: 8 * GIB })).ok).toBe(true);
    expect(statSync(at("empty.raw"))).toMatchObject({ size: 8 * GIB, blocks: expect.any(Number) });
    expect(statSync(at("empty.raw")).blocks).toBeLessThan(100);
  });

  const isRoot = process.getuid?.() === 0;
  test.skipIf(!isRoot)(
    "a full disk is said to be full, and the half-written image is gone (needs root, for a small tmpfs)",
    async () => {
      const small = at("small");
      await must(["mkdir", small]);
      await must(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
      try {
        const from = { file: rawDisk("large.raw", 8 * MIB), format: "raw" } as const;
        const result = await convertImage({ from, to: { file: join(small, "copy.qcow2"), format: "qcow2" } });
        expect(result).toMatchObject({ ok: false, error: { kind: "no-space" } });
        expect(readdirSync(small)).toEqual([]);
      } finally {
        await must(["umount", small]);
      }
    },
  );

  test("a symbolic link to an image is inspected as what it leads to", async () => {
    symlinkSync(rawDisk("target.raw", MIB), at("link"));
    expect(await inspectImage(at("link"))).toMatchObject({ ok: true, value: { format: "raw" } });
    expect(existsSync(at("link"))).toBe(true);
  });
});
