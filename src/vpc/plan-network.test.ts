import { describe, expect, test } from "bun:test";
import { NODE_ID, World } from "../../test/support/netns-world.ts";
import { configSchema } from "../model/config.ts";
import { tapName } from "../model/network-names.ts";
import { type ObservedNetwork, planNetwork } from "./plan-network.ts";

const config = configSchema.parse({}).network;
const bare: ObservedNetwork = { ports: new Map(), nextOfport: undefined, hostRoutes: [] };

describe("the network of a node", () => {
  test("numbers new ports from 16, keeps the numbers that ports have, and does not hand out one that was just given back", async () => {
    const world = await World.open();
    const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
    const [a, b] = [await world.eni(net, []), await world.eni(net, [])];
    const first = planNetwork(world.store.read(), NODE_ID, config, bare);
    expect(first.ports.filter((p) => p.kind === "tap").map((p) => p.ofport)).toEqual([16, 17]);
    expect(first.nextOfport).toBe(18);

    const observed = (given: Record<string, number>): ObservedNetwork => ({
      ...bare,
      nextOfport: 18,
      ports: new Map(
        first.ports
          .filter((p) => p.interfaceId === a.id)
          .map((p) => [
            p.name,
            { ofport: given[p.name] ?? p.ofport, ofportRequest: p.ofport, interfaceId: p.interfaceId },
          ]),
      ),
    });
    const again = planNetwork(world.store.read(), NODE_ID, config, observed({}));
    const numberOf = (plan: typeof first, eni: typeof a) => plan.ports.find((p) => p.interfaceId === eni.id)?.ofport;
    expect(numberOf(again, a)).toBe(numberOf(first, a)!);
    expect(numberOf(again, b)).toBe(18);

    // Where the switch gave another number than was asked for, the flows follow the switch.
    const moved = planNetwork(world.store.read(), NODE_ID, config, observed({ [tapName(a.id)]: 99 }));
    expect(moved.directory.get("100.64.0.99")).toBe(a.id);
    expect(moved.flows.some((f) => f.match.includes(`in_port=99,dl_src=${a.macAddress}`))).toBe(true);
  });

  test("has no port for an instance that is off and gone, nor for another node's", async () => {
    const world = await World.open();
    const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
    const eni = await world.eni(net, []);
    expect(planNetwork(world.store.read(), "node-2", config, bare).ports).toHaveLength(2);
    await world.turnOff(eni);
    expect(planNetwork(world.store.read(), NODE_ID, config, bare).ports).toHaveLength(2);
  });

  test("gives the host a route to each VPC, but not over a network that the host has already, and says so", async () => {
    const world = await World.open();
    const [one, two] = [
      await world.vpc("172.31.0.0/16", "172.31.0.0/20"),
      await world.vpc("10.0.0.0/16", "10.0.1.0/24"),
    ];
    for (const net of [one, two]) await world.eni(net, []);
    const routes = (hostRoutes: string[]) => {
      const plan = planNetwork(world.store.read(), NODE_ID, config, { ...bare, hostRoutes });
      return [plan.devices[1]!.routes.map((r) => r.cidr), plan.notes.length] as const;
    };
    expect(routes([])).toEqual([["172.31.0.0/16", "10.0.0.0/16"], 0]);
    expect(routes(["172.31.16.0/20", "192.0.2.0/24"])).toEqual([["10.0.0.0/16"], 1]);
    expect(routes(["198.18.4.0/24"])[1]).toBe(1);
  });
});
