/** The map in ARCHITECTURE.md, enforced: imports point down and inward. */
import { expect, test } from "bun:test";
import { Glob } from "bun";

const SRC = import.meta.dir;

/** Folder → folders that it may import values from. `type:` allows `import type` only. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  lib: [],
  model: ["lib"],
  schema: ["lib"],
  reconcile: ["lib"],
  config: ["lib", "model"],
  protocol: ["lib", "model", "schema"],
  iam: ["lib", "model", "schema"],
  compute: ["lib", "model", "schema", "reconcile"],
  vpc: ["lib", "model", "schema", "reconcile"],
  storage: ["lib", "model", "cluster"],
  cluster: ["lib", "model"],
  host: ["lib", "model", "type:compute", "type:vpc", "type:operator"],
  gateway: ["lib", "model", "schema", "protocol", "iam", "type:compute", "type:vpc"],
  settings: ["lib", "model", "protocol"],
  operator: ["lib", "model", "settings"],
  daemon: [
    "lib",
    "model",
    "schema",
    "reconcile",
    "config",
    "protocol",
    "iam",
    "compute",
    "vpc",
    "storage",
    "cluster",
    "host",
    "gateway",
    "settings",
    "operator",
  ],
  cli: ["lib", "schema", "protocol", "type:operator", "type:host"],
};

const imports = /^(import|export)(\s+type)?\b[^;]*?from\s+"(\.[^"]+)"/gm;

test("imports point down and inward", async () => {
  const wrong: string[] = [];
  for await (const file of new Glob("**/*.ts").scan(SRC)) {
    const folder = file.split("/")[0]!;
    if (!file.includes("/") || file.endsWith(".test.ts")) continue;
    const allowed = MAY_IMPORT[folder];
    if (!allowed) {
      wrong.push(`${file}: the folder ${folder} is not on the map`);
      continue;
    }
    const text = await Bun.file(`${SRC}/${file}`).text();
    for (const [, , type, path] of text.matchAll(imports)) {
      const resolved = new URL(path!, `file://${SRC}/${file}`).pathname;
      if (!resolved.startsWith(`${SRC}/`)) continue; // package.json
      const target = resolved.slice(SRC.length + 1).split("/")[0]!;
      if (target === folder || allowed.includes(target)) continue;
      if (type && allowed.includes(`type:${target}`)) continue;
      wrong.push(`${file} imports ${path}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("only host starts processes", async () => {
  const wrong: string[] = [];
  for await (const file of new Glob("**/*.ts").scan(SRC)) {
    if (file.startsWith("host/") || file.startsWith("cli/") || file.endsWith(".test.ts")) continue;
    if (/\bBun\.spawn|node:child_process/.test(await Bun.file(`${SRC}/${file}`).text())) wrong.push(file);
  }
  expect(wrong).toEqual([]);
});

test("consensus and gossip are pure: they know nothing but lib", async () => {
  const wrong: string[] = [];
  for await (const file of new Glob("cluster/{raft,gossip}/*.ts").scan(SRC)) {
    if (file.endsWith(".test.ts")) continue;
    const text = await Bun.file(`${SRC}/${file}`).text();
    for (const [, path] of text.matchAll(/from "([^"]+)"/g)) {
      if (!path!.startsWith("./") && !path!.startsWith("../../lib/")) wrong.push(`${file} imports ${path}`);
    }
    if (/\b(Date\.now|performance\.|Math\.random|setTimeout|setImmediate)\b/.test(text))
      wrong.push(`${file} looks at the world`);
  }
  expect(wrong).toEqual([]);
});
