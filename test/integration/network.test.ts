/** The network agent on a real switch, with namespaces for guests: what passes, and what must not. */
import { describe, expect, test } from "bun:test";
import { nodeUnavailable, until, withNode } from "../support/netns.ts";
import { connect, guestOf, hold, pings, serve, World, withAgent } from "../support/netns-world.ts";

const lacking = nodeUnavailable();
const suite = describe.skipIf(lacking !== undefined);
const SECONDS = 1000;

suite(`guests on one node${lacking ? ` (skipped: ${lacking})` : ""}`, () => {
  test(
    "a group lets in what its rules say, from the moment they are authorized until they are revoked",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const clients = await world.group(net);
      const servers = await world.group(net, { protocol: "tcp", fromPort: 22, toPort: 22, from: clients });
      const client = await world.eni(net, [clients]);
      const server = await world.eni(net, [servers]);
      const other = await world.eni(net, [await world.group(net)]);
      const address = server.privateIpAddresses[0]!.address;
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const c = await guestOf(node, "c", client, net.subnet);
          const s = await guestOf(node, "s", server, net.subnet);
          const o = await guestOf(node, "o", other, net.subnet);
          expect(await agent.settled()).toMatchObject({ ok: true, reason: "" });
          await serve(s, 22);
          await serve(s, 80);
          expect(await connect(c, address, 22)).toBe(client.privateIpAddresses[0]!.address);
          expect(await connect(c, address, 80)).toBeUndefined();
          expect(await connect(o, address, 22)).toBeUndefined();
          expect(await pings(c, address)).toBe(false);
          const web = await world.allow(servers, { protocol: "tcp", fromPort: 80, toPort: 90, from: "10.0.0.0/8" });
          await agent.settled();
          expect(await connect(o, address, 80)).toBe(other.privateIpAddresses[0]!.address);
          expect(await connect(o, address, 22)).toBeUndefined();
          const open = hold(o, address, 80);
          await open.waitFor(/from /);
          await world.revoke(web);
          await agent.settled();
          expect(await connect(o, address, 80)).toBeUndefined();
          // A tracked connection goes on, as on AWS.
          open.write("still here");
          await open.waitFor(/still here/);
          await world.allow(servers, { protocol: "icmp", fromPort: 8, toPort: -1, from: other_cidr(other) });
          await agent.settled();
          expect(await pings(o, address)).toBe(true);
          expect(await pings(c, address)).toBe(false);
          await until(() => agent.status().ok, "the agent is content");
        }),
      );
    },
    60 * SECONDS,
  );
});

const other_cidr = (eni: { privateIpAddresses: readonly { address: string }[] }): string =>
  `${eni.privateIpAddresses[0]!.address}/32`;
