/** `hive console` and `hive logs` as a person uses them: in a terminal, on one tiny guest. */
import { beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { HIVE, until } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { printed, sharedHive, tinyImage } from "../support/shared-hive.ts";
import { openTerminal, type Terminal, terminalUnavailable } from "../support/terminal.ts";

const lacks = nodeUnavailable() ?? terminalUnavailable();
if (lacks) console.log(`skipped: the console's tests: ${lacks}`);
const CTRL_RIGHT_BRACKET = "\x1d";
/** busybox asks the terminal behind its prompt where the cursor is. */
const PROMPT = new RegExp(`~# (${"\x1b"}\\[6n)?$`);

describe.skipIf(lacks !== undefined)("hive console", () => {
  const shared = sharedHive();
  let id = "";
  beforeAll(async () => {
    const ami = await tinyImage(shared());
    const launched = await shared().aws("ec2", "run-instances", "--image-id", ami, "--instance-type", "h1.nano");
    id = launched.Instances[0].InstanceId;
    await printed(shared(), id, "HIVE:ready");
  }, 300_000);

  const environment = () => [
    "env",
    "AWS_PROFILE=hive",
    `AWS_CONFIG_FILE=${join(shared().dataDir, "aws/config")}`,
    `AWS_SHARED_CREDENTIALS_FILE=${join(shared().dataDir, "aws/credentials")}`,
  ];
  const open = (...words: string[]): Terminal => openTerminal(shared().node, [...environment(), HIVE, ...words]);
  const connected = async (terminal: Terminal) => {
    await terminal.waitFor(/Ctrl-\] detaches/);
    return terminal;
  };
  /** Presses Enter until the guest's shell prompts. */
  const atPrompt = async (terminal: Terminal) => {
    terminal.type("\r");
    await terminal.waitFor(PROMPT, 60_000);
  };
  /** What the guest's shell answers; computed, so that the echo of what was typed is no answer. */
  const answers = async (terminal: Terminal, a: number, b: number) => {
    terminal.type(`echo $((${a} * ${b}))\r`);
    await terminal.waitFor(new RegExp(`\\b${a * b}\\b`));
  };

  test("typing runs a command in the guest, and a new size of the window does no harm", async () => {
    const terminal = await connected(open("console", id));
    await atPrompt(terminal);
    await answers(terminal, 6, 7);
    terminal.resize(132, 43);
    await answers(terminal, 17, 19);
    terminal.type(CTRL_RIGHT_BRACKET);
    expect(await terminal.ended()).toBe(0);
    expect(terminal.shown()).toContain("[detached]");
  }, 120_000);

  test("Ctrl-C goes to the guest, not to hive", async () => {
    const terminal = await connected(open("console", id));
    await atPrompt(terminal);
    // Once it runs: while the shell edits a line, Ctrl-C is a key like any other.
    terminal.type("echo $((11 * 13)); sleep 1000\r");
    await terminal.waitFor(/\b143\b/);
    terminal.type("\x03");
    await answers(terminal, 23, 29);
    expect(terminal.exit).toBeUndefined();
    terminal.type(CTRL_RIGHT_BRACKET);
    expect(await terminal.ended()).toBe(0);
  }, 120_000);

  test.each([
    ["the detach key", (terminal: Terminal) => terminal.type(CTRL_RIGHT_BRACKET), /code=0\s+restored=yes/],
    ["SIGTERM", (_: Terminal, pid: number) => process.kill(pid, "SIGTERM"), /code=143\s+restored=yes/],
  ])(
    "the terminal is as it was after %s",
    async (_, end, code) => {
      const pidFile = join(shared().node.directory, "console.pid");
      const script = [
        "before=$(stty -g)",
        `sh -c 'echo $$ >${pidFile}; exec "$0" "$@"' "$@"`,
        'echo "code=$?"; [ "$(stty -g)" = "$before" ] && echo restored=yes || echo restored=no',
      ].join("\n");
      const terminal = openTerminal(shared().node, [...environment(), "sh", "-c", script, "sh", HIVE, "console", id]);
      await connected(terminal);
      const pid = Number(readFileSync(pidFile, "utf8"));
      // Raw: the kernel neither echoes nor waits for the end of a line.
      const settings = shared().node.exec(["stty", "-a", "-F", `/proc/${pid}/fd/0`]);
      expect((await settings).stdout).toMatch(/-icanon[\s\S]* -echo /);
      end(terminal, pid);
      await terminal.waitFor(code);
      expect(await terminal.ended()).toBe(0);
    },
    60_000,
  );

  test("several watch and type at the same time, and a window that is closed abruptly disturbs nobody", async () => {
    const [first, second] = [await connected(open("console", id)), await connected(open("console", id))];
    await atPrompt(first);
    first.type("echo $((31 * 37))\r");
    await Promise.all([first.waitFor(/\b1147\b/), second.waitFor(/\b1147\b/)]);
    second.type("echo $((41 * 43))\r");
    await Promise.all([first.waitFor(/\b1763\b/), second.waitFor(/\b1763\b/)]);

    second.hangUp();
    await second.ended();
    await answers(first, 47, 53);
    const third = await connected(open("console", id));
    // Who comes later sees the end of what was said before.
    await until(() => third.shown().includes("2491"), "the third console shows what was said before");
    for (const terminal of [first, third]) terminal.type(CTRL_RIGHT_BRACKET);
    expect(await Promise.all([first.ended(), third.ended()])).toEqual([0, 0]);
  }, 120_000);

  test("hive logs prints everything from the boot on, also to a reader that is slow", async () => {
    const terminal = await connected(open("console", id));
    await atPrompt(terminal);
    terminal.type(
      "i=0; while [ $i -lt 3000 ]; do echo line $i of many, to fill the pipe; i=$((i+1)); done; echo all $((3 + 4))\r",
    );
    await terminal.waitFor(/all 7/, 60_000);
    terminal.type(CTRL_RIGHT_BRACKET);
    await terminal.ended();
    const logs = async (reader: string) => {
      const script = `"$0" logs "$1" | ${reader}`;
      return (await shared().node.exec([...environment(), "sh", "-c", script, HIVE, id])).stdout;
    };
    const slowly = await logs("(sleep 1; cat)");
    expect(slowly.length).toBeGreaterThan(60_000);
    expect(slowly).toMatch(/line 2999 of many[\s\S]*all 7/);
    expect(slowly).toBe(await logs("cat"));
  }, 120_000);

  test("as JSON, what the console said is one object", async () => {
    const logs = JSON.parse(await shared().hive("logs", id, "--output", "json"));
    expect(logs).toEqual({ instanceId: id, output: expect.stringContaining("line 2999 of many") });
  });

  test("a reader of hive logs that leaves ends it quietly", async () => {
    const said = join(shared().node.directory, "said");
    const script = '("$0" logs -f "$1" 2>"$2"; echo "code=$?" >>"$2") | head -c 10';
    const node = shared().node;
    const running = node.spawn([...environment(), "sh", "-c", script, HIVE, id, said]);
    // The next line that the guest says is what cannot be written.
    await until(() => existsSync(said), "hive logs has started");
    const terminal = await connected(open("console", id));
    await until(async () => {
      await answers(terminal, 59, 61);
      return readFileSync(said, "utf8").includes("code=");
    }, "hive logs -f ends");
    expect(readFileSync(said, "utf8")).toBe("code=0\n");
    terminal.type(CTRL_RIGHT_BRACKET);
    await terminal.ended();
    await running.kill();
  }, 60_000);

  test("a piped console types what it's given, and leaves with the input's end", async () => {
    const script = '(printf "echo \\$((67 * 71))\\n"; sleep 3) | "$0" console "$1"';
    const { stdout, stderr } = await shared().node.exec([...environment(), "sh", "-c", script, HIVE, id]);
    expect(stdout).toMatch(/\b4757\b/);
    expect(stderr).toContain("[the input has ended]");
  }, 60_000);

  test("logs -f and console end when the machine does, and say so", async () => {
    const [logs, terminal] = [open("logs", "-f", id), await connected(open("console", id))];
    await logs.waitFor(/line 2999 of many/);
    await shared().aws("ec2", "terminate-instances", "--instance-ids", id);
    expect(await terminal.ended(90_000)).toBe(0);
    expect(terminal.shown()).toContain("[the machine has ended]");
    expect(await logs.ended()).toBe(0);
  }, 120_000);

  test("an instance that is not there is named in a sentence", async () => {
    const terminal = open("console", "i-0123456789abcdef0");
    expect(await terminal.ended()).toBe(1);
    expect(terminal.shown()).toMatch(/The instance ID 'i-0123456789abcdef0' does not exist/);
  });
});
