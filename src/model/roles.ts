import { fail, ok, type Result } from "../lib/result.ts";

/** What a node does. Any mix works; a node alone needs `config`, which keeps the store. */
export const ROLES = ["gateway", "compute", "vpc", "config", "storage"] as const;
export type Role = (typeof ROLES)[number];

/** Reads `all` or a comma-separated list. Fails with a sentence. */
export function parseRoles(text: string): Result<ReadonlySet<Role>, string> {
  if (text === "all") return ok(new Set(ROLES));
  const roles = new Set<Role>();
  for (const word of text.split(",").map((part) => part.trim())) {
    const role = ROLES.find((known) => known === word);
    if (!role) return fail(`--role: there is no role "${word}": all, or some of ${ROLES.join(", ")}`);
    roles.add(role);
  }
  if (!roles.has("config")) {
    return fail("--role: a node that is alone has to keep the store itself: add the role config");
  }
  return ok(roles);
}
