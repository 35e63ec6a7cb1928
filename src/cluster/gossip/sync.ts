/**
 * Anti-entropy: two nodes find out what one of them lacks, without telling each other all they know.
 *
 *   A → B  sync: the hash over all members           equal: nothing to do, and B stays silent
 *   B → A  digests: incarnation, status and facts' hash of every member, in ranges of ids that each fit into one frame
 *   A → B  records that are news to B, and the ids of which A wants more
 *   B → A  records
 *
 * No step remembers the one before, so any frame may be lost: the next round brings the rest. A range says who is in it and who
 * is not. Joining is the same exchange with an address instead of a member, and so is the attempt to find somebody again
 * who seems dead.
 */
import { below, jittered } from "./chance.ts";
import { bodyBytes, digestEntryBytes, factBytes, rumorBytes } from "./codec.ts";
import { type Draft, held, send, somePeers } from "./draft.ts";
import { findMember, isPresent, type Member, positionOf, supersedes } from "./members.ts";
import { hasPeers } from "./state.ts";
import {
  type Address,
  type DigestEntry,
  type Fact,
  MESSAGE_BYTES_MAX,
  type Message,
  type MessageBody,
  type Ms,
  NAME_BYTES_MAX,
  type NodeId,
  type Rumor,
} from "./types.ts";

/** Sync and want messages that are answered in a second: everybody may come back at the same time. */
const ANSWERS_MAX = 100;
const JOIN_MS: Ms = 500;
const JOIN_MS_MAX: Ms = 5000;
/** Seeds that one who is alone asks at a time. */
const JOIN_AT_ONCE = 3;

/** Who learned of strangers compares with a few others soon: there may be more, and answers may have been lost. */
export function compareSoon(d: Draft): void {
  d.eagerSyncs = EAGER_SYNCS;
  d.syncAt = Math.min(d.syncAt, d.now + EAGER_MS);
}
const EAGER_SYNCS = 3;
const EAGER_MS: Ms = 2000;

/** Compares with one member by chance. */
export function startSync(d: Draft): void {
  d.eagerSyncs = Math.max(d.eagerSyncs - 1, 0);
  const scale = d.presentCount <= 32 ? 1 : 1 + Math.ceil(Math.log2(d.presentCount / 32));
  d.syncAt = d.now + jittered(d.turn.random, d.eagerSyncs > 0 ? EAGER_MS : d.options.syncMs * scale);
  const [peer] = somePeers(d, 1, () => true);
  if (peer) send(d, peer.address, peer.id, { type: "sync", hash: d.hash });
}

/**
 * Asks one of those that should be there and aren't: seeds that are no members, and the dead. By chance, in proportion to how
 * many of them there are for each member, so that a big cluster doesn't pester one dead node; after a split there are many.
 */
export function rejoin(d: Draft): void {
  const absent = absentees(d);
  if (hasPeers(d)) {
    const isHopeful = d.now < d.hopeUntil;
    d.joinAttempts = 0;
    d.rejoinAt = d.now + jittered(d.turn.random, isHopeful ? HOPE_MS : d.options.rejoinMs);
    if (absent.length === 0 || (!isHopeful && below(d.turn.random, d.presentCount) >= absent.length)) return;
    ask(d, absent[below(d.turn.random, absent.length)]!, []);
    return;
  }
  const ms = absent.length > 0 ? Math.min(JOIN_MS * 2 ** d.joinAttempts, JOIN_MS_MAX) : d.options.rejoinMs;
  d.rejoinAt = d.now + jittered(d.turn.random, ms);
  d.joinAttempts = Math.min(d.joinAttempts + 1, 16);
  for (let i = 0; i < JOIN_AT_ONCE && absent.length > 0; i++) {
    const [absentee] = absent.splice(below(d.turn.random, absent.length), 1);
    ask(d, absentee!, [held(d, d.self, "all")]);
  }
}

/** Where one comes back from the dead, a split may have healed: the others are asked too, for a while. */
export function hope(d: Draft): void {
  if (!d.members.some((member) => member.status === "dead")) return;
  d.hopeUntil = d.now + HOPES * HOPE_MS;
  d.rejoinAt = Math.min(d.rejoinAt, d.now + HOPE_MS);
}
const HOPE_MS: Ms = 1000;
const HOPES = 5;

type Absentee = { readonly address: Address; readonly id: NodeId | undefined };

function absentees(d: Draft): Absentee[] {
  const absent: Absentee[] = [];
  for (const address of d.seeds) {
    const isHere = d.members.some((member) => member.address === address && isPresent(member));
    if (!isHere) absent.push({ address, id: undefined });
  }
  for (const { status, address, id } of d.members) if (status === "dead") absent.push({ address, id });
  return absent;
}

function ask(d: Draft, { address, id }: Absentee, rumors: readonly Rumor[]): void {
  send(d, address, id, { type: "sync", hash: d.hash }, rumors);
}

function mayAnswer(d: Draft): boolean {
  if (d.now - d.answersAt >= 1000) {
    d.answersAt = d.now;
    d.answers = 0;
  }
  return d.answers++ < ANSWERS_MAX;
}

export function onSync(d: Draft, message: Message & { readonly type: "sync" }): void {
  if (message.hash === d.hash || !mayAnswer(d)) return;
  // Both ends of a range are names, and may be as long as those in it.
  const roomMax = roomFor(d, { type: "digest", after: "", through: "", entries: [] }) - 2 * NAME_BYTES_MAX;
  let after = "";
  let entries: DigestEntry[] = [];
  let bytes = 0;
  const flush = (through: NodeId) => {
    send(d, message.address, message.from, { type: "digest", after, through, entries });
    after = through;
    entries = [];
    bytes = 0;
  };
  for (const member of d.members) {
    if (member.hash === 0) continue;
    const entry = digestOf(member);
    if (bytes + digestEntryBytes(entry) > roomMax) flush(entries.at(-1)!.id);
    entries.push(entry);
    bytes += digestEntryBytes(entry);
  }
  flush("");
}

const digestOf = ({ id, incarnation, status, factsHash }: Member): DigestEntry => ({
  id,
  incarnation,
  status,
  factsHash,
});

/** Walks both lists of a range at once: what I know better goes back, what the other knows better is asked for. */
export function onDigest(d: Draft, message: Message & { readonly type: "digest" }): void {
  const { after, through, entries } = message;
  if (!isSorted(after, through, entries)) return;
  const news: Member[] = [];
  const wanted: NodeId[] = [];
  let at = after === "" ? 0 : positionOf(d.members, after);
  if (after !== "" && d.members[at]?.id === after) at++;
  const mineUntil = (end: NodeId) => {
    while (at < d.members.length && (end === "" || d.members[at]!.id < end)) {
      const member = d.members[at++]!;
      if (member.hash !== 0) news.push(member);
    }
  };
  for (const entry of entries) {
    mineUntil(entry.id);
    const mine = d.members[at]?.id === entry.id ? d.members[at++] : undefined;
    if (!mine || (mine.hash === 0 && supersedes(entry, mine))) wanted.push(entry.id);
    else if (mine.hash === 0) continue;
    else if (supersedes(mine, entry)) news.push(mine);
    else if (supersedes(entry, mine)) wanted.push(entry.id);
    if (mine && mine.hash !== 0 && mine.factsHash !== entry.factsHash) {
      if (news.at(-1) !== mine) news.push(mine);
      if (wanted.at(-1) !== entry.id) wanted.push(entry.id);
    }
  }
  if (through === "") mineUntil("");
  sendRecords(d, message.address, message.from, news);
  sendWanted(d, message.address, message.from, wanted);
}

function isSorted(after: NodeId, through: NodeId, entries: readonly DigestEntry[]): boolean {
  let previous = after;
  for (const { id } of entries) {
    if (id <= previous || (through !== "" && id > through)) return false;
    previous = id;
  }
  return true;
}

export function onWant(d: Draft, message: Message & { readonly type: "want" }): void {
  if (!mayAnswer(d)) return;
  const members = message.ids.map((id) => findMember(d.members, id)).filter((member) => member !== undefined);
  sendRecords(d, message.address, message.from, members);
}

/** Room in a message for an answer. */
function roomFor(d: Draft, body: MessageBody): number {
  const { id, address } = d.self;
  return MESSAGE_BYTES_MAX - bodyBytes({ from: id, address, ...body });
}

function sendRecords(d: Draft, to: Address, id: NodeId, members: readonly Member[]): void {
  const roomMax = roomFor(d, { type: "records" });
  let batch: Rumor[] = [];
  let room = roomMax;
  const put = (rumor: Rumor) => {
    const bytes = rumorBytes(rumor);
    if (bytes > room && batch.length > 0) {
      send(d, to, id, { type: "records" }, batch);
      batch = [];
      room = roomMax;
    }
    batch.push(rumor);
    room -= bytes;
  };
  for (const member of members) {
    // Its facts mostly fit into one rumour; those of two of a node's lives together may not.
    const bare = held(d, member, []);
    let facts: Fact[] = [];
    let bytes = rumorBytes(bare);
    for (const fact of member.facts) {
      if (bytes + factBytes(fact) > roomMax) {
        put({ ...bare, facts });
        facts = [];
        bytes = rumorBytes(bare);
      }
      facts.push(fact);
      bytes += factBytes(fact);
    }
    put({ ...bare, facts });
  }
  if (batch.length > 0) send(d, to, id, { type: "records" }, batch);
}

/** Asks members that have told nothing of themselves, as far as this node heard. */
export function askTheSilent(d: Draft): void {
  for (const member of somePeers(d, SILENT_MAX, ({ facts }) => facts.length === 0)) {
    send(d, member.address, member.id, { type: "want", ids: [member.id] });
  }
}
const SILENT_MAX = 8;

function sendWanted(d: Draft, to: Address, id: NodeId, wanted: readonly NodeId[]): void {
  let ids: NodeId[] = [];
  let room = roomFor(d, { type: "want", ids: [] });
  for (const name of wanted) {
    if (room < 1 + name.length) {
      send(d, to, id, { type: "want", ids });
      ids = [];
      room = roomFor(d, { type: "want", ids: [] });
    }
    ids.push(name);
    room -= 1 + name.length;
  }
  if (ids.length > 0) send(d, to, id, { type: "want", ids });
}
