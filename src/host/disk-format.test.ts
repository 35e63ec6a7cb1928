import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { detectFormat, HEAD_BYTES, VIRTUAL_BYTES_MAX } from "./disk-format.ts";

function qcow2(change: (header: Buffer) => void = () => {}): Buffer {
  const header = Buffer.alloc(HEAD_BYTES);
  header.write("QFI\xfb", 0, "latin1");
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(1n << 30n, 24);
  change(header);
  return header;
}
function raw(at: number, text: string): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.write(text, at, "latin1");
  return head;
}

describe("detectFormat", () => {
  test("a qcow2 image is known by its header, with its virtual size", () => {
    expect(detectFormat(qcow2(), 200_000)).toEqual({ ok: true, value: { format: "qcow2", virtualBytes: 1 << 30 } });
  });

  test("a raw disk is known by its boot record or its GUID partition table", () => {
    expect(detectFormat(raw(510, "\x55\xaa"), 1 << 20)).toEqual({ ok: true, value: { format: "raw" } });
    expect(detectFormat(raw(512, "EFI PART"), 1 << 20)).toEqual({ ok: true, value: { format: "raw" } });
  });

  const refused: [string, Buffer, number, RegExp][] = [
    ["text", Buffer.from("hello, I am a text file\n".repeat(100)), 2400, /not a disk image/],
    ["a short file", Buffer.from("x"), 1, /not a disk image/],
    ["zeroes", Buffer.alloc(HEAD_BYTES), 1 << 20, /not a disk image/],
    ["a raw disk of half sectors", raw(510, "\x55\xaa"), (1 << 20) + 7, /cut short/],
    ["a compressed file", raw(0, "\x1f\x8b"), 1 << 20, /gzip.*unpack it first/],
    ["a VMDK", raw(0, "KDMV"), 1 << 20, /VMDK.*convert it first/],
    ["a tar archive", raw(257, "ustar"), 1 << 20, /tar archive/],
    ["LUKS", raw(0, "LUKS\xba\xbe"), 1 << 20, /encrypted/],
    ["a header cut short", qcow2().subarray(0, 60), 60, /cut short/],
    ["version 1", qcow2((h) => h.writeUInt32BE(1, 4)), 1 << 20, /version 1/],
    ["a backing file", qcow2((h) => h.writeBigUInt64BE(512n, 8)), 1 << 20, /backing file/],
    ["a data file", qcow2((h) => h.writeBigUInt64BE(4n, 72)), 1 << 20, /external file/],
    ["encryption", qcow2((h) => h.writeUInt32BE(2, 32)), 1 << 20, /encrypted/],
    ["the corrupt mark", qcow2((h) => h.writeBigUInt64BE(2n, 72)), 1 << 20, /corrupt/],
    ["an unknown feature", qcow2((h) => h.writeBigUInt64BE(1n << 40n, 72)), 1 << 20, /not known/],
    ["no size", qcow2((h) => h.writeBigUInt64BE(0n, 24)), 1 << 20, /0 bytes/],
    ["an absurd size", qcow2((h) => h.writeBigUInt64BE(1n << 62n, 24)), 1 << 20, /more than 65536 GiB/],
    ["absurd clusters", qcow2((h) => h.writeUInt32BE(60, 20)), 1 << 20, /cluster size/],
  ];
  test.each(refused)("%s is refused, with the reason", (_, head, fileBytes, reason) => {
    const result = detectFormat(head, fileBytes);
    expect(result.ok).toBe(false);
    expect(!result.ok && result.error).toMatch(reason);
  });

  test("whatever the bytes, an answer is a known format within bounds or a reason", () => {
    const anyHead = fc.uint8Array({ maxLength: HEAD_BYTES });
    const anyQcow2 = fc
      .uint8Array({ minLength: 100, maxLength: HEAD_BYTES })
      .map((rest) => Buffer.concat([Buffer.from("QFI\xfb", "latin1"), rest]));
    fc.assert(
      fc.property(fc.oneof(anyHead, anyQcow2), fc.nat(), (head, fileBytes) => {
        const result = detectFormat(head, fileBytes);
        if (!result.ok) return result.error.length > 0;
        return (
          result.value.format === "raw" ||
          (result.value.virtualBytes > 0 && result.value.virtualBytes <= VIRTUAL_BYTES_MAX)
        );
      }),
    );
  });
});
