/** What is replicated: the state that readers see, and the sessions of those who write. Pure, and the same on every node. */
import { unreachable } from "../../lib/assert.ts";
import type { Schema } from "./schema.ts";
import { NO_SESSIONS, record, register, type Sessions, type SessionTag } from "./sessions.ts";
import { apply, type Command, emptyState, type KeyChange, type State } from "./state.ts";

export type Replicated = { readonly state: State; readonly sessions: Sessions };

/** What an entry of the log says. */
export type Logged =
  | { readonly kind: "command"; readonly command: Command; readonly tag?: SessionTag }
  | { readonly kind: "register" }
  | { readonly kind: "nothing" };

export type Advanced = Replicated & { readonly changes: readonly KeyChange[] };

const NO_CHANGES: readonly KeyChange[] = [];

export const emptyReplicated = (schema: Schema): Replicated => ({ state: emptyState(schema), sessions: NO_SESSIONS });

/** What an entry makes of it. */
export function advance(schema: Schema, { state, sessions }: Replicated, logged: Logged): Advanced {
  switch (logged.kind) {
    case "command": {
      const applied = apply(schema, state, logged.command);
      const after = logged.tag ? record(sessions, logged.tag) : sessions;
      return { state: applied.state, sessions: after, changes: applied.changes };
    }
    case "register":
      return { state, sessions: register(sessions), changes: NO_CHANGES };
    case "nothing":
      return { state, sessions, changes: NO_CHANGES };
    default:
      return unreachable(logged);
  }
}
