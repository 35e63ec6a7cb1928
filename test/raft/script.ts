/**
 * Runs scripts against the pure core, and prints what every node says and does. A script is a text of blocks:
 *
 *   # What this shows, with its source.
 *   > nodes a b c
 *   > timeout a
 *   a stands for pre-election (term 1)
 *   > settle
 *   …
 *
 * Lines after `>` are commands; what follows them is the whole transcript, compared word for word. RAFT_SCRIPTS=write
 * rewrites the transcripts, to be reviewed as prose.
 *
 *   nodes A B … [learners C …]     begins anew: a cluster whose logs are empty
 *   log A 1 1 2 [vote B term 3]    A comes up with a durable log of these terms, index 1 first
 *   timeout A                      A's election timeout passes                 wait A MS      A's clock goes on
 *   heartbeat A                    A's heartbeat falls due                    clock A MS     … without A being told
 *   propose A word …               propose if A leads                          read A         transfer A [B]
 *   change A C=voter …             change of the configuration                 lease MS       nodes begun later use leases
 *   deliver A B                    what is on its way from A to B arrives      drop A B       … is lost
 *   double A B                     … arrives twice
 *   settle                         everything arrives, and is answered, until nothing is on its way
 *   cut A B | isolate A | heal     links
 *   hold A | release A             A's disk takes nothing / catches up         refuse A       A's disk is full, once
 *   crash A [lost N]               A comes up again with what is durable; its last N durable entries are found damaged
 *   wipe A                         A comes up with an empty disk under its old name, told that its log is lost
 *   compact A | snapshot A B       A's log goes up to its commit / B receives A's snapshot
 *   halt A                         A's disk fails
 *   show [A …]                     role, term, log, commit
 *   quietly COMMAND                without its transcript, for what another script shows
 */
import { configurationOf, decodeConfiguration, kindOf } from "../../src/cluster/raft/configuration.ts";
import { slice, termAt } from "../../src/cluster/raft/log.ts";
import { configurationOfState, initialState, type RaftState } from "../../src/cluster/raft/state.ts";
import { deadline, step } from "../../src/cluster/raft/step.ts";
import {
  type Configuration,
  type ConfigurationChange,
  DEFAULT_OPTIONS,
  type Entry,
  type HardState,
  type Input,
  type Message,
  type Options,
  type PeerId,
  type Persist,
  type SnapshotPoint,
} from "../../src/cluster/raft/types.ts";
import type { Random } from "../../src/lib/random.ts";

type Node = {
  state: RaftState;
  now: number;
  /** Orders that the disk has not carried out. */
  orders: Persist[];
  isHeld: boolean;
  disk: { hardState: HardState; snapshot: SnapshotPoint; entries: Entry[] };
};

/** Chance that is no chance: every election timeout is electionMs. */
const noChance: Random = { bytes: (count) => new Uint8Array(count) };
const SETTLE_MAX = 10_000;

export class Script {
  readonly #nodes = new Map<PeerId, Node>();
  #wire: Message[] = [];
  #cut = new Set<string>();
  #options: Options = DEFAULT_OPTIONS;
  #reads = 0;
  #lines: string[] = [];

  /** Carries out one command; gives the lines that it printed. */
  run(command: string): readonly string[] {
    this.#lines = [];
    const [verb, ...words] = command.split(/\s+/);
    const [a, b] = words as [string, string];
    switch (verb) {
      case "nodes":
        this.#begin(words);
        break;
      case "log":
        this.#preload(a, words.slice(1));
        break;
      case "timeout":
        this.#advance(a, this.#node(a).state.electionAt - this.#node(a).now);
        break;
      case "heartbeat":
        this.#advance(a, this.#options.heartbeatMs);
        break;
      case "wait":
        this.#advance(a, Number(b));
        break;
      case "clock":
        this.#node(a).now += Number(b);
        break;
      case "lease":
        this.#options = { ...DEFAULT_OPTIONS, leaseDrift: Number(a) };
        break;
      case "propose":
        this.#step(a, {
          type: "propose",
          term: this.#node(a).state.term,
          commands: words.slice(1).map((word) => Buffer.from(word)),
        });
        break;
      case "read":
        this.#step(a, { type: "read", id: ++this.#reads });
        break;
      case "transfer":
        this.#step(a, { type: "transfer", to: b });
        break;
      case "change":
        this.#step(a, { type: "change-configuration", id: 1, change: changeOf(words.slice(1)) });
        break;
      case "deliver":
        this.#take(a, b, 1);
        break;
      case "drop":
        this.#take(a, b, 0);
        break;
      case "double":
        this.#take(a, b, 2);
        break;
      case "settle":
        this.#settle();
        break;
      case "cut":
        this.#cutLinks([`${a} ${b}`, `${b} ${a}`]);
        break;
      case "isolate":
        this.#cutLinks([...this.#nodes.keys()].flatMap((id) => [`${a} ${id}`, `${id} ${a}`]));
        break;
      case "heal":
        this.#cut.clear();
        break;
      case "hold":
        this.#node(a).isHeld = true;
        break;
      case "release":
        this.#node(a).isHeld = false;
        this.#persist(a);
        break;
      case "refuse":
        this.#refuse(a);
        break;
      case "crash":
        this.#crash(a, b === "lost" ? Number(words[2]) : 0);
        break;
      case "wipe":
        this.#wipe(a);
        break;
      case "compact":
        this.#compact(a);
        break;
      case "snapshot":
        this.#snapshot(a, b);
        break;
      case "halt":
        this.#step(a, { type: "halt" });
        break;
      case "quietly":
        this.run(words.join(" "));
        return [];
      case "show":
        for (const id of words.length > 0 ? words : this.#nodes.keys()) this.#show(id);
        break;
      default:
        throw new Error(`"${verb}" is no command`);
    }
    return this.#lines;
  }

  #begin(words: readonly string[]): void {
    this.#nodes.clear();
    this.#wire = [];
    this.#cut.clear();
    const at = words.indexOf("learners");
    const voters = at === -1 ? words : words.slice(0, at);
    const learners = at === -1 ? [] : words.slice(at + 1);
    const configuration = { ...configurationOf(voters), learners };
    for (const id of [...voters, ...learners]) this.#start(id, emptyDisk(configuration), 0);
  }

  #start(id: PeerId, disk: Node["disk"], now: number, recoverThrough?: number): void {
    const state = initialState({
      id,
      options: this.#options,
      hardState: disk.hardState,
      snapshot: disk.snapshot,
      entries: disk.entries,
      previousTerm: disk.snapshot.term,
      recoverThrough,
      now,
      random: noChance,
    });
    this.#nodes.set(id, { state, now, orders: [], isHeld: false, disk });
  }

  #preload(id: PeerId, words: readonly string[]): void {
    const { disk, now } = this.#node(id);
    const after = (word: string) => (words.includes(word) ? words[words.indexOf(word) + 1]! : undefined);
    const end = words.findIndex((word) => !/^\d+$/.test(word));
    const terms = words.slice(0, end === -1 ? words.length : end).map(Number);
    const entries = terms.map((term, i): Entry => ({ index: i + 1, term, data: Buffer.from(`t${term}`) }));
    const term = Number(after("term") ?? terms.at(-1) ?? 0);
    this.#start(id, { ...disk, entries, hardState: { term, vote: after("vote") ?? "" } }, now);
  }

  #node(id: PeerId): Node {
    const node = this.#nodes.get(id);
    if (!node) throw new Error(`there is no node ${id}`);
    return node;
  }

  #advance(id: PeerId, ms: number): void {
    const node = this.#node(id);
    const until = node.now + ms;
    // Everything that falls due on the way happens at its own time.
    for (let i = 0; i < SETTLE_MAX && deadline(node.state) < until && deadline(node.state) > node.now; i++) {
      node.now = deadline(node.state);
      this.#step(id, { type: "tick" });
    }
    node.now = until;
    this.#step(id, { type: "tick" });
  }

  #step(id: PeerId, input: Input): void {
    const node = this.#node(id);
    const before = node.state;
    const { state, effects } = step(before, input, node.now, noChance);
    node.state = state;
    this.#narrate(id, before, state);
    for (const read of effects.reads) {
      this.#say(`${id} read ${read.id}: ${read.index === undefined ? "failed" : `index ${read.index}`}`);
    }
    for (const { index } of effects.changes)
      this.#say(`${id} change: ${typeof index === "number" ? `entry ${index}` : index}`);
    for (const peer of effects.snapshots) this.#say(`${id} has to send ${peer} a snapshot`);
    if (effects.recovered) this.#say(`${id} has recovered`);
    for (const message of effects.send) this.#send(message);
    node.orders.push(...effects.persist);
    for (const { to, from, through } of effects.fetch) {
      const entries = node.disk.entries.filter(({ index }) => index >= from && index <= through);
      this.#step(id, { type: "fetched", to, entries });
    }
    if (!node.isHeld) this.#persist(id);
  }

  #narrate(id: PeerId, before: RaftState, after: RaftState): void {
    const term = after.term;
    if (before.role !== after.role || (before.term !== term && after.role !== "follower")) {
      const what = {
        follower: before.role === "leader" ? "leads no more" : "follows again",
        "pre-candidate": "asks who would vote for it",
        candidate: "stands for election",
        leader: "leads",
      }[after.role];
      this.#say(`${id} ${what} (term ${term})`);
    } else if (before.term !== term) this.#say(`${id} enters term ${term}`);
    if (before.vote !== after.vote && after.vote !== "" && after.vote !== id)
      this.#say(`${id} votes for ${after.vote}`);
    if (after.log.last < before.log.last) this.#say(`${id} cuts its log back to ${after.log.last}`);
    if (before.commit !== after.commit) this.#say(`${id} commits up to ${after.commit}`);
    const [old, now] = [configurationOfState(before), configurationOfState(after)];
    if (JSON.stringify(old) !== JSON.stringify(now)) this.#say(`${id} is in ${configurationText(now)}`);
  }

  /** What is on its way there is lost. */
  #cutLinks(links: readonly string[]): void {
    for (const link of links) this.#cut.add(link);
    this.#wire = this.#wire.filter(({ from, to }) => !this.#cut.has(`${from} ${to}`));
  }

  #send(message: Message): void {
    if (!this.#cut.has(`${message.from} ${message.to}`)) this.#wire.push(message);
  }

  #persist(id: PeerId): void {
    const node = this.#node(id);
    while (!node.isHeld && node.orders.length > 0) {
      const order = node.orders.shift()!;
      write(node.disk, order);
      for (const message of order.send) this.#send(message);
      this.#step(id, { type: "persisted", order: order.order });
    }
  }

  #refuse(id: PeerId): void {
    const node = this.#node(id);
    const order = node.orders[0];
    if (!order) throw new Error(`the disk of ${id} has nothing to refuse (hold it first)`);
    node.orders = [];
    node.isHeld = false;
    this.#step(id, { type: "persist-refused", order: order.order });
  }

  #crash(id: PeerId, lost: number): void {
    const { disk, now } = this.#node(id);
    this.#wire = this.#wire.filter(({ from, to }) => from !== id && to !== id);
    const through = disk.entries.at(-1)?.index;
    if (lost > 0) disk.entries.splice(-lost);
    this.#start(id, disk, now, lost > 0 ? through : undefined);
    this.#say(`${id} comes up (term ${disk.hardState.term})`);
  }

  #wipe(id: PeerId): void {
    const { now, disk } = this.#node(id);
    this.#wire = this.#wire.filter(({ from, to }) => from !== id && to !== id);
    this.#start(id, emptyDisk(disk.snapshot.configuration), now, Number.POSITIVE_INFINITY);
    this.#say(`${id} comes up with nothing`);
  }

  #compact(id: PeerId): void {
    const { state, disk } = this.#node(id);
    const point = {
      index: state.commit,
      term: termAt(state.log, state.commit)!,
      configuration: state.configurations[0]!.configuration,
    };
    disk.snapshot = point;
    disk.entries = disk.entries.filter(({ index }) => index > point.index);
    this.#step(id, { type: "compacted", point });
  }

  #snapshot(from: PeerId, to: PeerId): void {
    const { state, disk } = this.#node(from);
    this.#step(to, { type: "snapshot-received", from, term: state.term, point: disk.snapshot });
    this.#step(from, { type: "snapshot-sent", to, index: disk.snapshot.index });
  }

  #take(from: PeerId, to: PeerId, times: number): void {
    const taken = this.#wire.filter((message) => message.from === from && message.to === to);
    if (taken.length === 0) throw new Error(`nothing is on its way from ${from} to ${to}`);
    this.#wire = this.#wire.filter((message) => !taken.includes(message));
    for (const message of taken) for (let i = 0; i < times; i++) this.#deliver(message);
  }

  #deliver(message: Message): void {
    if (!this.#nodes.has(message.to)) return;
    this.#say(messageText(message));
    this.#step(message.to, { type: "message", message });
  }

  #settle(): void {
    for (let i = 0; this.#wire.length > 0; i++) {
      if (i > SETTLE_MAX) throw new Error("it never settles");
      this.#deliver(this.#wire.shift()!);
    }
  }

  #show(id: PeerId): void {
    const { state } = this.#node(id);
    const { log } = state;
    const kept = slice(log, log.base.index + 1, log.last, Number.POSITIVE_INFINITY) ?? [];
    const base = log.base.index > 0 ? `…${log.base.index}/${log.base.term} ` : "";
    const entries = kept.map(
      (entry) => `${entry.term}${kindOf(entry) === "command" ? `:${Buffer.from(entry.data)}` : ""}`,
    );
    this.#say(`${id} ${state.role}, term ${state.term}, commit ${state.commit}, log ${base}[${entries.join(" ")}]`);
  }

  #say(line: string): void {
    this.#lines.push(line);
  }
}

const emptyDisk = (configuration: Configuration): Node["disk"] => ({
  hardState: { term: 0, vote: "" },
  snapshot: { index: 0, term: 0, configuration },
  entries: [],
});

function write(disk: Node["disk"], { restart, truncateAfter, entries, hardState }: Persist): void {
  if (restart) {
    disk.snapshot = restart;
    disk.entries = [];
  }
  if (truncateAfter !== undefined) disk.entries = disk.entries.filter(({ index }) => index <= truncateAfter);
  disk.entries.push(...entries);
  if (hardState) disk.hardState = hardState;
}

function changeOf(words: readonly string[]): ConfigurationChange {
  return Object.fromEntries(words.map((word) => word.split("="))) as ConfigurationChange;
}

function configurationText({ voters, outgoing, learners, joining }: Configuration): string {
  const parts = [`[${voters.join(" ")}]`];
  if (outgoing.length > 0) parts.push(`with outgoing [${outgoing.join(" ")}]`);
  if (learners.length > 0) parts.push(`learners [${learners.join(" ")}]`);
  if (joining.length > 0) parts.push(`joining [${joining.join(" ")}]`);
  return parts.join(" ");
}

function entryText(entry: Entry): string {
  if (kindOf(entry) === "noop") return `${entry.term}`;
  return kindOf(entry) === "configuration"
    ? `${entry.term}:${configurationText(decodeConfiguration(entry.data))}`
    : `${entry.term}:${Buffer.from(entry.data)}`;
}

function messageText(message: Message): string {
  const { from, to, term } = message;
  return `  ${from}→${to} ${bodyText(message)} (term ${term})`;
}

function bodyText(message: Message): string {
  switch (message.type) {
    case "pre-vote":
    case "vote":
      return `${message.type}, log ends ${message.lastIndex}/${message.lastTerm}`;
    case "pre-vote-reply":
    case "vote-reply":
      return `${message.type}: ${message.granted ? "yes" : "no"}`;
    case "append": {
      const entries = message.entries.map(entryText).join(" ");
      return `append after ${message.prevIndex}/${message.prevTerm} [${entries}] commit ${message.commit}`;
    }
    case "append-reply":
      return `has ${message.match}`;
    case "append-refused":
      return `refuses ${message.prevIndex}, hint ${message.hintIndex}/${message.hintTerm}`;
    case "read":
      return `read ${message.id}`;
    case "read-reply":
      return `read ${message.id}: ${message.index ?? "failed"}`;
    case "timeout-now":
      return "timeout-now";
  }
}

/** The cases of a file: each begins with a comment, and with nothing of the one before. */
export const casesOf = (text: string): string[] => text.trimEnd().split(/\n\n(?=#)/);

/** A case with its transcripts as they come out now. */
export function transcribe(text: string): string {
  const script = new Script();
  const out: string[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) out.push(line);
    else if (line.startsWith(">")) {
      const command = line.slice(1).trim();
      out.push(`> ${command}`);
      try {
        out.push(...script.run(command));
      } catch (error) {
        out.push(`! ${error instanceof Error ? error.message : error}`);
      }
    } else if (line === "") out.push("");
  }
  return out.join("\n");
}
