import { fail, ok, type Result } from "../../lib/result.ts";
import type { StoreError } from "../../model/store.ts";
import type { KeyDecision, KeyValueStore } from "./key-value-store.ts";
import { type Compare, View } from "./view.ts";

/** With 64 callers on one key, one succeeds a round: the last needs 64 rounds. */
const ATTEMPTS_MAX = 100;

/**
 * `propose` for a node that doesn't write the log itself: decides on what it has, and sends what it read along as
 * compares; a conflict is decided anew on a newer state. Decisions that write nothing, or refuse, are proposed too
 * (without operations), so that no answer rests on a state that was outdated.
 */
export async function proposeOptimistically<T, E>(
  store: Pick<KeyValueStore, "state" | "txn">,
  decide: (view: View) => Result<KeyDecision<T>, E>,
): Promise<Result<T, E | StoreError>> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const reads = new Map<string, Compare>();
    const decided = decide(new View(store.state(), reads));
    const done = await store.txn([...reads.values()], decided.ok ? decided.value.operations : []);
    if (!done.ok) return done;
    if (done.value.committed) return decided.ok ? ok(decided.value.value) : decided;
  }
  const message = `A transaction met conflicting writes ${ATTEMPTS_MAX} times in a row.`;
  return fail({ kind: "store", reason: "busy", message });
}
