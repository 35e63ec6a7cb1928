/** `npm run dev`: the daemon from source, started anew when a file changes, while its machines go on. */
import { expect, test } from "bun:test";
import { appendFileSync, chmodSync, cpSync, mkdirSync, readdirSync, readlinkSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { endMachines, HIVE, IMAGE_CACHE, PROJECT } from "../support/hive.ts";
import { nodeUnavailable, until, withNode } from "../support/netns.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: npm run dev's test ${lacks}`);

test.skipIf(lacks !== undefined)(
  "npm run dev starts anew when a source changes, outlives a mistake, and its machine keeps running",
  () =>
    withNode(async (node) => {
      chmodSync(node.directory, 0o711); // QEMU's own user passes through to its machine's folder
      const tree = join(node.directory, "tree");
      mkdirSync(join(tree, "test"), { recursive: true, mode: 0o711 });
      for (const part of ["src", "smithy", "package.json", "tsconfig.json", "bunfig.toml", "test/dev.yaml"]) {
        cpSync(join(PROJECT, part), join(tree, part), { recursive: true });
      }
      symlinkSync(join(PROJECT, "node_modules"), join(tree, "node_modules"));
      const aws = join(tree, ".dev/aws");
      const hive = async (...words: string[]) => {
        const profile = [`AWS_CONFIG_FILE=${aws}/config`, `AWS_SHARED_CREDENTIALS_FILE=${aws}/credentials`];
        const argv = ["env", "AWS_PROFILE=hive", ...profile, HIVE, ...words];
        return (await node.exec(argv, { timeoutMs: 120_000 })).stdout.trim();
      };
      const status = async () => JSON.parse(await hive("status", "--output", "json"));
      const dev = node.spawn(["sh", "-c", 'cd "$0" && exec npm run dev', tree]);
      try {
        await dev.waitFor(/^ready /m, 60_000);
        const ami = await hive("image", "build", "tiny", "--cache-dir", IMAGE_CACHE);
        // A daemon that has just started is not whole yet: `hive status` says so by its exit code.
        const stillRunning = () =>
          until(
            async () => (await status().catch(() => undefined))?.instances.running === 1,
            "the machine is found running",
            60_000,
          );
        // The data directory and the endpoint are dev's own: an installed daemon goes on beside it.
        expect(await status()).toMatchObject({ endpoint: "http://127.0.0.1:9998" });
        const { stdout } = await node.exec([
          ...[
            "env",
            "AWS_PROFILE=hive",
            `AWS_CONFIG_FILE=${aws}/config`,
            `AWS_SHARED_CREDENTIALS_FILE=${aws}/credentials`,
          ],
          ...["aws", "--endpoint-url", "http://127.0.0.1:9998", "--output", "text", "ec2", "run-instances"],
          ...["--image-id", ami, "--instance-type", "h1.nano", "--query", "Instances[0].InstanceId"],
        ]);
        const id = stdout.trim();
        await until(async () => (await hive("logs", id).catch(() => "")).includes("HIVE:ready"), "it boots", 180_000);

        const starts = () => dev.output().split("\nready ").length;
        const source = join(tree, "src/lib/units.ts");
        const startsAnew = async (change: () => void) => {
          const before = starts();
          change();
          await until(() => starts() > before, "the daemon starts anew", 60_000);
        };
        await startsAnew(() => appendFileSync(source, "\n// changed\n"));
        await stillRunning();
        appendFileSync(source, "\nconst = ;\n");
        await dev.waitFor(/Expected identifier but found "="/, 60_000);
        await startsAnew(() => cpSync(join(PROJECT, "src/lib/units.ts"), source));
        await stillRunning();
        // It was never booted again.
        expect((await hive("logs", id)).split("HIVE:init")).toHaveLength(2);
      } finally {
        endProcessesIn(tree);
        endMachines(join(tree, ".dev"));
      }
    }),
  300_000,
);

/** npm, its shell and the daemon: whatever works in the tree. */
function endProcessesIn(tree: string): void {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readlinkSync(`/proc/${pid}/cwd`) === tree) process.kill(Number(pid), "SIGKILL");
    } catch {
      // Gone meanwhile.
    }
  }
}
