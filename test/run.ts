/**
 * Runs the test groups one after another and adds up what they say. The last line is `N passed, N failed`.
 * A group whose runner dies without a summary counts as one failure.
 */
import { existsSync } from "node:fs";

const GROUPS: Record<string, readonly (readonly string[])[]> = {
  default: [
    ["src", "smithy", "test/raft", "test/sim"],
    ["test/compat", "test/integration"],
  ],
  slow: [["test/slow"]],
};
/** One test's own limit; a guest under software emulation on a busy machine is slow. */
const TIMEOUT_MS = 240_000;

const which = process.argv[2] ?? "default";
if (which === "bench") {
  const bench = Bun.spawn([process.execPath, "test/bench/main.ts", ...process.argv.slice(3)], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  process.exit(await bench.exited);
}

const named = process.argv.slice(2);
const groups = GROUPS[which] ?? (named.every((path) => existsSync(path)) ? [named] : undefined);
if (!groups) {
  console.error(
    `test/run.ts: ${named.join(" ")} is neither a group (${Object.keys(GROUPS).join(", ")}, bench) nor a path`,
  );
  process.exit(2);
}

const total = { pass: 0, fail: 0, skip: 0 };
const failed: string[] = [];
for (const paths of groups) {
  const there = paths.filter((path) => existsSync(path));
  if (there.length === 0) continue;
  console.log(`\n== ${there.join(" ")} ==`);
  const result = await runGroup(there);
  total.pass += result.pass;
  total.fail += result.fail;
  total.skip += result.skip;
}
if (failed.length > 0) console.log(`\n${failed.join("\n")}`);
console.log(`\n${total.pass} passed, ${total.fail} failed${total.skip > 0 ? `, ${total.skip} skipped` : ""}`);
process.exit(total.fail > 0 ? 1 : 0);

async function runGroup(paths: readonly string[]): Promise<{ pass: number; fail: number; skip: number }> {
  const child = Bun.spawn([process.execPath, "test", `--timeout=${TIMEOUT_MS}`, ...paths.map((path) => `./${path}`)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, FORCE_COLOR: "0" },
  });
  let text = "";
  const forward = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      process.stdout.write(chunk);
      text += decoder.decode(chunk, { stream: true });
    }
  };
  await Promise.all([forward(child.stdout), forward(child.stderr)]);
  const code = await child.exited;
  const lines = text.split("\n");
  failed.push(...lines.filter((line) => line.startsWith("(fail) ")));
  // The runner's summary comes last; a test may print such lines as well.
  const count = (word: string) =>
    Number(
      lines
        .findLast((line) => new RegExp(`^ *\\d+ ${word}$`).test(line))
        ?.trim()
        .split(" ")[0] ?? 0,
    );
  const result = { pass: count("pass"), fail: count("fail"), skip: count("skip") };
  if (result.fail === 0 && (code !== 0 || result.pass + result.skip === 0)) {
    failed.push(`(fail) ${paths.join(" ")}: the runner ended with ${code} and ran ${result.pass} tests`);
    result.fail = 1;
  }
  return result;
}
