/** `hive config`: the configuration store, and in it the cluster's own settings. */
import { isUtf8 } from "node:buffer";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { DescribedSetting, RemovalView, SettingsPage, SettingView, WatchLine } from "../operator/config-routes.ts";
import { CommandFailed, type Connection, hiveRequest } from "./connection.ts";
import { dim, type OutputFormat, print, say, table, writeOut } from "./output.ts";

type Version = SettingView | RemovalView;

interface Options {
  readonly output: OutputFormat;
}
interface ConditionOptions extends Options {
  readonly ifVersion?: number;
  readonly ifRevision?: number;
}

/** A value has at most a mebibyte; more is not read to be told so. */
const STDIN_BYTES_MAX = 2 * 1024 * 1024;
const SHOWN_CHARS_MAX = 60;
const RECONNECT_MS = [200, 1000, 5000];

const output = () => new Option("--output <format>", "how data is printed").choices(["text", "json"]).default("text");

/** Adds `config` and its verbs. */
export function addConfigCommands(program: Command, connect: () => Promise<Connection>): void {
  const config = program
    .command("config")
    .description("read, write and watch settings: the cluster's own (hive/…) and those of its programs")
    .addHelpText(
      "after",
      `
Examples:
  hive config list --schema                      the cluster's own settings, and what they take
  hive config set hive/log/level debug --ttl 600 log more for ten minutes
  hive config set app/greeting - <greeting.txt   a value from a file
  hive config set app/leader me --if-version 0   only if nobody else has set it
  hive config watch app/                         follow what happens`,
    );

  config
    .command("get")
    .description("print a setting's value")
    .argument("<key>", "the setting's key")
    .option("--version <n>", "the value at this version, if it is still remembered", wholeNumber)
    .addOption(output())
    .action(async (key: string, { version, output: format }: Options & { version?: number }) => {
      const query = { key, ...(version !== undefined && { version: String(version) }) };
      const found = (await ask(await connect(), "GET", "setting", query)) as Version;
      if (format === "json") print(JSON.stringify(found));
      else if ("removed" in found) throw new CommandFailed(`At version ${found.version} ${key} was ${found.removed}.`);
      else await writeOut(found.base64 === undefined ? `${found.value}\n` : Buffer.from(found.base64, "base64"));
    });

  config
    .command("set")
    .description("write a setting")
    .argument("<key>", "1 to 512 printable ASCII characters, no space")
    .argument("<value>", "the value; - reads it from stdin, to the last byte")
    .option("--ttl <seconds>", "remove it after so many seconds", seconds)
    .option("--if-version <n>", "only if it is at this version; 0: only if it is not there", wholeNumber)
    .option("--if-revision <n>", "only if this revision of the store wrote it last", wholeNumber)
    .addOption(output())
    .addHelpText("after", "\nA value that begins with a dash comes after two: hive config set key -- -5")
    .action(async (key: string, value: string, options: ConditionOptions & { ttl?: number }) => {
      const content = value === "-" ? contentOf(await readStdin()) : { value };
      const { ttl, ifVersion, ifRevision } = options;
      const body = {
        ...content,
        ...(ttl !== undefined && { ttlSeconds: ttl }),
        ...condition({ ifVersion, ifRevision }),
      };
      const set = (await ask(await connect(), "PUT", "setting", { key }, JSON.stringify(body))) as SettingView;
      print(options.output === "json" ? JSON.stringify(set) : `version ${set.version}`);
    });

  config
    .command("delete")
    .description("remove a setting; what it was stays in its history")
    .argument("<key>", "the setting's key")
    .option("--if-version <n>", "only if it is at this version", wholeNumber)
    .option("--if-revision <n>", "only if this revision of the store wrote it last", wholeNumber)
    .addOption(output())
    .action(async (key: string, { ifVersion, ifRevision, output: format }: ConditionOptions) => {
      const wanted = Object.entries(condition({ ifVersion, ifRevision })).map(([name, n]) => [name, String(n)]);
      const query = { key, ...Object.fromEntries(wanted) };
      const removed = (await ask(await connect(), "DELETE", "setting", query)) as RemovalView;
      print(format === "json" ? JSON.stringify(removed) : `version ${removed.version}`);
    });

  config
    .command("list")
    .description("list settings in the order of their keys")
    .argument("[prefix]", "only keys that begin so", "")
    .option("--schema", "the cluster's own settings: what they take, their defaults, and when a change acts", false)
    .addOption(output())
    .action(async (prefix: string, { schema, output: format }: Options & { schema: boolean }) => {
      const connection = await connect();
      if (schema) await listSchema(connection, prefix, format);
      else await list(connection, prefix, format);
    });

  config
    .command("history")
    .description("list what is remembered of a setting, its removals included, the newest first")
    .argument("<key>", "the setting's key")
    .addOption(output())
    .action(async (key: string, { output: format }: Options) => {
      const { versions } = (await ask(await connect(), "GET", "history", { key })) as { versions: readonly Version[] };
      if (format === "json") print(JSON.stringify({ versions }));
      else print(table([["VERSION", "REVISION", "WHEN", "BY", "VALUE"], ...versions.map(historyRow)]));
    });

  config
    .command("watch")
    .description("print what happens to settings, a line each, until interrupted")
    .argument("[prefix]", "only keys that begin so", "")
    .option("--from-revision <n>", "begin after this revision of the store, not with what happens next", wholeNumber)
    .addOption(output())
    .action(async (prefix: string, { fromRevision, output: format }: Options & { fromRevision?: number }) => {
      await watch(await connect(), prefix, fromRevision, format);
    });
}

const condition = ({ ifVersion, ifRevision }: { ifVersion: number | undefined; ifRevision: number | undefined }) => ({
  ...(ifVersion !== undefined && { ifVersion }),
  ...(ifRevision !== undefined && { ifRevision }),
});

/** One request to the routes below `/_hive/config`. @throws CommandFailed with the daemon's own sentence */
async function ask(
  connection: Connection,
  method: string,
  route: string,
  query: Readonly<Record<string, string>>,
  body?: string,
): Promise<unknown> {
  return (await hiveRequest(connection, method, pathOf(route, query), body)).json();
}

const pathOf = (route: string, query: Readonly<Record<string, string>>): string => {
  const search = new URLSearchParams(query).toString();
  return `/_hive/config${route && `/${route}`}${search && `?${search}`}`;
};

async function list(connection: Connection, prefix: string, format: OutputFormat): Promise<void> {
  const settings: SettingView[] = [];
  let revision = 0;
  let after: string | undefined;
  do {
    const page = (await ask(connection, "GET", "", { prefix, ...(after !== undefined && { after }) })) as SettingsPage;
    settings.push(...page.settings);
    revision = page.revision;
    after = page.next;
  } while (after !== undefined);
  if (format === "json") print(JSON.stringify({ revision, settings }));
  else if (settings.length > 0) {
    print(
      table([["KEY", "VERSION", "VALUE"], ...settings.map((one) => [one.key, String(one.version), shownValue(one)])]),
    );
  }
}

async function listSchema(connection: Connection, prefix: string, format: OutputFormat): Promise<void> {
  const all = (await ask(connection, "GET", "schema", {})) as { settings: readonly DescribedSetting[] };
  const settings = all.settings.filter(({ key }) => key.startsWith(prefix));
  if (format === "json") {
    print(JSON.stringify({ settings }));
    return;
  }
  const rows = settings.map((one) => [
    one.key,
    one.value ?? "",
    one.default,
    one.effect,
    `${one.about}: ${one.allowed}`,
  ]);
  print(table([["KEY", "SET TO", "DEFAULT", "ACTS", "WHAT IT IS"], ...rows]));
}

const historyRow = (version: Version): string[] => [
  String(version.version),
  String(version.modRevision ?? ""),
  version.at,
  version.by,
  "removed" in version ? version.removed : shownValue(version),
];

/** On one line, and not longer than a line. */
function shownValue({ value, base64 }: SettingView): string {
  if (value === undefined) return `(${Buffer.from(base64 ?? "", "base64").length} bytes)`;
  const line = /[\p{Cc}]/u.test(value) ? JSON.stringify(value) : value;
  return line.length > SHOWN_CHARS_MAX ? `${line.slice(0, SHOWN_CHARS_MAX)}…` : line;
}

/** Follows a watch until it is interrupted or nobody reads. A connection that breaks is made anew where it was. */
async function watch(
  connection: Connection,
  prefix: string,
  fromRevision: number | undefined,
  format: OutputFormat,
): Promise<void> {
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, interrupt);
  const position = new WatchPosition(fromRevision);
  for (let failures = 0; !interrupted.signal.aborted; failures++) {
    try {
      const from = position.from === undefined ? {} : { fromRevision: String(position.from) };
      const path = pathOf("watch", { prefix, ...from });
      const response = await hiveRequest(connection, "GET", path, undefined, interrupted.signal);
      for await (const line of linesOf(response)) {
        failures = 0;
        if (!position.isNew(line)) continue;
        const text = watchText(line, format);
        if (text !== undefined && !(await writeOut(`${text}\n`))) return;
      }
    } catch (cause) {
      if (interrupted.signal.aborted) return;
      // What the daemon itself refuses, it would refuse again.
      if (cause instanceof CommandFailed && cause.code !== "NoDaemon") throw cause;
      if (position.from === undefined) throw cause;
    }
    if (interrupted.signal.aborted) return;
    if (failures === 0) say(dim("the connection is lost; trying again"));
    await Promise.race([
      Bun.sleep(RECONNECT_MS[Math.min(failures, RECONNECT_MS.length - 1)]!),
      aborted(interrupted.signal),
    ]);
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

/**
 * Where a watch goes on after a break. One revision may have several lines, and a break may come between them: the revision is
 * then asked for again, and what was seen of it is passed over. A break while everything is told anew begins that anew.
 */
export class WatchPosition {
  /** The last revision that was seen whole. */
  from: number | undefined;
  /** The revision of the last line, and how many of its lines were seen in all and since the last break. */
  #revision = -1;
  #seen = 0;
  #seenAgain = 0;
  #isAnew = false;

  constructor(from: number | undefined) {
    this.from = from;
  }

  /** Takes note of a line. False when it was seen before a break, or only tells the position. */
  isNew(line: WatchLine): boolean {
    const { revision } = line;
    if (line.event === "compacted") {
      this.#isAnew = true;
      return true;
    }
    if (line.event === "at") {
      this.#seenAgain = 0;
      // At the begin of a watch that was cut within a revision, this is the one before.
      if (revision < this.#revision && !this.#isAnew) return false;
      this.#isAnew = false;
      this.from = revision;
      this.#revision = -1;
      return false;
    }
    if (this.#isAnew) return true;
    if (revision !== this.#revision) {
      this.from = revision - 1;
      this.#revision = revision;
      this.#seen = 0;
      this.#seenAgain = 0;
    }
    this.#seenAgain++;
    if (this.#seenAgain <= this.#seen) return false;
    this.#seen = this.#seenAgain;
    return true;
  }
}

/** The objects of an answer that is one a line. */
async function* linesOf(response: Response): AsyncGenerator<WatchLine> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of response.body ?? []) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield JSON.parse(line) as WatchLine;
  }
}

function watchText(line: WatchLine, format: OutputFormat): string | undefined {
  if (line.event === "at") return undefined;
  if (format === "json") return JSON.stringify(line);
  if (line.event === "compacted") return `${line.revision} (what came before is no longer known; all settings follow)`;
  return `${line.revision} ${line.event} ${line.key}${line.event === "set" ? ` ${shownValue(line)}` : ""}`;
}

async function readStdin(): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of Bun.stdin.stream()) {
    bytes += chunk.length;
    if (bytes > STDIN_BYTES_MAX)
      throw new CommandFailed("The value on stdin is too large: a value has at most a mebibyte.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const contentOf = (bytes: Buffer) =>
  isUtf8(bytes) ? { value: bytes.toString("utf8") } : { base64: bytes.toString("base64") };

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("It is a whole number.");
  return Number(text);
}

function seconds(text: string): number {
  const count = wholeNumber(text);
  if (count < 1 || count > 31_536_000) throw new InvalidArgumentError("It is 1 to 31536000 seconds, a year.");
  return count;
}
