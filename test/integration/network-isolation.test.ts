/** What a hostile guest tries, and how guests with equal addresses are told apart. Real switch, namespaces for guests. */
import { describe, expect, test } from "bun:test";
import { present } from "../../src/lib/assert.ts";
import { METADATA_ADDRESS, metadataAddress } from "../../src/model/network-names.ts";
import { type Namespace, nodeUnavailable, type TestNode, withNode } from "../support/netns.ts";
import { askUdp, connect, guestOf, pings, serve, serveUdp, World, withAgent } from "../support/netns-world.ts";

const lacking = nodeUnavailable();
const suite = describe.skipIf(lacking !== undefined);
const SECONDS = 1000;
/** The host's own address in the public pool. */
const HOST = "198.18.0.1";
const addressOf = (eni: { privateIpAddresses: readonly { address: string }[] }) => eni.privateIpAddresses[0]!.address;

/**
 * What `where` receives on eth0 that `filter` matches while `act` runs. Its end is marked by a ping from the host, which the guest's
 * groups have to allow.
 */
async function heard(
  node: TestNode,
  where: Namespace,
  address: string,
  filter: string,
  act: () => Promise<unknown>,
): Promise<string[]> {
  const all = `(${filter}) or (icmp and src host ${HOST})`;
  const dump = where.spawn(["tcpdump", "-i", "eth0", "-lnn", "--immediate-mode", "-Q", "in", all]);
  try {
    await dump.waitFor(/listening on eth0/);
    await act();
    expect(await pings(node, address)).toBe(true);
    await dump.waitFor(new RegExp(`${HOST} > ${address}: ICMP echo request`));
    return dump
      .output()
      .split("\n")
      .filter((line) => / (IP|ARP)/.test(line) && !line.includes(`${HOST} > `));
  } finally {
    await dump.kill("SIGTERM");
  }
}

suite(`hostile guests${lacking ? ` (skipped: ${lacking})` : ""}`, () => {
  test(
    "a guest speaks only with its own MAC and addresses, and no broadcast of it reaches another",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const group = await world.group(net, { protocol: "-1", from: "0.0.0.0/0" });
      const [bad, good, router] = [
        await world.eni(net, [group]),
        await world.eni(net, [group]),
        await world.eni(net, [group], { sourceDestCheck: false }),
      ];
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const [b, g, r] = [
            await guestOf(node, "b", bad, net.subnet),
            await guestOf(node, "g", good, net.subnet),
            await guestOf(node, "r", router, net.subnet),
          ];
          await agent.settled();
          expect(await pings(b, addressOf(good))).toBe(true);

          const seen = await heard(node, g, addressOf(good), "ether broadcast or arp[7] = 1 or icmp", async () => {
            // Another's address, from the right MAC.
            await b.exec(["ip", "addr", "add", `${addressOf(router)}/24`, "dev", "eth0"]);
            await b.try(["ping", "-n", "-c", "1", "-W", "1", "-I", addressOf(router), addressOf(good)]);
            await b.exec(["ip", "addr", "del", `${addressOf(router)}/24`, "dev", "eth0"]);
            // The right address, from another MAC: announced to all, and used.
            await b.exec(["ip", "neigh", "replace", addressOf(good), "lladdr", "0a:00:00:00:00:01", "dev", "eth0"]);
            await b.exec(["ip", "link", "set", "eth0", "address", router.macAddress]);
            await b.try(["ping", "-n", "-c", "1", "-W", "1", addressOf(good)]);
            await b.exec(["ip", "link", "set", "eth0", "address", bad.macAddress]);
            // Straight to the other's MAC, past the router.
            await b.exec(["ip", "neigh", "replace", addressOf(good), "lladdr", good.macAddress, "dev", "eth0"]);
            await b.try(["ping", "-n", "-c", "1", "-W", "1", addressOf(good)]);
            await b.exec(["ip", "neigh", "del", addressOf(good), "dev", "eth0"]);
            // Broadcasts, ARP among them.
            await b.try(["ping", "-n", "-b", "-c", "1", "-W", "1", "10.0.1.255"]);
            await b.try(["ping", "-n", "-c", "1", "-W", "1", "10.0.1.250"]);
          });
          expect(seen).toEqual([]);
          expect(
            await heard(node, g, addressOf(good), "ether broadcast or arp[7] = 1 or icmp", () =>
              pings(b, addressOf(good)),
            ),
          ).not.toEqual([]);

          // With the check off, a guest may forward for others, still only from its own MAC.
          await r.exec(["ip", "addr", "add", "10.9.9.9/32", "dev", "lo"]);
          const forwarded = await heard(node, g, addressOf(good), "icmp", () =>
            r.try(["ping", "-n", "-c", "1", "-W", "1", "-I", "10.9.9.9", addressOf(good)]),
          );
          expect(forwarded.join()).toContain("10.9.9.9 > ");
          expect(agent.status().ok).toBe(true);
        }),
      );
    },
    60 * SECONDS,
  );

  test(
    "two VPCs may use the same addresses: each guest is told apart by its port, and none reaches the other VPC",
    async () => {
      const world = await World.open();
      const one = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const two = await world.vpc("10.0.0.0/16", "10.0.1.0/24", { isolated: true });
      const all = { protocol: "-1", from: "0.0.0.0/0" };
      const [g1, g2] = [await world.group(one, all), await world.group(two, all)];
      const a1 = await world.eni(one, [g1], { address: "10.0.1.7" });
      const a2 = await world.eni(two, [g2], { address: "10.0.1.7" });
      const b2 = await world.eni(two, [g2], { address: "10.0.1.9" });
      await withNode((node) =>
        withAgent(node, world, async ({ agent, config }) => {
          const guests = {
            a1: await guestOf(node, "a1", a1, one.subnet),
            a2: await guestOf(node, "a2", a2, two.subnet),
          };
          const gb2 = await guestOf(node, "b2", b2, two.subnet);
          const status = await agent.settled();
          expect(status.ok).toBe(true);
          expect(status.reason).toContain(`cannot reach ${two.vpc.id}`);
          await serve(gb2, 22);
          expect(await connect(guests.a2, "10.0.1.9", 22)).toBe("10.0.1.7");
          expect(await connect(guests.a1, "10.0.1.9", 22)).toBeUndefined();

          await serve(node, 80, METADATA_ADDRESS);
          for (const [eni, guest] of [
            [a1, guests.a1],
            [a2, guests.a2],
          ] as const) {
            const source = present(await connect(guest, METADATA_ADDRESS, 80), "the metadata server answers");
            expect(agent.directory.byMetadataAddress(source)).toBe(eni.id);
          }
          // A guest that claims the address of another's port is not heard.
          const others = metadataAddress(config.network.metadataPool, 17);
          await guests.a1.exec(["ip", "addr", "add", `${others}/32`, "dev", "eth0"]);
          await guests.a1.exec(["ip", "route", "add", `${METADATA_ADDRESS}/32`, "dev", "eth0", "src", others]);
          expect(await connect(guests.a1, METADATA_ADDRESS, 80)).toBeUndefined();
          await guests.a1.exec(["ip", "route", "replace", `${METADATA_ADDRESS}/32`, "dev", "eth0"]);
          await guests.a1.exec(["ip", "addr", "del", `${others}/32`, "dev", "eth0"]);
          // The route on the link asks by ARP, which is answered too; other ports of the host's address are closed.
          expect(await connect(guests.a1, METADATA_ADDRESS, 80)).toBeDefined();
          await serve(node, 8080, METADATA_ADDRESS);
          expect(await connect(guests.a1, METADATA_ADDRESS, 8080)).toBeUndefined();
        }),
      );
    },
    60 * SECONDS,
  );

  test(
    "DHCP of a guest without an address, and of one that renews, reaches the server and is answered to that guest alone",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const group = await world.group(net, { protocol: "icmp", from: "0.0.0.0/0" });
      const [bare, other] = [await world.eni(net, [group]), await world.eni(net, [group])];
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const guest = await guestOf(node, "g", bare, net.subnet);
          const bystander = await guestOf(node, "o", other, net.subnet);
          await agent.settled();
          await serveUdp(node, METADATA_ADDRESS, 67);
          const renewed = present(await askUdp(guest, 68, "10.0.1.1", 67), "a renewal is answered");
          await guest.exec(["ip", "addr", "flush", "dev", "eth0"]);
          await guest.exec(["ip", "route", "add", "default", "dev", "eth0"]);
          let first: string | undefined;
          const overheard = await heard(node, bystander, addressOf(other), "udp", async () => {
            first = await askUdp(guest, 68, "255.255.255.255", 67);
          });
          expect(overheard).toEqual([]);
          for (const seen of [renewed, present(first, "a first request is answered")]) {
            const [address, port] = seen.split(":");
            expect([agent.directory.byMetadataAddress(address!), port]).toEqual([bare.id, "68"]);
          }
          expect(first).not.toBe(renewed);
        }),
      );
    },
    60 * SECONDS,
  );
});
