import { expect, test } from "bun:test";
import { type FlowInput, type GuestPort, planFlows, TABLE } from "./plan-flows.ts";

const port = (n: number, fields: Partial<GuestPort> = {}): GuestPort => ({
  ofport: n,
  mac: `0a:00:00:00:01:${n.toString(16)}`,
  vpcKey: 1,
  subnet: "10.0.0.0",
  router: "10.0.0.1",
  addresses: [`10.0.0.${n}`],
  sourceDestCheck: true,
  ...fields,
});
const input = (ports: readonly GuestPort[], more: Partial<FlowInput> = {}): FlowInput => ({
  ports,
  vpcs: [{ key: 1, cidr: "10.0.0.0/16", routed: true }],
  subnets: [
    { vpcKey: 1, subnet: "10.0.0.0", routes: [{ cidr: "0.0.0.0/0", prefix: 0, target: { kind: "internet" } }] },
  ],
  neighbours: ports.map(({ vpcKey, addresses }) => ({ vpcKey, address: addresses[0]! })),
  policies: [],
  publicPool: "198.18.0.0/16",
  gateway: "198.18.0.1",
  metadataPool: "100.64.0.0/16",
  ...more,
});
const text = (flows: ReturnType<typeof planFlows>) =>
  flows.map((f) => `${f.table}/${f.priority} ${f.match} → ${f.actions}`);

test("each match occurs once, and a plan does not depend on the order of its input", () => {
  const ports = [
    port(16, { publicIp: "198.18.0.9" }),
    port(17),
    port(18, { sourceDestCheck: false, addresses: ["10.0.0.18", "10.0.0.19"] }),
  ];
  const flows = planFlows(input(ports));
  const ids = flows.map((f) => `${f.table},${f.priority},${f.match}`);
  expect(new Set(ids).size).toBe(ids.length);
  expect(text(planFlows(input([...ports].reverse())))).toEqual(text(flows));
});

test("every table ends in a drop, and no flow forwards by learning", () => {
  const flows = planFlows(input([port(16)]));
  for (const table of Object.values(TABLE))
    expect(flows).toContainEqual({ table, priority: 0, match: "", actions: "drop" });
  expect(text(flows).join()).not.toMatch(/NORMAL|FLOOD|ALL/i);
});

test("only a guest with a public address has a way through the internet gateway", () => {
  const nat = (ports: GuestPort[]) =>
    planFlows(input(ports)).filter((f) => f.table === TABLE.GATEWAY && f.priority > 0);
  expect(nat([port(16)])).toEqual([]);
  expect(nat([port(16, { publicIp: "198.18.0.9" })])).toEqual([
    {
      table: TABLE.GATEWAY,
      priority: 100,
      match: "ip,reg0=0x1,nw_src=10.0.0.16",
      actions: "set_field:198.18.0.9->ip_src,goto_table:50",
    },
  ]);
});

test("a longer prefix outranks a shorter one, and a blackhole drops", () => {
  const routes = [
    { cidr: "0.0.0.0/0", prefix: 0, target: { kind: "internet" } },
    { cidr: "192.0.2.0/24", prefix: 24, target: { kind: "blackhole" } },
    { cidr: "192.0.2.128/25", prefix: 25, target: { kind: "port", ofport: 17, mac: "0a:00:00:00:01:11" } },
  ] as const;
  const flows = planFlows(input([port(16), port(17)], { subnets: [{ vpcKey: 1, subnet: "10.0.0.0", routes }] }));
  const ranked = flows
    .filter((f) => f.table === TABLE.ROUTE && f.match.includes("reg2=0xa000000"))
    .map((f) => [f.priority, f.actions.split(",")[0]]);
  expect(ranked).toEqual([
    [125, "set_field:0x11->reg3"],
    [124, "drop"],
    [100, "goto_table:40"],
  ]);
});

test("the number of flows grows with the number of ports", () => {
  const count = (n: number) => planFlows(input(Array.from({ length: n }, (_, i) => port(16 + i)))).length;
  expect(count(40) - count(20)).toBe(count(60) - count(40));
});
