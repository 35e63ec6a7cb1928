/** `hive quickstart` as a newcomer meets it: on a host where nothing runs yet, in a terminal that is then closed. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { present } from "../../src/lib/assert.ts";
import { endMachines, HIVE, IMAGE_CACHE } from "../support/hive.ts";
import { nodeUnavailable, type TestNode, withNode } from "../support/netns.ts";
import { openTerminal, terminalUnavailable } from "../support/terminal.ts";

const lacks = nodeUnavailable() ?? terminalUnavailable();
if (lacks) console.log(`skipped: hive quickstart's tests: ${lacks}`);

/** Colours, and what rewrites a line. */
const ESCAPES = new RegExp(`${"\x1b"}\\[[0-9;]*[A-Za-z]`, "g");

describe.skipIf(lacks !== undefined)("hive quickstart", () => {
  const finish = Promise.withResolvers<void>();
  let ended: Promise<void> = Promise.resolve();
  let node: TestNode;
  let dataDir = "";
  beforeAll(async () => {
    const up = Promise.withResolvers<void>();
    ended = withNode(async (made) => {
      node = made;
      chmodSync(node.directory, 0o711); // QEMU's own user passes through to its machine's folder
      dataDir = join(node.directory, "data");
      // All is fresh but the packages, which this node's network would not reach.
      mkdirSync(dataDir, { mode: 0o711 });
      symlinkSync(IMAGE_CACHE, join(dataDir, "cache"));
      up.resolve();
      await finish.promise.finally(() => {
        endServers(dataDir);
        endMachines(dataDir);
      });
    });
    ended.catch(up.reject);
    await up.promise;
  }, 60_000);
  afterAll(async () => {
    finish.resolve();
    await ended;
  }, 60_000);

  const environment = () => ["env", `HOME=${node.directory}`];
  const quickstart = () => [...environment(), HIVE, "quickstart", "--data-dir", dataDir];
  /** The AWS CLI as the command's text says, for one of any age. */
  const instances = async (): Promise<string[]> => {
    const { stdout } = await node.exec([
      ...[...environment(), ...profile(dataDir), "aws", "--endpoint-url", "http://127.0.0.1:9999"],
      ...[
        "ec2",
        "describe-instances",
        "--query",
        "Reservations[].Instances[].[InstanceId,State.Name]",
        "--output",
        "text",
      ],
    ]);
    return stdout.trim().split("\n");
  };
  let screen = "";
  let id = "";

  test("without Open vSwitch it says what to start, and starts nothing", async () => {
    const { code, stderr } = await node.try([...environment(), `OVS_RUNDIR=${node.directory}/none`, ...quickstart()]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/Open vSwitch does not answer[^\n]*\n {2}→ .*(ovs-ctl start|systemctl start)/);
    expect(stderr).toContain("hive doctor");
    expect(readdirSync(dataDir)).toEqual(["cache"]);
  });

  test("in a terminal it goes from nothing to a machine, and shows each step", async () => {
    const shell = ["sh", "-c", '"$@"; echo "code=$?"; cat', "sh", ...quickstart()];
    const terminal = openTerminal(node, shell);
    await terminal.waitFor(/code=\d/, 240_000);
    screen = terminal.shown().replace(ESCAPES, "");
    for (const step of [
      "Hive server: started",
      "Building the image tiny",
      "Registering",
      "Key pair",
      "Security group",
    ]) {
      expect(screen).toMatch(new RegExp(`✓ ${step}[^\\n]* [0-9.]+ s`));
    }
    // The console from its first line to the user data's.
    expect(screen).toMatch(/HIVE:init[\s\S]*this line was written by user data[\s\S]*HIVE:ready/);
    expect(screen).toContain("Your machine is up.");
    expect(screen).toContain("code=0");
    id = present(/hive console (i-[0-9a-f]{17})/.exec(screen), "the console's command is shown")[1]!;

    // The window is closed: the server and its machine go on.
    terminal.hangUp();
    await terminal.ended();
    expect(await instances()).toEqual([`${id}\trunning`]);
  }, 300_000);

  test("the ssh command that it prints works", async () => {
    const words = present(/^ *ssh (-i .*)$/m.exec(screen), "an ssh command is shown")[1]!
      .trim()
      .split(" ");
    const { stdout } = await node.exec(["ssh", "-o", "UserKnownHostsFile=/dev/null", ...words, "cat", "/etc/motd"]);
    expect(stdout).toMatch(/^Hello from ip-172-31-\d+-\d+: this line was written by user data/);
  }, 60_000);

  test("run again it finds everything done, and in a pipe it prints plain lines", async () => {
    const { stdout, stderr } = await node.exec([...quickstart(), "--output", "json"], { timeoutMs: 120_000 });
    expect(JSON.parse(stdout)).toMatchObject({ instanceId: id, endpoint: "http://127.0.0.1:9999" });
    expect(stderr).not.toContain("\x1b");
    expect(stderr).toContain("✓ Hive server: answers at http://127.0.0.1:9999\n");
    expect(stderr).toContain(`✓ Machine: ${id} is up already\n`);
    expect(await instances()).toEqual([`${id}\trunning`]);
  }, 120_000);

  test("only root reads keys, and QEMU's user reaches its images", async () => {
    const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const { stdout } = await node.try([...asNobody, "find", dataDir, "-type", "f", "-readable"]);
    const readable = stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((path) => path.slice(dataDir.length + 1));
    expect(readable.filter((path) => !/^(node-id$|snapshots\/)/.test(path))).toEqual([]);
    for (const path of ["aws/credentials", "aws/config", "hive-quickstart.pem", "hive.log", "keys/sealing"]) {
      expect([path, statSync(join(dataDir, path)).mode & 0o777]).toEqual([path, 0o600]);
    }
    expect(statSync(dataDir).mode & 0o777).toBe(0o711);
    const snapshot = present(readdirSync(join(dataDir, "snapshots"))[0], "the image's files are there");
    await node.exec([...asNobody, "head", "-c", "4", join(dataDir, "snapshots", snapshot, "disk.qcow2")]);
  });

  test("hive doctor and hive status say that all is well, as text and as JSON", async () => {
    const hive = (...words: string[]) => node.exec([...environment(), ...profile(dataDir), HIVE, ...words]);
    expect((await hive("status")).stdout).toMatch(/instances +1 running/);
    expect(JSON.parse((await hive("status", "--output", "json")).stdout)).toMatchObject({
      endpoint: "http://127.0.0.1:9999",
      network: { ok: true },
      store: { writable: true },
      instances: { running: 1 },
    });
    const { checks } = JSON.parse((await hive("doctor", "--output", "json", "--data-dir", dataDir)).stdout);
    expect(checks.filter((check: { status: string }) => check.status === "fail")).toEqual([]);
  }, 60_000);
});

const profile = (dataDir: string) => [
  "AWS_PROFILE=hive",
  `AWS_CONFIG_FILE=${dataDir}/aws/config`,
  `AWS_SHARED_CREDENTIALS_FILE=${dataDir}/aws/credentials`,
];

/** Ends the servers of a data directory, by the command line that each was started with. */
function endServers(dataDir: string): void {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words.includes("server") && words.includes(dataDir)) process.kill(Number(pid), "SIGKILL");
    } catch {
      // Gone meanwhile.
    }
  }
}
