import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { contains, formatIpv4, parseIpv4, trustedCidr } from "../model/ipv4.ts";
import type { Flow } from "./plan-flows.ts";
import { type GroupPolicy, type PolicyRule, planSecurityGroups, protocolMatches } from "./plan-security-groups.ts";

type Packet = {
  port: number;
  peer: number;
  protocol: "tcp" | "udp" | "icmp" | "gre";
  tpDst: number;
  type: number;
  code: number;
};
const NUMBERS = { tcp: 6, udp: 17, icmp: 1, gre: 47 };

/** What a group's rules say of a packet, without flows: AWS's definition. */
function allowed(policies: readonly GroupPolicy[], packet: Packet): boolean {
  const fits = (rule: PolicyRule) => {
    if (rule.egress) return false;
    if (!rule.peer.blocks.some((block) => contains(blockOf(block), packet.peer))) return false;
    if (rule.protocol === "-1") return true;
    if (rule.protocol !== packet.protocol && rule.protocol !== String(NUMBERS[packet.protocol])) return false;
    if (rule.fromPort === -1 || packet.protocol === "gre") return true;
    if (packet.protocol !== "icmp") return packet.tpDst >= rule.fromPort && packet.tpDst <= rule.toPort;
    return packet.type === rule.fromPort && (rule.toPort === -1 || packet.code === rule.toPort);
  };
  return policies.some((policy) => policy.ports.includes(packet.port) && policy.rules.some(fits));
}
const blockOf = (text: string) => trustedCidr(text.includes("/") ? text : `${text}/32`);

/** What a switch does with these flows: ovs-fields(7), "Conjunctive Match Fields". */
function forwarded(flows: readonly Flow[], packet: Packet): boolean {
  const hits = flows.filter((flow) => matches(flow.match, packet));
  if (hits.some((flow) => flow.actions === "allow" && !flow.match.startsWith("conj_id"))) return true;
  const met = new Map<string, { clauses: Set<string>; of: number }>();
  for (const flow of hits) {
    for (const [, id, clause, of] of flow.actions.matchAll(/conjunction\((\d+),(\d)\/(\d)\)/g)) {
      const entry = met.get(id!) ?? { clauses: new Set(), of: Number(of) };
      met.set(id!, entry);
      entry.clauses.add(clause!);
    }
  }
  return [...met].some(
    ([id, { clauses, of }]) =>
      clauses.size === of && flows.some((f) => f.match === `conj_id=${id},ip` && f.actions === "allow"),
  );
}
function matches(match: string, packet: Packet): boolean {
  return match.split(",").every((term) => {
    const [field, value = ""] = term.split("=");
    switch (field) {
      case "ip":
        return true;
      case "tcp":
      case "udp":
      case "icmp":
        return packet.protocol === field;
      case "nw_proto":
        return NUMBERS[packet.protocol] === Number(value);
      case "reg3":
        return packet.port === Number(value);
      case "nw_src":
        return contains(blockOf(value), packet.peer);
      case "tp_dst": {
        const [port, mask] = value.split("/").map(Number);
        return (packet.tpDst & (mask ?? 0xffff)) === port;
      }
      case "icmp_type":
        return packet.type === Number(value);
      case "icmp_code":
        return packet.code === Number(value);
      default:
        return false;
    }
  });
}

const plan = (policies: readonly GroupPolicy[]) =>
  planSecurityGroups(policies, { name: "ingress", table: 70, portField: "reg3", peerField: "nw_src", allow: "allow" });

const base = parseIpv4("10.0.0.0")!;
const block = fc.tuple(fc.integer({ min: 0, max: 15 }), fc.constantFrom(0, 8, 28, 30, 31, 32)).map(([host, prefix]) => {
  const { base: network } = trustedCidr(`${formatIpv4(base + host)}/${prefix}`);
  return prefix === 32 ? formatIpv4(network) : `${formatIpv4(network)}/${prefix}`;
});
const peer = fc.oneof(
  block.map((one) => ({ key: one, blocks: [one] })),
  fc
    .tuple(fc.constantFrom("sg-a", "sg-b"), fc.constant(0))
    .map(([key]) => ({ key, blocks: key === "sg-a" ? ["10.0.0.3", "10.0.0.5", "10.0.0.5"] : [] })),
);
const rule: fc.Arbitrary<PolicyRule> = fc
  .tuple(
    fc.constantFrom(
      ["-1", -1, -1] as const,
      ["tcp", 22, 22] as const,
      ["tcp", 20, 25] as const,
      ["tcp", 0, 65535] as const,
      ["6", 23, 23] as const,
      ["udp", -1, -1] as const,
      ["icmp", 8, -1] as const,
      ["icmp", 3, 4] as const,
      ["icmp", -1, -1] as const,
      ["47", -1, -1] as const,
      ["icmpv6", -1, -1] as const,
    ),
    peer,
    fc.boolean(),
  )
  .map(([[protocol, fromPort, toPort], from, egress]) => ({ protocol, fromPort, toPort, peer: from, egress }));
const policies: fc.Arbitrary<GroupPolicy[]> = fc
  .array(
    fc.tuple(fc.uniqueArray(fc.integer({ min: 16, max: 19 }), { minLength: 1 }), fc.array(rule, { maxLength: 5 })),
    { maxLength: 4 },
  )
  .map((groups) => groups.map(([ports, rules], i) => ({ groupId: `sg-${i}`, ports, rules })));
const packet: fc.Arbitrary<Packet> = fc.record({
  port: fc.integer({ min: 16, max: 20 }),
  peer: fc.integer({ min: 0, max: 15 }).map((host) => base + host),
  protocol: fc.constantFrom("tcp", "udp", "icmp", "gre"),
  tpDst: fc.integer({ min: 18, max: 27 }),
  type: fc.constantFrom(0, 3, 8),
  code: fc.constantFrom(0, 4),
});

describe("security groups as flows", () => {
  test("let through exactly what the rules allow", () => {
    fc.assert(
      fc.property(policies, fc.array(packet, { minLength: 20, maxLength: 20 }), (groups, packets) => {
        const flows = plan(groups);
        for (const one of packets) expect([one, forwarded(flows, one)]).toEqual([one, allowed(groups, one)]);
      }),
      { numRuns: 300 },
    );
  });

  test("have each match once, and never a conjunction beside another action", () => {
    fc.assert(
      fc.property(policies, (groups) => {
        const flows = plan(groups);
        expect(new Set(flows.map((flow) => flow.match)).size).toBe(flows.length);
        for (const { actions } of flows)
          expect(actions === "allow" || /^conjunction[^a-z]+(,conjunction[^a-z]+)*$/.test(actions)).toBe(true);
      }),
    );
  });

  test("grow by the sum of ports and members, not by their product", () => {
    const count = (size: number) => {
      const blocks = Array.from({ length: size }, (_, i) => formatIpv4(base + i));
      const ports = Array.from({ length: size }, (_, i) => 16 + i);
      const from = { key: "sg-0", blocks };
      const rules = [80, 443].map((port) => ({
        egress: false,
        protocol: "tcp",
        fromPort: port,
        toPort: port,
        peer: from,
      }));
      return plan([{ groupId: "sg-0", ports, rules }]).length;
    };
    expect(count(200) - count(100)).toBe(200);
  });

  test("stay as they are when another group changes", () => {
    const one: GroupPolicy = {
      groupId: "sg-1",
      ports: [16],
      rules: [
        { egress: false, protocol: "tcp", fromPort: 22, toPort: 22, peer: { key: "10.0.0.1", blocks: ["10.0.0.1"] } },
      ],
    };
    const two: GroupPolicy = {
      ...one,
      groupId: "sg-2",
      ports: [17],
      rules: [{ ...one.rules[0]!, fromPort: 23, toPort: 23, peer: { key: "x", blocks: ["10.0.0.2"] } }],
    };
    expect(plan([two, one])).toEqual(expect.arrayContaining(plan([one])));
  });

  test.each([
    ["all protocols", { protocol: "-1", fromPort: -1, toPort: -1 }, ["ip"]],
    ["a port", { protocol: "tcp", fromPort: 22, toPort: 22 }, ["tcp,tp_dst=22"]],
    ["a range", { protocol: "udp", fromPort: 8, toPort: 15 }, ["udp,tp_dst=0x8/0xfff8"]],
    ["an ICMP type with every code", { protocol: "icmp", fromPort: 8, toPort: -1 }, ["icmp,icmp_type=8"]],
    ["a protocol by number", { protocol: "50", fromPort: -1, toPort: -1 }, ["ip,nw_proto=50"]],
    ["ICMP for IPv6, which no IPv4 packet is", { protocol: "icmpv6", fromPort: -1, toPort: -1 }, []],
  ])("%s", (_, rule, expected) => expect(protocolMatches(rule)).toEqual(expected));
});
