/**
 * Generates src/schema from the Smithy schemas that the AWS SDK's packages carry: types, shape tables and documented filter
 * names, a folder a service. JSON Schemas of inputs are derived from the tables at run time (src/protocol/json-schema.ts).
 * Does nothing when neither the packages nor the generator have changed; `--force` generates anyway.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { emitFilters } from "./emit-filters.ts";
import { emitTables } from "./emit-tables.ts";
import { emitTypes } from "./emit-types.ts";
import { joinDeclarations } from "./join-declarations.ts";
import { readDeclarations } from "./read-declarations.ts";
import { packageFolder, readService } from "./read-schema.ts";
import { SERVICES, type ServiceSource } from "./services.ts";

const OUTPUT = join(import.meta.dir, "../src/schema");

/** A digest of all that the output depends on: this folder's code and the packages' versions. */
function inputsDigest(): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const file of readdirSync(import.meta.dir).sort()) {
    if (file.endsWith(".ts") && !file.endsWith(".test.ts")) hash.update(readFileSync(join(import.meta.dir, file)));
  }
  for (const source of SERVICES) hash.update(readFileSync(join(packageFolder(source.package), "package.json")));
  return hash.digest("hex");
}

function outputs(source: ServiceSource): string[] {
  return ["types.ts", "tables.ts", "filters.ts"].map((file) => join(OUTPUT, source.name, file));
}

/** Whether the output on disk was made from the inputs with this digest, and is whole and unedited. */
function upToDate(inputs: string): boolean {
  try {
    return readFileSync(join(OUTPUT, ".stamp"), "utf8") === stamp(inputs);
  } catch {
    return false;
  }
}

function stamp(inputs: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const source of SERVICES) for (const file of outputs(source)) hash.update(readFileSync(file));
  return `${inputs} ${hash.digest("hex")}\n`;
}

async function generate(source: ServiceSource): Promise<void> {
  const model = await readService(source);
  const declared = readDeclarations(packageFolder(source.package));
  joinDeclarations(model, declared);
  mkdirSync(join(OUTPUT, source.name), { recursive: true });
  const [types, tables, filters] = outputs(source) as [string, string, string];
  writeFileSync(types, emitTypes(model, declared));
  writeFileSync(tables, emitTables(model, declared));
  writeFileSync(filters, emitFilters(model, declared));
  console.log(`${source.name}: ${model.operations.length} operations, ${model.shapes.size} shapes`);
}

const inputs = inputsDigest();
if (process.argv.includes("--force") || !upToDate(inputs)) {
  for (const source of SERVICES) await generate(source);
  writeFileSync(join(OUTPUT, ".stamp"), stamp(inputs));
}
