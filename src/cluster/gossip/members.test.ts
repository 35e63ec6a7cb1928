import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  findMember,
  type Member,
  type Members,
  makeMember,
  mergeFacts,
  supersedes,
  withMember,
  withoutMember,
} from "./members.ts";
import { type Fact, STATUSES } from "./types.ts";

const view = fc.record({ incarnation: fc.nat({ max: 3 }), status: fc.constantFrom(...STATUSES) });

test("of two views one supersedes the other unless they are equal, and superseding is transitive", () => {
  fc.assert(
    fc.property(view, view, view, (a, b, c) => {
      const isEqual = a.incarnation === b.incarnation && a.status === b.status;
      expect(Number(supersedes(a, b)) + Number(supersedes(b, a))).toBe(isEqual ? 0 : 1);
      if (supersedes(a, b) && supersedes(b, c)) expect(supersedes(a, c)).toBe(true);
    }),
  );
});

const fact: fc.Arbitrary<Fact> = fc
  .record({ name: fc.constantFrom("load", "roles", "zone", "a"), version: fc.nat({ max: 5 }) })
  .map((plain) => ({ ...plain, value: `${plain.name}@${plain.version}` }));

test("facts merge to the same in any order, heard once or twice", () => {
  fc.assert(
    fc.property(fc.array(fact, { maxLength: 8 }), fc.array(fact, { maxLength: 8 }), (a, b) => {
      const merged = mergeFacts(mergeFacts([], a, 16), b, 16);
      expect(mergeFacts(mergeFacts([], b, 16), a, 16)).toEqual(merged);
      expect(mergeFacts(merged, [...b, ...a], 16)).toBe(merged);
      expect(merged.map(({ name }) => name)).toEqual([...new Set([...a, ...b].map(({ name }) => name))].sort());
    }),
  );
});

test("facts beyond the bound are not taken", () => {
  const many = Array.from({ length: 30 }, (_, i): Fact => ({ name: `f${i}`, version: 1, value: "" }));
  expect(mergeFacts([], many, 16).length).toBe(16);
});

const member = (id: string, more: Partial<Member> = {}): Member =>
  makeMember({ id, address: "10.0.0.1:1", incarnation: 1, status: "alive", since: 0, facts: [], ...more });

test("members stay sorted, one of an id, and are found", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(..."abcdefgh"), fc.boolean()), { maxLength: 30 }), (changes) => {
      let members: Members = [];
      const expected = new Set<string>();
      for (const [id, isThere] of changes) {
        members = isThere ? withMember(members, member(id)) : withoutMember(members, id);
        if (isThere) expected.add(id);
        else expected.delete(id);
      }
      expect(members.map(({ id }) => id)).toEqual([...expected].sort());
      for (const id of "abcdefgh") expect(findMember(members, id)?.id).toBe(expected.has(id) ? id : undefined);
    }),
  );
});

test("the hash is over all that is compared, and over nothing that is this node's own view", () => {
  const plain = member("a");
  expect(member("a", { since: 99 }).hash).toBe(plain.hash);
  const others = [
    member("b"),
    member("a", { incarnation: 2 }),
    member("a", { incarnation: 2 ** 40 + 1 }),
    member("a", { status: "suspect" }),
    member("a", { facts: [{ name: "zone", version: 1, value: "" }] }),
    member("a", { facts: [{ name: "zone", version: 2, value: "" }] }),
  ];
  expect(new Set([plain, ...others].map(({ hash }) => hash)).size).toBe(7);
});

const stalls: [string, number][] = [
  ["4000", 4000],
  ["", 0],
  ["-5", 0],
  ["1e9", 1],
  ["99999999", 16_000],
  ["NaN", 0],
];
test.each(stalls)("an announced stall of %p counts as %p ms", (value, ms) => {
  expect(member("a", { facts: [{ name: "stall", version: 1, value }] }).stallMs).toBe(ms);
});
