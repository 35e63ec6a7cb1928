import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  changed,
  configurationOf,
  decodeConfiguration,
  encodeConfiguration,
  isJoint,
  isQuorum,
  left,
  membersOf,
  promoted,
  reachedByQuorum,
  VOTERS_MAX,
} from "./configuration.ts";
import type { Configuration, ConfigurationChange } from "./types.ts";

const peers = ["a", "b", "c", "d", "e", "f"];
const someOf = fc.subarray(peers, { minLength: 1 });

const majorities: [string[], string[], boolean][] = [
  [[], [], false],
  [["a"], ["a"], true],
  [["a", "b"], ["a"], false],
  [["a", "b", "c"], ["a", "c"], true],
  [["a", "b", "c", "d"], ["a", "b"], false],
  [["a", "b", "c", "d", "e"], ["a", "b", "f"], false],
];
test.each(majorities)("of %j, %j are a quorum: %p", (voters, agreeing, expected) => {
  expect(isQuorum(configurationOf(voters), (peer) => agreeing.includes(peer))).toBe(expected);
});

test("a joint configuration needs both majorities", () => {
  const joint: Configuration = { ...configurationOf(["a", "b", "c"]), outgoing: ["c", "d", "e"] };
  const quorum = (text: string) => isQuorum(joint, (peer) => text.includes(peer));
  expect(quorum("ab")).toBe(false);
  expect(quorum("de")).toBe(false);
  expect(quorum("acd")).toBe(true);
  expect(quorum("abde")).toBe(true);
});

test("what a quorum has reached is the greatest value that a quorum is at or beyond", () => {
  const values = fc.array(fc.nat(9), { minLength: 6, maxLength: 6 });
  fc.assert(
    fc.property(someOf, fc.subarray(peers), values, (voters, outgoing, reached) => {
      const configuration = { ...configurationOf(voters), outgoing };
      const of = (peer: string) => reached[peers.indexOf(peer)]!;
      const greatest = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0].find((value) => isQuorum(configuration, (p) => of(p) >= value));
      expect(reachedByQuorum(configuration, of)).toBe(greatest!);
    }),
  );
});

const change = fc.dictionary(
  fc.constantFrom(...peers),
  fc.constantFrom("voter" as const, "learner" as const, "removed" as const),
);

test("quorums before and after any change have a member in common, at every stage", () => {
  fc.assert(
    fc.property(someOf, change, fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }), (voters, wanted, chance) => {
      const before = configurationOf(voters);
      const after = changed(before, wanted as ConfigurationChange);
      if (!after) return;
      const stages = [before, after, ...(isJoint(after) ? [left(after)] : [])];
      const settled = stages.at(-1)!;
      if (settled.joining.length > 0) {
        const next = promoted(settled, settled.joining);
        stages.push(next, ...(isJoint(next) ? [left(next)] : []));
      }
      for (let i = 0; i + 1 < stages.length; i++) {
        const [one, other] = [stages[i]!, stages[i + 1]!];
        const first = peers.filter((_, p) => chance[p]);
        const second = peers.filter((peer, p) => chance[p + 6] && !first.includes(peer));
        const bothDecide =
          isQuorum(one, (peer) => first.includes(peer)) && isQuorum(other, (peer) => second.includes(peer));
        expect(bothDecide).toBe(false);
      }
    }),
    { numRuns: 2000 },
  );
});

test("a change gives every peer the role that it names, and leaves the others alone", () => {
  fc.assert(
    fc.property(someOf, change, (voters, wanted) => {
      const after = changed(configurationOf(voters), wanted as ConfigurationChange);
      const remaining = voters.filter((peer) => wanted[peer] === undefined || wanted[peer] === "voter");
      if (!after) return expect(remaining).toEqual([]);
      for (const [peer, role] of Object.entries(wanted)) {
        if (role === "removed") expect([...after.voters, ...after.learners, ...after.joining]).not.toContain(peer);
        if (role === "learner") expect(after.learners).toContain(peer);
        if (role === "voter") expect([...after.voters, ...after.joining]).toContain(peer);
      }
      expect(after.voters).toEqual([...remaining].sort());
    }),
  );
});

test("no cluster has more voters than can agree quickly", () => {
  const many = Object.fromEntries(Array.from({ length: VOTERS_MAX }, (_, i) => [`n${i}`, "voter" as const]));
  expect(changed(configurationOf(["a"]), many)).toBeUndefined();
});

test("a configuration entry gives back what was put into it", () => {
  const configuration: Configuration = { voters: ["a"], outgoing: ["a", "b"], learners: ["c"], joining: ["d"] };
  expect(decodeConfiguration(encodeConfiguration(configuration))).toEqual(configuration);
  expect([...membersOf(configuration)].sort()).toEqual(["a", "b", "c", "d"]);
});
