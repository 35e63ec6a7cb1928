/** A core's steps as lines to be read. */
import { kindOf } from "../../../src/cluster/raft/configuration.ts";
import type { RaftState } from "../../../src/cluster/raft/state.ts";
import type { Effects, Entry, Input, PeerId } from "../../../src/cluster/raft/types.ts";

/** What went in, and what that changed. */
export function describeStep(
  id: PeerId,
  input: Input,
  before: RaftState,
  after: RaftState,
  { persist, reads, snapshots }: Effects,
): string {
  const changes: string[] = [];
  if (after.role !== before.role) changes.push(after.role);
  if (after.term !== before.term) changes.push(`term ${after.term}`);
  if (after.vote !== before.vote) changes.push(`vote ${after.vote || "-"}`);
  if (after.log.last !== before.log.last) changes.push(`last ${after.log.last}`);
  if (after.commit !== before.commit) changes.push(`commit ${after.commit}`);
  if (after.log.base !== before.log.base) changes.push(`base ${after.log.base.index}`);
  for (const { order, restart, truncateAfter, entries, hardState } of persist) {
    const parts = [
      restart && `restart ${restart.index}`,
      truncateAfter !== undefined && `cut ${truncateAfter}`,
      hardState && `hard ${hardState.term} ${hardState.vote || "-"}`,
      entries.length > 0 && `entries ${entries[0]!.index}..${entries.at(-1)!.index}`,
    ];
    changes.push(`order ${order} (${parts.filter(Boolean).join(", ")})`);
  }
  if (reads.length > 0) changes.push(`reads ${reads.map(({ id, index }) => `${id}@${index}`)}`);
  if (snapshots.length > 0) changes.push(`snapshot to ${snapshots}`);
  return `${id} ${describeInput(input)}${changes.length > 0 ? ` => ${changes.join(", ")}` : ""}`;
}

export function describeInput(input: Input): string {
  if (input.type !== "message") {
    const { type, ...rest } = input;
    return `${type} ${JSON.stringify(rest, (key, value) => (key === "commands" || key === "entries" ? value.length : value))}`;
  }
  const { type, from, to: _, term, ...rest } = input.message;
  const body = JSON.stringify(rest, (key, value) => (key === "entries" ? value.map(describeEntry).join(" ") : value));
  return `<- ${from} ${type} term ${term} ${body}`;
}

const describeEntry = (entry: Entry): string =>
  `${entry.index}/${entry.term}${kindOf(entry) === "configuration" ? "c" : ""}`;
