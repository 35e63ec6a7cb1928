/** The command line as a stranger tries it, with no daemon to talk to: help, wrong usage, and what to do next. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/host/run.ts";
import { HIVE } from "../support/hive.ts";

/** Runs `hive` as a user with no AWS configuration, against an endpoint where nothing listens. */
async function hive(words: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const done = await run([HIVE, ...words], {
    env: { HOME: "/nonexistent", AWS_PROFILE: "", HIVE_ENDPOINT: "http://127.0.0.1:1", ...env },
    timeoutMs: 30_000,
  });
  if (!done.ok) throw new Error(done.error.message);
  return done.value;
}

const VERBS = [
  ...["server", "quickstart", "image", "image build", "image import", "status", "doctor", "console", "logs", "config"],
  ...["get", "set", "delete", "list", "history", "watch"].map((verb) => `config ${verb}`),
];

describe("hive", () => {
  test.each(VERBS)("%s --help says how it is used, on stdout", async (verb) => {
    const { code, stdout, stderr } = await hive([...verb.split(" "), "--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toStartWith(`Usage: hive ${verb}`);
    // Every option has words, and every verb that prints data prints JSON too.
    for (const line of stdout.split("\n").filter((text) => /^ {2}-/.test(text)))
      expect(line).toMatch(/^ {2}-\S.* {2,}\S|^ {2}-\S.*>$/);
    if (!["server", "image", "console", "config"].includes(verb)) expect(stdout).toContain("--output <format>");
  });

  test("--help lists every verb, and --version tells the version alone", async () => {
    const { stdout } = await hive(["--help"]);
    for (const verb of VERBS) expect(stdout).toMatch(new RegExp(`^ {2}${verb.split(" ")[0]}\\b`, "m"));
    expect((await hive(["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  const wrong: [string, RegExp][] = [
    ["", /^Usage: hive/],
    ["image", /^Usage: hive image/],
    ["lunch", /unknown command 'lunch'/],
    ["sttus", /Did you mean status\?/],
    ["--fast", /unknown option '--fast'/],
    ["status now", /too many arguments/],
    ["status --output yaml", /Allowed choices are text, json/],
    ["console", /missing required argument 'instance-id'/],
    ["console vm1", /An instance id is written i-0123456789abcdef0/],
    ["logs ../../etc/passwd", /An instance id is written/],
    ["image build arch", /Hive builds tiny and debian-12/],
    ["image import disk.raw", /required option '--name <name>'/],
    ["--endpoint localhost:9999 status", /An endpoint is a URL such as http/],
    ["server --role=king", /there is no role "king"/],
    ["server --role=compute", /add the role config/],
    ["server --role=compute,vpc,config", /add the role gateway/],
    ["server --role=gateway,config,compute", /give both compute and vpc/],
    ["server --network user", /--network user is not there yet/],
    ["server --accel fast", /Allowed choices are auto, kvm, tcg, none/],
    ["server --account-id 12", /twelve digits/],
    ["server --listen nine", /written host:port/],
    ["server --config-listen nine", /configListen: nine is written host:port/],
    ["server --region Mars", /region: is written as in us-east-1/],
  ];
  test.each(wrong)("wrong usage is refused with 2 and a sentence: hive %s", async (line, sentence) => {
    const { code, stdout, stderr } = await hive(line.split(" ").filter((word) => word !== ""));
    expect(stderr).toMatch(sentence);
    expect([code, stdout]).toEqual([2, ""]);
  });

  const needDaemon = ["status", "logs i-0123456789abcdef0", "console i-0123456789abcdef0", "image build tiny"];
  test.each([...needDaemon, "image import /etc/hostname --name x", "config get k", "config watch"])(
    "without a daemon hive %s fails at once, and says how to start one",
    async (line) => {
      const { code, stdout, stderr } = await hive(line.split(" "));
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toBe(
        "hive: no daemon answers at http://127.0.0.1:1 (the connection is refused). " +
          "Start one with `hive server`, or name another with --endpoint\n",
      );
    },
  );

  test.each([
    "--endpoint URL status",
    "status --endpoint URL",
    "config get k --endpoint URL",
    "image --endpoint URL build tiny",
  ])("the endpoint is named anywhere: hive %s", async (line) => {
    const { code, stderr } = await hive(line.replace("URL", "http://127.0.0.1:2").split(" "));
    expect(stderr).toStartWith("hive: no daemon answers at http://127.0.0.1:2 ");
    expect(code).toBe(1);
  });

  test("an endpoint of the environment that is no URL is wrong usage", async () => {
    const { code, stderr } = await hive(["status"], { HIVE_ENDPOINT: "nowhere" });
    expect(stderr).toMatch(/the endpoint nowhere is not a URL/);
    expect(code).toBe(2);
  });

  test("another program at the endpoint is told from a daemon", async () => {
    const other = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("hello", { status: 404 }) });
    try {
      const { code, stderr } = await hive(["status"], { HIVE_ENDPOINT: `http://127.0.0.1:${other.port}` });
      expect(stderr).toMatch(/what answers at .* is not Hive/);
      expect(code).toBe(1);
    } finally {
      await other.stop(true);
    }
  });

  test("hive server names what is wrong in a configuration, and where", async () => {
    const directory = mkdtempSync(join(tmpdir(), "hive-cli-"));
    try {
      const config = join(directory, "hive.yaml");
      const serve = () => hive(["server", "--config", config, "--data-dir", join(directory, "data")]);
      expect(await serve()).toMatchObject({ code: 1, stderr: expect.stringContaining(`${config} cannot be read`) });
      writeFileSync(config, "acel: tcg\n");
      expect(await serve()).toMatchObject({ code: 2, stderr: expect.stringMatching(/acel/) });
      writeFileSync(config, "network: [");
      expect(await serve()).toMatchObject({ code: 2, stderr: expect.stringContaining(`${config} is not YAML`) });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
