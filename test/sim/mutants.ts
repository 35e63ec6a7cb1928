/**
 * Bugs that someone could write: each has been made in some Raft, or a reviewer could take it for an improvement. They are
 * planted one at a time in a copy of the source (`run-mutants.ts`), never in the tree. `find` is there exactly once.
 *
 * Where an assertion of the code itself would catch a bug at once, the assertion goes as well: the checks have to.
 */
export type Mutant = {
  readonly name: string;
  readonly simulation: "core" | "full";
  readonly edits: readonly { readonly file: string; readonly find: string; readonly replace: string }[];
};

const core = (name: string, ...edits: readonly (readonly [file: string, find: string, replace: string])[]): Mutant => ({
  name,
  simulation: "core",
  edits: edits.map(([file, find, replace]) => ({ file: `raft/${file}`, find, replace })),
});

const full = (name: string, ...edits: readonly (readonly [file: string, find: string, replace: string])[]): Mutant => ({
  name,
  simulation: "full",
  edits: edits.map(([file, find, replace]) => ({ file, find, replace })),
});

const ONE_VOTE = [
  "draft.ts",
  `  assert(term > d.term || d.vote === "" || d.vote === vote, "one vote a term");\n`,
  "",
] as const;

const ELECTIONS: readonly Mutant[] = [
  core("vote twice in a term", ONE_VOTE, ["elect.ts", `(d.vote === "" || d.vote === from)`, "true"]),
  core("give a vote before it is durable", [
    "elect.ts",
    '  sendWhenDurable(d, from, { type: "vote-reply", granted });',
    '  send(d, from, { type: "vote-reply", granted });',
  ]),
  core("count the own vote before it is durable", [
    "elect.ts",
    "  d.votes = new Map();\n  d.ownVoteOrder",
    "  d.votes = new Map([[d.id, true]]);\n  d.ownVoteOrder",
  ]),
  core("vote for a log that lacks entries", [
    "elect.ts",
    "return term > own || (term === own && lastIndex >= d.log.last);",
    "return term >= own;",
  ]),
  core("vote for the longer log, whatever its terms", [
    "elect.ts",
    "return term > own || (term === own && lastIndex >= d.log.last);",
    "return lastIndex >= d.log.last || term > own + 1000;",
  ]),
  core(
    "forget the vote of a term when its leader is heard",
    [
      "roles.ts",
      '  if (term > d.term) setHardState(d, term, "");',
      '  if (term > d.term || (leader !== undefined && d.leader === undefined)) setHardState(d, term, "");',
    ],
    ONE_VOTE,
  ),
  core("forget a term that was not voted in", [
    "roles.ts",
    '  if (term > d.term) setHardState(d, term, "");',
    '  if (term > d.term) {\n    d.term = term;\n    d.vote = "";\n  }',
  ]),
  core("count votes of an earlier term", [
    "step.ts",
    "  if (message.term < d.term) return;\n  switch",
    '  if (message.term < d.term && message.type !== "vote-reply") return;\n  switch',
  ]),
  core("lead with half of the votes", [
    "configuration.ts",
    "return count * 2 > peers.length;",
    "return count * 2 >= peers.length;",
  ]),
  core("stand for election without a quorum check", [
    "lead.ts",
    "if (!heardByQuorum(d, d.now - electionMs)) {",
    "if (d.now < 0) {",
  ]),
  core("lead on while the disk hangs", ["lead.ts", "if (isStalled(d) && d.peers.size > 0) {", "if (d.now < 0) {"]),
  core("let a damaged node vote", ["elect.ts", "=> d.recoverThrough === undefined;", "=> d.now >= 0;"]),
  core("let a damaged node stand for election", [
    "roles.ts",
    "    state.recoverThrough === undefined &&",
    "    state.term >= 0 &&",
  ]),
  core("recover a damaged node too early", [
    "step.ts",
    "d.persisted >= d.recoverThrough",
    "d.persisted >= Math.min(d.recoverThrough, d.commit)",
  ]),
  core("never stand again once a configuration leaves it out", [
    "roles.ts",
    "state.configurations.some(({ configuration: at }) => isVoter(at, state.id))",
    "isVoter(state.configurations.at(-1)!.configuration, state.id)",
  ]),
];

const REPLICATION: readonly Mutant[] = [
  core("acknowledge entries before they are durable", [
    "follow.ts",
    '  sendWhenDurable(d, from, {\n    type: "append-reply",',
    '  send(d, from, {\n    type: "append-reply",',
  ]),
  core("count own entries before they are durable", [
    "replicate.ts",
    "(peer === d.id ? d.persisted :",
    "(peer === d.id ? d.log.last :",
  ]),
  core("commit an earlier term's entry by count", [
    "replicate.ts",
    "if (reached <= d.commit || termAt(d.log, reached) !== d.term) return false;",
    "if (reached <= d.commit) return false;",
  ]),
  core("take entries without looking at the one before", [
    "follow.ts",
    "prevIndex < d.log.base.index || termAt(d.log, prevIndex) === prevTerm;",
    "prevIndex <= d.log.last;",
  ]),
  core("look at the entry before by index only where it is known", [
    "follow.ts",
    "termAt(d.log, prevIndex) === prevTerm;",
    "(termAt(d.log, prevIndex) ?? Number.POSITIVE_INFINITY) <= prevTerm;",
  ]),
  core("cut off what an old append does not mention", [
    "follow.ts",
    "  if (firstNew === -1) return;",
    "  if (firstNew === -1) {\n    const last = entries.at(-1)?.index ?? d.log.last;\n    if (last < d.log.last && last >= d.commit) truncate(d, last);\n    return;\n  }",
  ]),
  core("keep entries that contradict the leader's", [
    "follow.ts",
    "index > d.log.base.index && termAt(d.log, index) !== term);",
    "index > d.log.last && term >= 0);",
  ]),
  core("commit what was not compared with the leader's", [
    "follow.ts",
    "const reached = Math.min(message.commit, last);",
    "const reached = Math.min(message.commit, d.log.last);",
  ]),
  core("answer a heartbeat for what is not durable", [
    "follow.ts",
    "match: Math.min(last, d.persisted), round });",
    "match: last, round });",
  ]),
  core("answer a heartbeat for more than it compared", [
    "follow.ts",
    "match: Math.min(last, d.persisted), round });",
    "match: d.persisted, round });",
  ]),
  core(
    "keep what an earlier leadership knew of its peers",
    ["roles.ts", "    d.peers = new Map();\n    d.roundStarts", "    d.roundStarts"],
    [
      "roles.ts",
      "  d.votes = new Map();\n  d.peers = new Map();\n  followMembership(d);",
      "  d.votes = new Map();\n  followMembership(d);",
    ],
  ),
  core("go on counting entries that were cut off as durable", [
    "draft.ts",
    "  d.persisted = Math.min(d.persisted, index);\n",
    "",
  ]),
  core("take an open order for more than is left of it", [
    "draft.ts",
    "(open.last > index ? { ...open, last: index } : open)",
    "open",
  ]),
  core("take all orders for durable when one is", [
    "step.ts",
    "const done = d.openOrders.findLast((open) => open.order <= order);",
    "const done = d.openOrders.at(-1);",
  ]),
  core("never look further back than the entry that was refused", [
    "replicate.ts",
    "next: Math.max(1, Math.min(agreed + 1, prevIndex)),",
    "next: Math.max(agreed + 1, prevIndex + 1),",
  ]),
  core("wait for ever for a window of lost messages", [
    "replicate.ts",
    'const isHopeless = prevTerm === undefined && progress.mode === "replicate" && always;',
    "const isHopeless = false;",
  ]),
  core("forget entries that are not applied yet", [
    "step.ts",
    "trimmed(d.log, Math.min(input.index, d.persisted), d.options.windowBytesMax)",
    "trimmed(d.log, d.log.last, d.options.windowBytesMax)",
  ]),
  core("begin a term without an entry of its own", [
    "roles.ts",
    "  append(d, [{ index: d.ownFirst, term: d.term, data: NOTHING }]);\n",
    "",
  ]),
];

const DISKS: readonly Mutant[] = [
  core("go on after a full disk as if it had been written", ["step.ts", "  d.mustRepeat = true;\n", ""]),
  core("lead on after a full disk", [
    "step.ts",
    '  if (d.role === "leader") giveUp(d);\n  else becomeFollower(d, d.term, undefined);\n  cut(',
    '  if (d.role !== "leader") becomeFollower(d, d.term, undefined);\n  cut(',
  ]),
  core("never try a refused write again", [
    "follow.ts",
    "  if (d.mustRepeat) d.order.hardState = true;\n  if (entries.length",
    "  if (entries.length",
  ]),
  core("repeat a refused write without its cut", [
    "draft.ts",
    "return { truncateAfter: d.persisted, entries, hardState };",
    "return { entries, hardState };",
  ]),
  core("repeat a refused write without the vote", [
    "draft.ts",
    "return { truncateAfter: d.persisted, entries, hardState };",
    "return { truncateAfter: d.persisted, entries };",
  ]),
  core("talk on after the disk failed", [
    "step.ts",
    "  if (state.isHalted) return { state, effects: refusalsOf(input) };\n",
    "",
  ]),
];

const MEMBERSHIP: readonly Mutant[] = [
  core("decide by the new majority alone while joint", [
    "configuration.ts",
    "return isMajority(voters, agrees) && (outgoing.length === 0 || isMajority(outgoing, agrees));",
    "return isMajority(voters, agrees) || outgoing.length < 0;",
  ]),
  core("commit by the new majority alone while joint", [
    "configuration.ts",
    "return outgoing.length === 0 ? first : Math.min(first, reachedByMajority(outgoing, reached));",
    "return outgoing.length >= 0 ? first : Math.min(first, reachedByMajority(outgoing, reached));",
  ]),
  core("change many voters in one step", [
    "configuration.ts",
    "outgoing: come + gone > 1 ? from.voters : []",
    "outgoing: come + gone > 99 ? from.voters : []",
  ]),
  core("change again while a change is not committed", [
    "lead.ts",
    "  d.configurations.length === 1 && !isJoint(configuration(d)) && d.commit >= d.ownFirst && !d.transfer;",
    "  !isJoint(configuration(d)) && d.commit >= d.ownFirst && !d.transfer;",
  ]),
  core(
    "change before an own entry is committed",
    ["lead.ts", '  if (d.commit < d.ownFirst) return "not-ready";\n', ""],
    [
      "lead.ts",
      "!isJoint(configuration(d)) && d.commit >= d.ownFirst && !d.transfer;",
      "!isJoint(configuration(d)) && !d.transfer;",
    ],
  ),
  core("keep a configuration whose entry was cut off", [
    "draft.ts",
    "  d.configurations = d.configurations.filter((at) => at.index <= index);\n",
    "",
  ]),
  core("use a configuration only once it is committed", [
    "state.ts",
    "state.configurations.at(-1)!.configuration;",
    "state.configurations[0]!.configuration;",
  ]),
  core("leave a joint configuration before it is committed", [
    "lead.ts",
    "    serveReads(d);\n    if (d.configurations.length === 1 && afterConfiguration(d)) return;\n  }",
    "    serveReads(d);\n  }\n  if (isJoint(configuration(d)) || (d.configurations.length === 1 && !configuration(d).voters.includes(d.id))) {\n    if (afterConfiguration(d)) return;\n  }",
  ]),
  core(
    "count learners",
    [
      "configuration.ts",
      "export function isQuorum({ voters, outgoing }: Configuration,",
      "export function isQuorum({ voters: own, outgoing, learners }: Configuration,",
    ],
    [
      "configuration.ts",
      "return isMajority(voters, agrees) && (outgoing",
      "const voters = [...own, ...learners];\n  return isMajority(voters, agrees) && (outgoing",
    ],
  ),
];

const SNAPSHOTS: readonly Mutant[] = [
  core("install a snapshot that is older than the state", [
    "follow.ts",
    "  if (point.index > d.commit) {",
    "  if (point.index > 0 && point.index !== d.commit) {",
  ]),
  core("install a snapshot and leave the files as they were", ["follow.ts", "      d.order.restart = point;\n", ""]),
  core("keep the log that a snapshot contradicts", [
    "follow.ts",
    "    if (termAt(d.log, point.index) === point.term) {",
    "    if (termAt(d.log, point.index) !== undefined) {",
  ]),
  core("take a snapshot's configuration for the own", [
    "follow.ts",
    "      d.configurations = [{ index: point.index, configuration: point.configuration }];\n",
    "",
  ]),
  core("go on counting the old log as durable after a snapshot", ["follow.ts", "      d.persisted = 0;\n", ""]),
];

const READS: readonly Mutant[] = [
  core("read without asking a quorum", [
    "reads.ts",
    "(peer) => peer === d.id) || hasLease(d)) {",
    "(peer) => peer === d.id) || d.now >= 0) {",
  ]),
  core("read before an own entry is committed", [
    "reads.ts",
    "if (d.waitingReads.length === 0 || d.commit < d.ownFirst) return;",
    "if (d.waitingReads.length === 0) return;",
  ]),
  core("take answers to an earlier round for this one", [
    "reads.ts",
    "(d.peers.get(peer)?.round ?? 0) >= roundReads.round;",
    "(d.peers.get(peer)?.round ?? 0) >= roundReads.round - 1;",
  ]),
  core("let reads join a round that is under way", [
    "reads.ts",
    "  if (d.roundReads) return;\n",
    "  if (d.roundReads) {\n    d.roundReads = { ...d.roundReads, reads: [...d.roundReads.reads, ...d.waitingReads] };\n    d.waitingReads = [];\n    return;\n  }\n",
  ]),
  core("count a lease from its answers", [
    "reads.ts",
    "peer === d.id ? d.now : startOf(d.peers.get(peer)?.round ?? 0),",
    "peer === d.id ? d.now : (d.peers.get(peer)?.heardAt ?? startOf(0)),",
  ]),
  core("keep a lease though an heir was named", [
    "reads.ts",
    " || d.transfer || d.hasNamedHeir) return false;",
    ") return false;",
  ]),
  core("forget at a restart that a leader may have a lease", [
    "state.ts",
    "options.leaseDrift === undefined ? Number.NEGATIVE_INFINITY : now,",
    "Number.NEGATIVE_INFINITY,",
  ]),
  core("let a follower that hears its leader elect another", [
    "elect.ts",
    'd.role === "leader" || d.now - d.heardLeaderAt < d.options.electionMs;',
    'd.role === "leader";',
  ]),
  core("answer a read from another term's leadership", [
    "reads.ts",
    "  for (const read of [...(d.roundReads?.reads ?? []), ...d.waitingReads]) answerRead(d, read, undefined);",
    "  for (const read of [...(d.roundReads?.reads ?? []), ...d.waitingReads]) answerRead(d, read, d.commit);",
  ]),
];

const LOG_FILES: readonly Mutant[] = [
  full("write to the log without waiting for the disk", [
    "kv/log/segment-log.ts",
    `attempt("a write to the log", () => this.#file.writeDurable(segment.end, encoded.bytes));`,
    `attempt("a write to the log", () => this.#file.write(segment.end, encoded.bytes));`,
  ]),
  full("go on writing to the log after a failed sync", [
    "kv/log/segment-log.ts",
    `if (written.error.reason !== "full") return this.#failed({ ...written.error, reason: "failed" });`,
    `if (written.error.reason !== "full") return ok(undefined);`,
  ]),
  full("leave in the log what the disk refused", [
    "kv/log/segment-log.ts",
    "() => this.#file.writeDurable(segment.end, new Uint8Array(8)));",
    "async () => {});",
  ]),
  full("forget the vote when a new segment begins", [
    "kv/log/segment-log.ts",
    "const header = newHeader(this.#last.header.sequence + 1, after, this.#hardState, recovery);",
    `const header = newHeader(this.#last.header.sequence + 1, after, { term: 0, vote: "" }, recovery);`,
  ]),
  full("cut the log in memory and not on the disk", [
    "kv/log/scan-segment.ts",
    "    if (record.kind === KIND_TRUNCATION) entries.length = record.index + 1 - header.firstIndex;\n",
    "",
  ]),
  full("take damage in the middle of the log for a torn end", [
    "kv/log/scan-segment.ts",
    `if (record.writeStart > end) return { kind: "corrupt", provenBy: record.offset };`,
    `if (record.writeStart > end && dataEnd < 0) return { kind: "corrupt", provenBy: record.offset };`,
  ]),
  full("owe for ever what was made good and could not be noted", [
    "raft/state.ts",
    "recoverThrough: recoverThrough !== undefined && log.last >= recoverThrough ? undefined : recoverThrough,",
    "recoverThrough,",
  ]),
  full("owe nothing after damage to the log", [
    "kv/log/plan-repair.ts",
    "return newHeader(sequence, after, { term: termAtLeast, vote: UNKNOWN_VOTE }, { through, termAtLeast });",
    "return newHeader(sequence, after, { term: termAtLeast, vote: UNKNOWN_VOTE }, through < 0 ? { through, termAtLeast } : undefined);",
  ]),
  full("forget more of the log than the snapshot holds", [
    "kv/log/segment-log.ts",
    "this.#segments[1]!.header.firstIndex <= index + 1) {",
    "this.#segments[1]!.header.firstIndex <= index + 40) {",
  ]),
];

const RUNTIME: readonly Mutant[] = [
  full("say what was promised before it is durable", [
    "node/raft-runtime.ts",
    "    this.#persister.add(persist);\n",
    `    this.#persister.add(persist.map((order) => ({ ...order, send: [] })));
    for (const order of persist) for (const m of order.send) transport.send(m.to, { type: "raft", message: m });\n`,
  ]),
  full("write entries of an order that cuts the log without the cut", [
    "node/raft-runtime-persister.ts",
    "return cutsLog(first) ? this.#cutThenAppend(first, entries, group) : this.#append(entries, group);",
    "return first.restart ? this.#cutThenAppend(first, entries, group) : this.#append(entries, group);",
  ]),
  full("apply before the snapshot is installed", [
    "node/raft-runtime.ts",
    "for (const { restart } of persist) if (restart) this.#installIndex = restart.index;",
    "for (const { restart } of persist) if (restart && this.#driver.index < 0) this.#installIndex = restart.index;",
  ]),
  full("put the first configuration into every snapshot", [
    "node/raft-runtime.ts",
    "await this.#snapshots.take(this.#driver.point);",
    "await this.#snapshots.take({ ...this.#driver.point, configuration: this.#options.start.configuration });",
  ]),
  full("answer a barrier from what is committed here", [
    "kv/replicated-store.ts",
    "    const read = await this.#running.readIndex();\n    if (!read.ok) return fail(unavailable(read.error));",
    "    const read = ok(this.#running.status().commitIndex);",
  ]),
  full("wait for ever for a read whose answer was lost", [
    "node/raft-runtime-reads.ts",
    "if (now - batch.askedAt < this.#options.attemptMs) continue;",
    "if (now - batch.askedAt < Number.POSITIVE_INFINITY) continue;",
  ]),
  full("do not wait until a read's index is applied", [
    "kv/replicated-store.ts",
    "if (await this.#progress.until(read.value, FORWARD_MS_MAX)) return ok(undefined);",
    "if (read.value >= 0) return ok(undefined);",
  ]),
  full("number questions from one again in each life", [
    "node/raft-runtime-calls.ts",
    "Buffer.from(random.bytes(6)).readUIntLE(0, 6);",
    "random.bytes(6).length - 5;",
  ]),
  full("lead before what predecessors left is applied", [
    "node/raft-runtime-driver.ts",
    "if (leads && this.#ledTerm !== term && this.#point.term === term) {",
    "if (leads && this.#ledTerm !== term) {",
  ]),
];

const STORE: readonly Mutant[] = [
  full(
    "carry out a transaction again that was carried out",
    [
      "kv/sessions.ts",
      `if (tag.number >= session.done[i]!) return tag.number <= session.done[i + 1]! ? "done" : "new";`,
      `if (tag.number > session.done[i + 1]!) return "new";`,
    ],
    [
      "kv/sessions.ts",
      `  assert(lookUp(sessions, tag) === "new", "a session's transaction is carried out once");\n`,
      "",
    ],
  ),
  full("write whatever the compares say", [
    "kv/replicated-store.ts",
    "if (holds(this.#sequencer.tentative.state, compares)) this.#write(operations, tag, done);",
    "if (compares.length >= 0) this.#write(operations, tag, done);",
  ]),
  full("decide on what is applied, not on what is proposed", [
    "kv/replicated-store.ts",
    "const decided = decide(new View(this.#sequencer.tentative.state));",
    "const decided = decide(new View(this.state()));",
  ]),
  full("answer what wrote nothing without asking who leads", [
    "kv/replicated-store.ts",
    "const isStillLed = this.#decidesAlone() ? undefined : this.#running.readIndex();",
    "const isStillLed = this.#decidesAlone() || term > 0 ? undefined : this.#running.readIndex();",
  ]),
  full("refuse for want of space what others may hold", [
    "kv/replicated-store.ts",
    "membersOf(configuration).size === 1",
    "this.#isAlone(configuration)",
  ]),
  full("forget what was decided when leadership is lost", [
    "kv/sequencer.ts",
    `      if (item.bytes && proposed > 0) {`,
    `      if (item.bytes && proposed > 0 && item.isForwarded) {`,
  ]),
  full("answer nobody whose decision went with a leadership", [
    "kv/sequencer.ts",
    "for (const item of dropped) this.#tell(item, problem, 0);",
    'for (const item of dropped) if (problem !== "dropped") this.#tell(item, problem, 0);',
  ]),
  full("forget a transaction whose answer was lost", [
    "kv/forwarder.ts",
    "      this.#pauseFor(leader);\n      this.#again(group);\n",
    "      this.#pauseFor(leader);\n",
  ]),
  full("resolve before it is applied here", [
    "kv/forwarder.ts",
    "const isShown = await this.#ports.untilApplied(index, FORWARD_MS_MAX);",
    "const isShown = index >= 0;",
  ]),
  full("end leases by the time that is left of them elsewhere", [
    "kv/replicated-store.ts",
    "for (const [lease, ttlMs] of this.state().leases) this.#leases.renew(lease, ttlMs);",
    "for (const [lease, ttlMs] of this.state().leases) this.#leases.renew(lease, ttlMs / 4);",
  ]),
  full("forget leases when another node leads", [
    "kv/replicated-store.ts",
    "    for (const [lease, ttlMs] of this.state().leases) this.#leases.renew(lease, ttlMs);\n",
    "",
  ]),
  full("skip a revision of a watch", [
    "kv/history.ts",
    "        if (position < this.#last()) {\n          position++;",
    "        if (position < this.#last()) {\n          position += position + 1 < this.#last() && position % 16 === 15 ? 2 : 1;",
  ]),
  full("keep a watch going over what was compacted", [
    "kv/history.ts",
    "        if (position < this.#compacted) {\n",
    "        position = Math.max(position, this.#compacted);\n        if (position < this.#compacted) {\n",
  ]),
  full("keep a watch's history over an installed snapshot", [
    "kv/replicated-store.ts",
    "    this.#history.restartAfter(state.revision);\n",
    "",
  ]),
  full("leave leases out of snapshots", [
    "kv/ledger.ts",
    "    return { state, sessions, index:",
    "    return { state: { ...state, leases: new Map() }, sessions, index:",
  ]),
];

export const MUTANTS: readonly Mutant[] = [
  ...ELECTIONS,
  ...REPLICATION,
  ...DISKS,
  ...MEMBERSHIP,
  ...SNAPSHOTS,
  ...READS,
  ...LOG_FILES,
  ...RUNTIME,
  ...STORE,
];
