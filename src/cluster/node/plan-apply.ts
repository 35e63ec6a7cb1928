import { assert } from "../../lib/assert.ts";
import { type RaftLog, slice } from "../raft/log.ts";
import type { Entry, Index, Term } from "../raft/types.ts";
import { DIGEST_EVERY } from "./raft-runtime-digests.ts";

export type ApplyBudget = { readonly entries: number; readonly bytes: number };

/** The next entries for the state machine, never none; `losesTerm`: it has to be told first that it leads no more. */
export type ApplyBatch = { readonly entries: readonly Entry[]; readonly losesTerm: boolean };

/**
 * What to apply next of what is committed: within the budget (but at least one entry), not across a digest's index, and not
 * across the end of the term that the machine believes to lead: it must not take another leader's entries for its own.
 * Undefined when everything is applied. Pure.
 */
export function planApply(
  { log, commit }: { readonly log: RaftLog; readonly commit: Index },
  applied: Index,
  ledTerm: Term | undefined,
  budget: ApplyBudget,
): ApplyBatch | undefined {
  if (applied >= commit) return undefined;
  const from = applied + 1;
  const nextDigest = Math.ceil(from / DIGEST_EVERY) * DIGEST_EVERY;
  const through = Math.min(commit, nextDigest, from + Math.max(1, budget.entries) - 1);
  const entries = slice(log, from, through, budget.bytes);
  assert(entries && entries.length > 0, "what is not applied is in memory");
  if (ledTerm === undefined || entries.at(-1)!.term <= ledTerm) return { entries, losesTerm: false };
  if (entries[0]!.term > ledTerm) return { entries, losesTerm: true };
  return { entries: entries.filter(({ term }) => term <= ledTerm), losesTerm: false };
}
