/**
 * Gossip on a real network: one UDP socket, the process's clock, and the endpoint between them. What arrives is hostile until its
 * frame has opened; what is refused is counted, and logged as a sum now and then. UDP may lose anything, and so may this: a
 * datagram that the kernel doesn't take at once is dropped.
 */
import { lookup } from "node:dns/promises";
import { isIPv4, isIPv6 } from "node:net";
import type { Clock } from "../../lib/clock.ts";
import type { Log, Secret } from "../../lib/log.ts";
import type { Metrics } from "../../lib/metrics.ts";
import type { Random } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { checkFacts, isAddress, isName } from "../gossip/check.ts";
import { type MemberView, membersOf, viewOf } from "../gossip/state.ts";
import {
  type Address,
  DEFAULT_OPTIONS,
  type GossipEvent,
  type Ms,
  type NodeId,
  type Options,
  SEEDS_MAX,
  STALL_FACT,
  STATUSES,
} from "../gossip/types.ts";
import { GossipEndpoint } from "./gossip-endpoint.ts";
import { type GossipKey, installKey, type KeyId, type Ring, removeKey, replaceKeys, useKey } from "./gossip-keyring.ts";

export type GossipStart = {
  /** Nodes of another cluster are not heard. */
  readonly clusterId: string;
  /** One life of one disk: `isName` holds. */
  readonly id: NodeId;
  /** IP address to listen on. */
  readonly host: string;
  /** 0: any. */
  readonly port: number;
  /** IP address at which the others reach this node; `host` when absent. */
  readonly advertise?: string;
  /** `host:port`, by name or number: where others may be. Names are looked up now and again. */
  readonly seeds: readonly string[];
  /** 16 characters or more, from a generator and not from a head. */
  readonly joinSecret?: Secret;
  /** `newRing` on the first node, `ringChanged`'s last on one that was there before, absent on one that joins. */
  readonly ring?: Ring;
  readonly facts: { readonly [name: string]: string };
  readonly options?: Partial<Options>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics?: Metrics;
  /** Keeps the ring for the next start, where only this node can read it. */
  readonly ringChanged?: (ring: Ring) => void;
};

export interface Gossip {
  readonly id: NodeId;
  /** Where the others reach it. */
  readonly address: Address;
  /** Everybody known, sorted by id, this node included. A suggestion: who is a member of consensus, its log says. */
  members(): readonly MemberView[];
  /** Calls `listener` for what changes from now on; returns how to stop. */
  onEvent(listener: (event: GossipEvent) => void): () => void;
  /** Changes facts of this node; those not named stay. Fails with a sentence. */
  setFacts(values: { readonly [name: string]: string }): Result<void, string>;
  /** Other seeds from now on. */
  join(seeds: readonly string[]): void;
  readonly keyring: {
    /** Undefined until this node has joined. */
    ring(): Ring | undefined;
    /** Each makes a new ring here, which reaches the others within seconds; fails with a sentence. */
    install(key: GossipKey): Result<Ring, string>;
    use(id: KeyId): Result<Ring, string>;
    remove(id: KeyId): Result<Ring, string>;
    replace(key: GossipKey): Result<Ring, string>;
  };
  /** Datagrams that were dropped, by reason, since the start. */
  refusals(): { readonly [reason: string]: number };
  /** Says good-bye, then closes. Within 3 seconds. */
  leave(): Promise<void>;
  /** Stops without a word: to the others, this is a crash. */
  close(): Promise<void>;
}

const JOIN_SECRET_CHARS_MIN = 16;
const LOOKUP_MS: Ms = 30_000;
const LOG_MS: Ms = 10_000;
/** Timers of the runtime are not trusted with more. */
const SLEEP_MS_MAX: Ms = 60_000;
const LEAVE_MS_MAX: Ms = 4000;
/** A tick that broke an invariant will break it again. */
const AFTER_FAILURE_MS: Ms = 1000;

/** Opens the socket and joins. Fails with a sentence where the arguments can't be, or the address is taken. */
export async function startGossip(start: GossipStart): Promise<Result<Gossip, string>> {
  const wrong = checkStart(start);
  if (wrong !== undefined) return fail(wrong);
  const runtime = new Runtime(start);
  const opened = await runtime.open();
  return opened.ok ? ok(runtime) : opened;
}

function checkStart(start: GossipStart): string | undefined {
  const { id, host, advertise = host, joinSecret, ring, facts, clusterId } = start;
  const checked = checkFacts(facts);
  if (!checked.ok) return checked.error;
  if (!isName(id)) return `"${id}" can't be a node's id`;
  if (clusterId.length < 1 || clusterId.length > 256) return "a cluster's id has 1 to 256 characters";
  if (!isIPv4(host) && !isIPv6(host)) return `gossip listens on an IP address, and "${host}" is none`;
  if (!isIPv4(advertise) && !isIPv6(advertise))
    return `"${advertise}" is no IP address at which others could reach this node`;
  if (/^(0\.0\.0\.0|[0:]+)$/.test(advertise)) return `${advertise} is every address: say which one the others reach`;
  if (joinSecret && joinSecret.reveal().length < JOIN_SECRET_CHARS_MIN) {
    return `the join secret is shorter than ${JOIN_SECRET_CHARS_MIN} characters`;
  }
  if (!joinSecret && !ring) return "a node needs the join secret or a ring of keys";
  return undefined;
}

const addressOf = (host: string, port: number): Address => (isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`);

/** The two halves of an address, or of a seed; undefined where it has no port. */
function hostAndPort(text: string): { readonly host: string; readonly port: number } | undefined {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]{1,253})):(\d{1,5})$/.exec(text);
  const port = Number(parts?.[3]);
  return parts && port > 0 && port < 65536 ? { host: parts[1] ?? parts[2]!, port } : undefined;
}

class Runtime implements Gossip {
  readonly id: NodeId;
  address: Address = "";
  readonly #start: GossipStart;
  #endpoint!: GossipEndpoint;
  #socket!: Bun.udp.Socket<"buffer">;
  #isClosed = false;
  /** Interrupts the sleep, which ends at `#wakeAt` otherwise. */
  #sleep = new AbortController();
  #wakeAt: Ms = 0;
  #loops: Promise<unknown>[] = [];
  /** Port and address follow each datagram, as sendMany takes them. */
  #outbox: (Uint8Array | number | string)[] = [];
  readonly #listeners = new Set<(event: GossipEvent) => void>();
  readonly #refusals: { [reason: string]: number } = {};
  #refusalsLogged = 0;
  #seeds: readonly string[];
  readonly #metrics: ReturnType<typeof countersOf> | undefined;

  constructor(start: GossipStart) {
    this.id = start.id;
    this.#start = start;
    this.#seeds = start.seeds;
    this.#metrics = start.metrics && countersOf(start.metrics, () => this.members());
  }

  async open(): Promise<Result<void, string>> {
    const {
      host,
      port,
      advertise = host,
      clock,
      clusterId,
      joinSecret,
      ring,
      facts,
      options,
      random,
      log,
    } = this.#start;
    const early: [Uint8Array, Address][] = [];
    let receive = (frame: Uint8Array, source: Address) => {
      if (early.length < 100) early.push([frame, source]);
    };
    try {
      this.#socket = await Bun.udpSocket({
        hostname: host,
        port,
        socket: {
          data: (_socket, frame, fromPort, fromHost) => receive(frame, addressOf(fromHost, fromPort)),
          // What could not be delivered comes back as an error, of nobody's frame in particular.
          error: () => this.#metrics?.errors.add([]),
        },
      });
    } catch (error) {
      return fail(`gossip can't listen on ${addressOf(host, port)}: ${error instanceof Error ? error.message : error}`);
    }
    this.address = addressOf(advertise, this.#socket.port);
    const numbers = this.#seeds.filter(isAddress);
    this.#endpoint = new GossipEndpoint(
      {
        clusterId,
        id: this.id,
        address: this.address,
        incarnation: Math.floor(clock.now()),
        facts,
        seeds: numbers.filter((seed) => seed !== this.address),
        joinSecret,
        ring,
        options: { ...DEFAULT_OPTIONS, ...options },
        random,
        log,
        now: Math.floor(clock.monotonicMs()),
      },
      {
        send: (to, frame) => this.#put(to, frame),
        event: (event) => this.#note(event),
        ringChanged: (changed) => this.#start.ringChanged?.(changed),
        refused: (reason) => this.#refused(reason),
      },
    );
    receive = (frame, source) => this.#do((now) => this.#endpoint.receive(frame, source, now));
    for (const [frame, source] of early) receive(frame, source);
    log.info("gossip.listening", { address: this.address, nodeId: this.id });
    this.#loops = [this.#tick(), this.#lookUpSeeds(), this.#logRefusals()];
    return ok(undefined);
  }

  members(): readonly MemberView[] {
    return membersOf(this.#endpoint.state);
  }

  onEvent(listener: (event: GossipEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  setFacts(values: { readonly [name: string]: string }): Result<void, string> {
    const { self, factsWaiting } = this.#endpoint.state;
    const { [STALL_FACT]: _measured, ...told } = viewOf(self).facts;
    const checked = checkFacts({ ...told, ...factsWaiting, ...values });
    if (checked.ok) this.#do((now) => this.#endpoint.input({ type: "facts", values }, now));
    return checked;
  }

  join(seeds: readonly string[]): void {
    this.#seeds = seeds.slice(0, SEEDS_MAX);
    void this.#resolveSeeds();
  }

  readonly keyring: Gossip["keyring"] = {
    ring: () => this.#endpoint.ring,
    install: (key) => this.#endpoint.changeRing((ring) => installKey(ring, key)),
    use: (id) => this.#endpoint.changeRing((ring) => useKey(ring, id)),
    remove: (id) => this.#endpoint.changeRing((ring) => removeKey(ring, id)),
    replace: (key) => this.#endpoint.changeRing((ring) => replaceKeys(ring, key)),
  };

  refusals(): { readonly [reason: string]: number } {
    return { ...this.#refusals };
  }

  async leave(): Promise<void> {
    if (this.#isClosed) return;
    const told = new AbortController();
    const stop = this.onEvent((event) => {
      if (event.type === "left") told.abort();
    });
    this.#do((now) => this.#endpoint.input({ type: "leave" }, now));
    await this.#start.clock.sleep(LEAVE_MS_MAX, told.signal);
    stop();
    await this.close();
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#closing.abort();
      this.#sleep.abort();
      this.#socket.close();
    }
    await Promise.all(this.#loops);
  }
  readonly #closing = new AbortController();

  /**
   * Lets the endpoint work, then sends what came of it, in one call, and looks when it is due next. A broken invariant is logged,
   * and the state stays what it was: no datagram ends the process, not even one that shows a defect.
   */
  #do(work: (now: Ms) => void): boolean {
    if (this.#isClosed) return true;
    let isDone = true;
    try {
      work(this.#start.clock.monotonicMs());
    } catch (error) {
      isDone = false;
      if (this.#mayLog("failed")) this.#start.log.error("gossip.failed", { error });
    }
    this.#flush();
    if (this.#endpoint.deadline() < this.#wakeAt) this.#sleep.abort();
    return isDone;
  }

  async #tick(): Promise<void> {
    const { clock } = this.#start;
    while (!this.#isClosed) {
      this.#sleep = new AbortController();
      this.#wakeAt = this.#endpoint.deadline();
      const waitMs = Math.ceil(this.#wakeAt - clock.monotonicMs());
      if (waitMs > 0) await clock.sleep(Math.min(waitMs, SLEEP_MS_MAX), this.#sleep.signal);
      if (this.#endpoint.deadline() > clock.monotonicMs()) continue;
      const isDone = this.#do((now) => this.#endpoint.input({ type: "tick" }, now));
      if (!isDone) await clock.sleep(AFTER_FAILURE_MS, this.#closing.signal);
    }
  }

  async #lookUpSeeds(): Promise<void> {
    while (!this.#isClosed && this.#seeds.some((seed) => !isAddress(seed))) {
      await this.#resolveSeeds();
      await this.#start.clock.sleep(LOOKUP_MS, this.#closing.signal);
    }
  }

  async #resolveSeeds(): Promise<void> {
    const { log } = this.#start;
    const resolved = await Promise.all(
      this.#seeds.slice(0, SEEDS_MAX).map(async (seed): Promise<Address[]> => {
        if (isAddress(seed)) return [seed];
        const parts = hostAndPort(seed);
        if (!parts) {
          log.warn("gossip.seed-malformed", { seed });
          return [];
        }
        try {
          const found = await lookup(parts.host, { all: true });
          return found.map(({ address }) => addressOf(address, parts.port));
        } catch (error) {
          log.warn("gossip.seed-unknown", { seed, error });
          return [];
        }
      }),
    );
    const seeds = [...new Set(resolved.flat())];
    const { state } = this.#endpoint;
    const isNews = seeds.some((seed) => seed !== this.address && !state.seeds.includes(seed));
    if (isNews) this.#do((now) => this.#endpoint.input({ type: "join", seeds }, now));
  }

  async #logRefusals(): Promise<void> {
    while (!this.#isClosed) {
      await this.#start.clock.sleep(LOG_MS, this.#closing.signal);
      const sum = Object.values(this.#refusals).reduce((total, count) => total + count, 0);
      if (sum > this.#refusalsLogged) this.#start.log.warn("gossip.frames-refused", { ...this.#refusals });
      this.#refusalsLogged = sum;
    }
  }

  #put(to: Address, frame: Uint8Array): void {
    const parts = hostAndPort(to);
    if (parts) this.#outbox.push(frame, parts.port, parts.host);
  }

  #flush(): void {
    const packets = this.#outbox;
    if (packets.length === 0) return;
    this.#outbox = [];
    this.#metrics?.sent.add([], packets.length / 3);
    try {
      this.#socket.sendMany(packets);
    } catch {
      // One of them can't be sent (no route, another address family), or an earlier one was answered with an error, which the
      // kernel reports on the next call, whoever that is for. Each by itself, then, and once more: the report is used up.
      for (let at = 0; at < packets.length; at += 3)
        this.#sendOne(packets.slice(at, at + 3)) || this.#sendOne(packets.slice(at, at + 3));
    }
  }

  #sendOne(packet: (Uint8Array | number | string)[]): boolean {
    try {
      this.#socket.sendMany(packet);
      return true;
    } catch {
      this.#metrics?.errors.add([]);
      return false;
    }
  }

  #note(event: GossipEvent): void {
    const { log } = this.#start;
    if (event.type === "status" && event.id !== this.id) {
      const { id, before, status } = event;
      // At a loss of some percent, somebody is suspected every few minutes, and refutes.
      const isRoutine = status === "suspect" || before === "suspect";
      log[isRoutine && status !== "dead" ? "debug" : "info"]("gossip.member", { memberId: id, before, status });
    } else if (event.type === "stalled") log.warn("gossip.stalled", { stallMs: event.ms });
    else if (event.type === "conflict" && this.#mayLog("conflict")) {
      log.error("gossip.id-conflict", { nodeId: this.id, ownAddress: this.address, otherAddress: event.address });
    } else if (event.type === "full" && this.#mayLog("full")) log.error("gossip.full", { memberId: event.id });
    else if (event.type === "refuted") log.info("gossip.refuted", { accusation: event.accusation });
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        log.error("gossip.listener-failed", { error });
      }
    }
  }

  readonly #loggedAt = new Map<string, Ms>();

  /** What may come with every datagram is logged once a while. */
  #mayLog(what: string): boolean {
    const now = this.#start.clock.monotonicMs();
    if (now - (this.#loggedAt.get(what) ?? Number.NEGATIVE_INFINITY) < LOG_MS) return false;
    this.#loggedAt.set(what, now);
    return true;
  }

  #refused(reason: string): void {
    this.#refusals[reason] = (this.#refusals[reason] ?? 0) + 1;
    this.#metrics?.refused.add([reason]);
  }
}

function countersOf(metrics: Metrics, members: () => readonly MemberView[]) {
  for (const status of STATUSES) {
    metrics.observedGauge(
      `hive_gossip_members_${status}`,
      `Members that this node holds for ${status}.`,
      () => members().filter((member) => member.status === status).length,
    );
  }
  return {
    sent: metrics.counter("hive_gossip_frames_sent_total", "Gossip frames sent."),
    refused: metrics.counter("hive_gossip_frames_refused_total", "Datagrams dropped, by reason.", ["reason"]),
    errors: metrics.counter("hive_gossip_send_errors_total", "Datagrams that the kernel refused or could not deliver."),
  };
}
