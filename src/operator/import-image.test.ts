import { expect, test } from "bun:test";
import fc from "fast-check";
import { fail, ok } from "../lib/result.ts";
import { awsError } from "../model/errors.ts";
import type { ImageId, SnapshotId } from "../model/ids.ts";
import { type ImportPorts, type ImportRequest, importImage, importRequest } from "./import-image.ts";

const id = (digit: string) => digit.repeat(32);
const request = (over: Partial<ImportRequest> = {}): ImportRequest => ({
  ...importRequest.parse({ name: "mine", disk: id("a") }),
  ...over,
});

const steps = ["inspect", "toQcow2", "place", "register"] as const;
type Step = (typeof steps)[number];

/** A node whose files are names in sets; the step `broken` fails. */
function node(uploads: readonly string[], format: "raw" | "qcow2", broken?: Step, kind = "bad-image") {
  const incoming = new Set(uploads);
  const placed = new Map<string, readonly string[]>();
  const registered: string[] = [];
  const name = (file: string) => file.replace("/incoming/", "");
  const failure = fail({ kind, message: `${broken} fails` });
  const ports: ImportPorts = {
    newSnapshotId: () => "snap-0123456789abcdef0" as SnapshotId,
    uploadFile: (upload) => `/incoming/${upload}`,
    inspect: async (file) =>
      broken === "inspect" || !incoming.has(name(file)) ? failure : ok({ format, virtualBytes: 1 << 30 }),
    toQcow2: async (_, to) => {
      // A conversion that fails has written something.
      incoming.add(name(to));
      return broken === "toQcow2" ? failure : ok(undefined);
    },
    place: async (snapshot, files) => {
      if (broken === "place") return failure;
      placed.set(snapshot, [files.disk, files.kernel, files.initrd].filter((file) => file !== undefined).map(name));
      return ok(undefined);
    },
    remove: async (snapshot) => void placed.delete(snapshot),
    forget: async (upload) => void incoming.delete(upload),
    register: async ({ name: image }) => {
      if (broken === "register") return fail(awsError("InvalidAMIName.Duplicate", "taken", 400));
      registered.push(image);
      return ok("ami-0123456789abcdef0" as ImageId);
    },
  };
  return { ports, incoming, placed, registered };
}

test("a qcow2 is placed as it came, a raw disk as what it was converted to", async () => {
  const qcow2 = node([id("a")], "qcow2");
  expect(await importImage(request(), qcow2.ports)).toEqual(ok("ami-0123456789abcdef0" as ImageId));
  expect([...qcow2.placed.values()]).toEqual([[id("a")]]);
  const raw = node([id("a"), id("b"), id("c")], "raw");
  await importImage(request({ kernel: id("b"), initrd: id("c") }), raw.ports);
  expect([...raw.placed.values()]).toEqual([[`${id("a")}.qcow2`, id("b"), id("c")]]);
  expect([raw.incoming.size, raw.registered]).toEqual([0, ["mine"]]);
});

test("whatever fails, no record and no file is left", () =>
  fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...steps),
      fc.constantFrom("raw" as const, "qcow2" as const),
      fc.boolean(),
      fc.constantFrom("bad-image", "no-space", "not-found", "io"),
      async (broken, format, direct, kind) => {
        if (broken === "toQcow2") format = "raw";
        const there = node([id("a"), id("b"), id("c")], format, broken, kind);
        const asked = direct ? request({ kernel: id("b"), initrd: id("c") }) : request();
        const imported = await importImage(asked, there.ports);
        expect(imported.ok).toBe(false);
        expect([there.placed.size, there.registered]).toEqual([0, []]);
        expect([...there.incoming]).toEqual(direct ? [] : [id("b"), id("c")]);
      },
    ),
  ));

test.each([
  ["bad-image", "InvalidParameterValue", 400],
  ["no-space", "InsufficientDiskSpace", 507],
  ["io", "ImportFailed", 500],
])("a host's %s is the caller's %s", async (kind, code, status) => {
  const imported = await importImage(request(), node([id("a")], "raw", "toQcow2", kind).ports);
  expect(imported).toMatchObject({ ok: false, error: { code, status } });
});

test.each([
  ["an initrd", { initrd: id("c") }],
  ["a kernel command line", { kernelCommandLine: "quiet" }],
])("%s without a kernel is refused before anything is done", async (_, over) => {
  const there = node([id("a")], "qcow2");
  expect(await importImage(request(over), there.ports)).toMatchObject({
    ok: false,
    error: { code: "InvalidParameterValue" },
  });
  expect(there.placed.size).toBe(0);
});

test.each([
  ["a name with control characters", { name: "a\nb" }],
  ["a name of two letters", { name: "ab" }],
  ["an upload id that is a path", { disk: "../../etc/shadow" }],
  ["a root device that is a path elsewhere", { rootDeviceName: "/dev/../etc" }],
  ["an unknown member", { colour: "red" }],
])("%s is no request", (_, over) => {
  expect(importRequest.safeParse({ name: "mine", disk: id("a"), ...over }).success).toBe(false);
});
