import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { runChecked } from "../run.ts";
import { masterBootRecord } from "./bootable-disk.ts";
import { recipeKey } from "./built-image.ts";
import { type ArchiveEntry, packCpio } from "./cpio.ts";
import { sourceLines } from "./debian.ts";
import { moduleDependencies, neededLibraries } from "./elf.ts";
import { extractPvhKernel, unpackLz4Legacy } from "./kernel.ts";
import { orderModules } from "./kernel-modules.ts";
import { parsePrintedUris } from "./packages.ts";

describe("the boot record", () => {
  test("boot code, signature, one bootable Linux partition and the mark of a boot record are where a BIOS looks", () => {
    const record = masterBootRecord(Buffer.alloc(512, 0xeb), 0x1234abcd, 2048, 2095104);
    expect(record.length).toBe(512);
    expect(record.subarray(0, 440).every((byte) => byte === 0xeb)).toBe(true);
    expect(record.readUInt32LE(440)).toBe(0x1234abcd);
    expect(record.toString("hex", 446, 462)).toBe("80feffff83feffff0008000000f81f00");
    expect(record.subarray(462, 510).every((byte) => byte === 0)).toBe(true);
    expect(record.toString("hex", 510)).toBe("55aa");
  });
});

describe("packCpio", () => {
  const entries: ArchiveEntry[] = [
    { path: "bin", type: "directory", mode: 0o755 },
    { path: "bin/tool", type: "file", mode: 0o755, content: Buffer.from("12345") },
    { path: "bin/sh", type: "symlink", target: "tool" },
    { path: "console", type: "character-device", mode: 0o600, major: 5, minor: 1 },
  ];

  test("the archive is what the format's description says, byte for byte", () => {
    const archive = packCpio(entries.slice(1, 2)).toString("latin1");
    const header = ["070701", "00000001", "000081ed", "00000000", "00000000", "00000001", "00000000", "00000005"];
    const rest = ["00000000", "00000000", "00000000", "00000000", "00000009", "00000000"];
    expect(archive.slice(0, 110)).toBe([...header, ...rest].join(""));
    expect(archive.slice(110, 128)).toBe("bin/tool\0\0" + "12345\0\0\0");
    expect(archive.slice(128)).toContain("TRAILER!!!\0");
    expect(archive.length % 4).toBe(0);
  });

  test("equal entries give equal bytes", () => {
    expect(packCpio(entries)).toEqual(packCpio(entries));
  });
});

describe("neededLibraries", () => {
  test("agrees with the host's own dynamic program", async () => {
    const needed = neededLibraries(readFileSync(process.execPath));
    expect(needed).toContain("libc.so.6");
    const seen = await runChecked(["ldd", process.execPath]);
    if (seen.ok) for (const name of needed) expect(seen.value.stdout).toContain(name);
  });

  test("what is no dynamic ELF file needs nothing", () => {
    expect(neededLibraries(Buffer.from("#!/bin/sh\n"))).toEqual([]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => neededLibraries(Buffer.from(bytes)).length === 0),
    );
  });
});

describe("kernel modules", () => {
  test("dependencies are read from the module's own information", () => {
    const module = Buffer.from("xx\0license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0", "latin1");
    expect(moduleDependencies(module)).toEqual(["virtio", "virtio_ring"]);
    expect(moduleDependencies(Buffer.from("\0depends=\0", "latin1"))).toEqual([]);
  });

  test("each module comes after what it depends on, once; what is built in is left out", async () => {
    const graph: { [name: string]: string[] } = {
      virtio: [],
      virtio_ring: ["virtio"],
      virtio_pci: ["virtio_ring", "virtio"],
      virtio_rng: ["virtio"],
    };
    const order = await orderModules(["virtio_pci", "nvme", "virtio-rng"], async (name) => graph[name]);
    expect(order).toEqual(["virtio", "virtio_ring", "virtio_pci", "virtio_rng"]);
  });
});

describe("unpackLz4Legacy", () => {
  const frame = (...blocks: number[][]) => {
    const parts = [Buffer.from([0x02, 0x21, 0x4c, 0x18])];
    for (const block of blocks) {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(block.length);
      parts.push(length, Buffer.from(block));
    }
    return Buffer.concat(parts);
  };
  // 3 literals "abc", a match of 4 + 5 bytes at distance 3, then 1 literal "!"
  const block = [0x35, 0x61, 0x62, 0x63, 3, 0, 0x10, 0x21];

  test("literals and an overlapping match are put together; blocks follow each other", () => {
    expect(unpackLz4Legacy(frame(block), 13)?.toString()).toBe("abcabcabcabc!");
    expect(unpackLz4Legacy(frame(block, block), 26)?.toString()).toBe("abcabcabcabc!abcabcabcabc!");
  });

  test("long runs count in extra bytes", () => {
    const literals = Array.from({ length: 300 }, (_, i) => i % 256);
    const long = [0xf0, 255, 30, ...literals]; // 15 + 255 + 30 = 300 literals
    expect(unpackLz4Legacy(frame(long), 300)).toEqual(Buffer.from(literals));
  });

  test("a damaged frame gives nothing, whatever the damage", () => {
    expect(unpackLz4Legacy(frame([0x35, 0x61, 0x62, 0x63, 9, 0, 0x10, 0x21]), 13)).toBeUndefined(); // before the start
    expect(unpackLz4Legacy(frame(block), 12)).toBeUndefined();
    expect(unpackLz4Legacy(frame(block), 14)).toBeUndefined();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(200), (bytes, size) => {
        const unpacked = unpackLz4Legacy(frame([...bytes]), size);
        return unpacked === undefined || unpacked.length === size;
      }),
    );
  });

  test("what is no bzImage has no kernel inside", () => {
    expect(extractPvhKernel(Buffer.alloc(100_000))).toBeUndefined();
    expect(extractPvhKernel(Buffer.from("short"))).toBeUndefined();
  });
});

describe("what apt prints", () => {
  test("names, files, sizes and hashes are read; other lines are passed over", () => {
    const printed =
      "Reading package lists...\n" +
      "'http://mirror.test/pool/b/busybox-static_1.35.0-4%2bb1_amd64.deb' busybox-static_1%3a1.35.0-4+b1_amd64.deb 928188 SHA256:3d3f\n" +
      "'http://mirror.test/x.deb' libc6_2.36-9_amd64.deb 2757000\n";
    expect(parsePrintedUris(printed)).toEqual([
      {
        name: "busybox-static",
        fileName: "busybox-static_1%3a1.35.0-4+b1_amd64.deb",
        bytes: 928188,
        hash: "SHA256:3d3f",
      },
      { name: "libc6", fileName: "libc6_2.36-9_amd64.deb", bytes: 2757000, hash: "" },
    ]);
  });

  test("a file name can't lead out of the cache", () => {
    expect(parsePrintedUris("'http://mirror.test/x' ../../etc_1.deb 1 SHA256:00\n")).toEqual([]);
    expect(parsePrintedUris("'http://mirror.test/x' a_1/../../b.deb 1 SHA256:00\n")).toEqual([]);
  });

  test("Debian 12's sources are kept, and no other's", () => {
    const line = (origin: string, codename: string, createdBy = "Packages") =>
      `http://mirror.test/debian/|${origin}|${codename}|${codename}|main|${createdBy}`;
    const targets = [
      line("Debian", "bookworm"),
      line("Debian", "bookworm-security"),
      line("Debian", "bookworm", "Translations"),
    ];
    const others = [line("Debian", "trixie"), line("Node Source", "bookworm"), line("Debian", "bookworm-backports")];
    expect(sourceLines([...targets, ...others].join("\n"))).toEqual([
      "deb http://mirror.test/debian bookworm main",
      "deb http://mirror.test/debian bookworm-security main",
    ]);
  });
});

test("a recipe's key depends on every input and on where one ends and the next begins", () => {
  expect(recipeKey(["ab", "c"])).toMatch(/^[0-9a-f]{16}$/);
  expect(recipeKey(["ab", "c"])).toBe(recipeKey(["ab", "c"]));
  expect(recipeKey(["ab", "c"])).not.toBe(recipeKey(["a", "bc"]));
  expect(recipeKey(["ab", "c"])).not.toBe(recipeKey(["ab", "c", ""]));
});
