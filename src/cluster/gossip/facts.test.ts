import { expect, test } from "bun:test";
import { checkFacts } from "./check.ts";
import { type NodeFacts, readFacts, writeFacts } from "./facts.ts";

const FACTS: NodeFacts = {
  address: "192.0.2.7:7947",
  roles: ["gateway", "compute"],
  zone: "us-east-1a",
  version: "0.1.0",
  capacity: { vcpus: 64, memoryMib: 262144, diskGib: 4000 },
  load: { vcpus: 3, memoryMib: 4096, diskGib: 12 },
  health: "no /dev/kvm",
};

test("facts come out as they went in, all or some, and are within bounds", () => {
  expect(readFacts(writeFacts(FACTS))).toEqual(FACTS);
  expect(checkFacts(writeFacts(FACTS)).ok).toBe(true);
  expect(readFacts(writeFacts({ load: FACTS.load }))).toEqual({ load: FACTS.load });
  expect(readFacts(writeFacts({ roles: [] }))).toEqual({ roles: [] });
});

test("what can't be read is absent, and what is not known is passed over", () => {
  expect(readFacts({ capacity: "lots", load: "1/2", zone: "z", colour: "blue" })).toEqual({ zone: "z" });
});

const wrong: [string, { [name: string]: string }, string][] = [
  ["too many", Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`f${i}`, ""])), "16 facts"],
  ["a name with a space", { "a b": "" }, "can't be the name"],
  ["a name that objects have", { __proto__x: "" }, "can't be the name"],
  ["the measured one", { stall: "1" }, "measured"],
  ["a long value", { a: "ä".repeat(257) }, "514 bytes"],
  ["too much altogether", { a: "x".repeat(500), b: "x".repeat(500) }, "1002 bytes"],
];
test.each(wrong)("%s is refused with a sentence", (_, values, sentence) => {
  const checked = checkFacts(values);
  expect(checked.ok ? "accepted" : checked.error).toContain(sentence);
});
