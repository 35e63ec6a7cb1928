/**
 * Who seems to be there: the words of Hive's gossip.
 *
 * SWIM (Das, Gupta, Motivala, DSN 2002): every node probes one other a period, asks a few more to try before it suspects, and
 * tells what it learned by riding on the probes, so that a node's load does not grow with the cluster. Lifeguard (Dadgar,
 * Phillips, Currey, 2018) makes slow nodes doubt themselves first: a local health multiplier stretches their own time-outs,
 * a suspicion lives the shorter the more nodes confirm it, and whoever is suspected hears so first (the buddy system).
 * Anti-entropy repairs what chance left out, and peers that seem dead are asked again now and then, so that a split heals.
 *
 * Gossip suggests; it decides nothing. Membership of consensus is in the Raft log, and only there.
 *
 * What a member's state is follows from (incarnation, status), and the greatest wins: alive < suspect < dead < left at equal
 * incarnation. That is a lattice, so rumours may come late, doubled and in any order. Only the node itself raises its
 * incarnation: to refute, and to begin a new life.
 *
 * Where this departs from the papers, and why:
 *  - Every other probe goes to the next member in the order of ids, the ones between to a random one, as in SWIM. A crash is
 *    thus met by somebody's probe within 2 periods. By chance alone the wait is exponential: its 99th percentile is 4.6 periods.
 *  - The proxies' nacks are evidence of their own. They travel in the suspicion as its witnesses, so that a crash is confirmed at
 *    once, and Lifeguard's long wait is left for suspicions that one node alone has.
 *  - Witnesses keep pinging whom they suspect, with the accusation in the ping, and so does everybody else in the second half of
 *    the time. Rumours reach nearly all nodes, not all; whom a refutation did not reach would pronounce a false verdict.
 *  - A node measures how late its own timers are. The time it was away counts for nobody's time-out, and what it asked before
 *    is forgotten: a process that was stopped accuses no one. What it measured it announces (the fact `stall`), and the
 *    others have that much more patience with it.
 *  - A verdict counts where its suspicion was heard before. Death out of the blue, or told in anti-entropy, makes a suspicion that
 *    the accused can refute: after a split each side would otherwise take over the other's verdicts on its own living.
 *  - Urgent rumours carry no facts. Facts ride where there is room, are told less often, and are repaired by anti-entropy, which
 *    compares hashes first, then digests, and sends records only where they differ.
 *  - Any contact from somebody who is held for less than alive, or for younger than known, is answered with what is held
 *    against it. (Left out in hashicorp/memberlist #311, nodes stayed dead for hours after a mass restart.)
 *
 * The defaults (DEFAULT_OPTIONS) are for one site: round trips well below probeTimeoutMs. They spend 5 s on a crash: up to 2 probe
 * periods until somebody's probe meets it (1 s), a probe that fails (0.5 s), a suspicion that is confirmed (2 s and 0.4 s a
 * decade of members: 2.8 s at 100), and the rest on bad luck. The suspicion is most of it on purpose: it is how long a process
 * may stand still, without any warning, before it is called dead. One that has announced its stalls may for half as long again
 * as the longest of them, and longer. The other durations follow: a rumour needs about 0.5 s to reach 100 nodes at gossipMs,
 * so that accusation and refutation fit into a suspicion several times. `test/sim/gossip` measures all of this.
 */

/** Names one life of one node's disk. 1 to NAME_BYTES_MAX of `A-Z a-z 0-9 . _ -`, a letter or digit first. */
export type NodeId = string;
/** Where a node's gossip socket is: `192.0.2.1:7946` or `[2001:db8::1]:7946`. */
export type Address = string;
/** Whole milliseconds on this node's own monotonic clock. Never compared between nodes. */
export type Ms = number;
/** A node's own count of its lives and refutations. Starts at the wall clock's milliseconds, so that a new life wins at once. */
export type Incarnation = number;

/** In order of precedence at equal incarnation. */
export const STATUSES = ["alive", "suspect", "dead", "left"] as const;
export type Status = (typeof STATUSES)[number];

/** One thing that a node says of itself. Facts are versioned one by one; an empty value is a fact withdrawn. */
export type Fact = { readonly name: string; readonly version: number; readonly value: string };

/** What is told of a member: complete in itself, whoever hears it. */
export type Rumor = {
  readonly id: NodeId;
  readonly address: Address;
  readonly incarnation: Incarnation;
  readonly status: Status;
  /** Of a suspect: who could not reach it, each by its own probe. At most WITNESSES_MAX. */
  readonly witnesses: readonly NodeId[];
  /** Of the dead and those who left: seconds since, rounded up, so that nothing is remembered for ever by being retold. */
  readonly ageSeconds: number;
  /** Some of its facts, sorted by name. */
  readonly facts: readonly Fact[];
};

/** One member in a comparison of what two nodes know. */
export type DigestEntry = {
  readonly id: NodeId;
  readonly incarnation: Incarnation;
  readonly status: Status;
  /** Over names and versions of its facts; 32 bits. */
  readonly factsHash: number;
};

export type MessageBody =
  /** Are you `to`, and there? Another node that took over the address does not answer. */
  | { readonly type: "ping"; readonly seq: number; readonly to: NodeId }
  | { readonly type: "ack"; readonly seq: number }
  /** Asks a proxy to ping `target`, and to pass its ack on. */
  | { readonly type: "ping-request"; readonly seq: number; readonly target: NodeId; readonly targetAddress: Address }
  /** A proxy has had no answer so far: it is there itself, and a witness. */
  | { readonly type: "nack"; readonly seq: number }
  /** Rumours and nothing else. */
  | { readonly type: "gossip" }
  /** Opens anti-entropy, also how one joins: answered with digests by who knows something else. `hash` is over all members. */
  | { readonly type: "sync"; readonly hash: number }
  /** All members that the sender knows with `after` < id <= `through`, sorted; `through` is empty in the last of them. */
  | {
      readonly type: "digest";
      readonly after: NodeId;
      readonly through: NodeId;
      readonly entries: readonly DigestEntry[];
    }
  /** The receiver knows more of these. */
  | { readonly type: "want"; readonly ids: readonly NodeId[] }
  /** Its rumours are an answer in anti-entropy: hearsay. */
  | { readonly type: "records" };

/** Every message says who sends, from where, and in which incarnation; rumours ride on any of them. */
export type Message = MessageBody & {
  readonly from: NodeId;
  readonly address: Address;
  readonly incarnation: Incarnation;
  readonly rumors: readonly Rumor[];
};

export type Input =
  /** Time went by. To be given at `deadline(state)`: how late it comes is how well this node is. */
  | { readonly type: "tick" }
  /** From an authenticated node of this cluster. */
  | { readonly type: "message"; readonly message: Message }
  /** Where others may be. They are asked until they are members, and again whenever they are not; SEEDS_MAX at most. */
  | { readonly type: "join"; readonly seeds: readonly Address[] }
  /** New values of this node's facts (`checkFacts` holds). Those that are not named stay. Told at most every `factsMs`. */
  | { readonly type: "facts"; readonly values: { readonly [name: string]: string } }
  /** Say good-bye; `left` follows among the events when that has been told. */
  | { readonly type: "leave" };

export type GossipEvent =
  /** A member is new (`before` is undefined) or has another status. */
  | { readonly type: "status"; readonly id: NodeId; readonly before: Status | undefined; readonly status: Status }
  | { readonly type: "facts"; readonly id: NodeId; readonly names: readonly string[] }
  /** Dead or gone for so long that it is no longer known. */
  | { readonly type: "forgotten"; readonly id: NodeId }
  /** This node was held for `accusation`, and has said that it is alive. */
  | { readonly type: "refuted"; readonly accusation: Status; readonly incarnation: Incarnation }
  /** Another node goes by this node's id, at that address. */
  | { readonly type: "conflict"; readonly address: Address }
  /** This node did not run for `ms`. */
  | { readonly type: "stalled"; readonly ms: Ms }
  /** There is no room for this member (MEMBERS_MAX). */
  | { readonly type: "full"; readonly id: NodeId }
  /** This node has said good-bye, and may stop. */
  | { readonly type: "left" };

/** Everything in it may go out at once, in order. */
export type Effects = {
  readonly send: readonly { readonly to: Address; readonly message: Message }[];
  readonly events: readonly GossipEvent[];
};

export type Options = {
  /** One probe a period, of a member chosen by chance and of the next in order by turns. */
  readonly probeMs: Ms;
  /** Without an ack for this long, `proxies` others are asked to try. Above the round trip of the network. */
  readonly probeTimeoutMs: Ms;
  /** Without an ack for this much longer, the member is suspected. */
  readonly indirectTimeoutMs: Ms;
  readonly proxies: number;
  /** While there is news of who lives, it goes to `fanout` members this often. */
  readonly gossipMs: Ms;
  readonly fanout: number;
  /**
   * Each node passes a rumour on this often times log10 of the members: 12 times at 100, so that with 5 % loss one in 100,000 does
   * not hear it. With memberlist's 4 it is one in 2,000, and every twentieth crash is late news to somebody.
   */
  readonly retransmits: number;
  /** The same for facts, which anti-entropy repairs soon enough. They ride on other messages only. */
  readonly factRetransmits: number;
  /** A confirmed suspicion lives for suspicionMs, and suspicionDecadeMs more for each power of ten in the number of members. */
  readonly suspicionMs: Ms;
  readonly suspicionDecadeMs: Ms;
  /** One that nobody confirms lives this many times as long. */
  readonly suspicionFactor: number;
  /** Further witnesses that make a suspicion a confirmed one. */
  readonly confirmations: number;
  /** Lifeguard's S: own time-outs stretch up to this many times and one. */
  readonly localHealthMax: number;
  /** A timer that comes later than this was a pause of the whole process. */
  readonly lateMs: Ms;
  /** What the others know of announced stalls wears off by half in this time. */
  readonly stallMemoryMs: Ms;
  /** Anti-entropy with one member by chance; rarer above 32 members, as their log2. */
  readonly syncMs: Ms;
  /** One of those who seem dead, or a seed that isn't a member, is asked again. */
  readonly rejoinMs: Ms;
  /** Own facts are told at most this often; from 100 members on, this much times members / 100. */
  readonly factsMs: Ms;
  /** The dead and those who left are known for this long, so that nothing stale brings them back. */
  readonly deadMemoryMs: Ms;
};

export const DEFAULT_OPTIONS: Options = {
  probeMs: 500,
  probeTimeoutMs: 200,
  indirectTimeoutMs: 300,
  proxies: 3,
  gossipMs: 200,
  fanout: 3,
  retransmits: 6,
  factRetransmits: 2,
  suspicionMs: 2000,
  suspicionDecadeMs: 400,
  suspicionFactor: 4,
  confirmations: 2,
  localHealthMax: 8,
  lateMs: 250,
  stallMemoryMs: 60_000,
  syncMs: 10_000,
  rejoinMs: 10_000,
  factsMs: 10_000,
  deadMemoryMs: 24 * 3_600_000,
};

export const NAME_BYTES_MAX = 64;
export const ADDRESS_BYTES_MAX = 64;
/** 2^48 - 1: milliseconds until the year 10889. */
export const INCARNATION_MAX = 2 ** 48 - 1;
/** In one message. */
export const RUMORS_MAX = 255;
export const WITNESSES_MAX = 5;
export const FACTS_MAX = 16;
export const FACT_VALUE_BYTES_MAX = 512;
/** All facts of one node, names and values: a whole record fits into one message. */
export const FACTS_BYTES_MAX = 900;
export const MEMBERS_MAX = 5000;
/** The dead and those who left among them. */
export const DEAD_MAX = 1000;
export const SEEDS_MAX = 64;
/** An encoded message. With what sealing adds, a frame has at most 1,400 bytes: one Ethernet packet, tunnelled too. */
export const MESSAGE_BYTES_MAX = 1339;

/** The fact by which a node announces how long, in ms, it has lately stood still. Set by the core alone. */
export const STALL_FACT = "stall";
/** Announced stalls count up to this. */
export const STALL_MS_MAX = 16_000;
