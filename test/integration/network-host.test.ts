/** Guests, their host, and the world beyond it: public addresses, NAT, and what survives a restart of Open vSwitch. */
import { describe, expect, test } from "bun:test";
import { missingProgram } from "../../src/host/host-error.ts";
import { ensureTap, type RunCommand, removeTap } from "../../src/host/net/tap.ts";
import { run } from "../../src/host/run.ts";
import { tapName } from "../../src/model/network-names.ts";
import { put, remove } from "../../src/model/store.ts";
import { networkInterfaces, routeTables } from "../../src/model/tables.ts";
import { nodeUnavailable, until, withNode } from "../support/netns.ts";
import { connect, guestOf, hold, pings, serve, World, withAgent } from "../support/netns-world.ts";

const lacking = nodeUnavailable();
const suite = describe.skipIf(lacking !== undefined);
const SECONDS = 1000;
const addressOf = (eni: { privateIpAddresses: readonly { address: string }[] }) => eni.privateIpAddresses[0]!.address;

suite(`guests, host and the world${lacking ? ` (skipped: ${lacking})` : ""}`, () => {
  test(
    "the host reaches a guest by both addresses, and a public address alone leads a guest out",
    async () => {
      const world = await World.open();
      const net = await world.vpc("172.31.0.0/16", "172.31.0.0/20");
      const group = await world.group(net, { protocol: "tcp", fromPort: 22, toPort: 22, from: "0.0.0.0/0" });
      const pub = await world.eni(net, [group], { publicIp: "198.18.0.10" });
      const pub2 = await world.eni(net, [group], { publicIp: "198.18.0.11" });
      const priv = await world.eni(net, [group]);
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const a = await guestOf(node, "a", pub, net.subnet);
          const a2 = await guestOf(node, "a2", pub2, net.subnet);
          const b = await guestOf(node, "b", priv, net.subnet);
          const out = await node.outside("w", { node: "192.0.2.1/24", outside: "192.0.2.2/24" });
          expect(await agent.settled()).toMatchObject({ ok: true, reason: "" });
          await serve(a, 22);
          await serve(a, 81);
          await serve(a2, 22);
          await serve(b, 22);
          await serve(out, 443);

          expect(await connect(node, addressOf(pub), 22)).toBe("198.18.0.1");
          expect(await connect(node, "198.18.0.10", 22)).toBe("198.18.0.1");
          expect(await connect(node, addressOf(priv), 22)).toBe("198.18.0.1");
          expect(await connect(node, "198.18.0.10", 81)).toBeUndefined();
          expect(await connect(node, addressOf(pub), 81)).toBeUndefined();
          // Out by NAT behind the host's address; without a public address not at all.
          expect(await connect(a, "192.0.2.2", 443)).toBe("192.0.2.1");
          expect(await connect(b, "192.0.2.2", 443)).toBeUndefined();
          // A narrower path beyond the host: TCP keeps to it from the first segment on.
          await node.exec(["ip", "link", "set", "up0", "mtu", "1280"]);
          const bulk = hold(a, "192.0.2.2", 443);
          bulk.write(`${"x".repeat(20_000)}end\n`);
          await bulk.waitFor(/xend/);
          // The host itself is part of the world beyond.
          await serve(node, 8080);
          expect(await connect(a, "198.18.0.1", 8080)).toBe("198.18.0.10");
          expect(await connect(b, "198.18.0.1", 8080)).toBeUndefined();
          // Guest to guest by public addresses, to itself too: the peer sees the public one.
          expect(await connect(a2, "198.18.0.10", 22)).toBe("198.18.0.11");
          expect(await connect(a, "198.18.0.10", 22)).toBe("198.18.0.10");
          expect(await connect(a2, "198.18.0.10", 81)).toBeUndefined();
          expect(await connect(b, "198.18.0.10", 22)).toBeUndefined();
          // The world reaches a guest by its public address where it has a route to the pool.
          await out.exec(["ip", "route", "add", "198.18.0.0/16", "via", "192.0.2.1"]);
          expect(await connect(out, "198.18.0.10", 22)).toBe("192.0.2.2");
          // Nobody outside can claim an address of the VPC.
          await out.exec(["ip", "addr", "add", `${addressOf(pub2)}/32`, "dev", "lo"]);
          await out.exec(["ip", "route", "replace", "198.18.0.0/16", "via", "192.0.2.1", "src", addressOf(pub2)]);
          expect(await connect(out, "198.18.0.10", 22)).toBeUndefined();

          // The address moves to the other guest: both sides follow, in one pass.
          const { publicIp: _, ...without } = pub;
          await world.write(
            put(networkInterfaces, without),
            put(networkInterfaces, { ...priv, publicIp: "198.18.0.10" }),
          );
          await agent.settled();
          expect(await connect(node, "198.18.0.10", 22)).toBe("198.18.0.1");
          expect(await connect(b, "192.0.2.2", 443)).toBe("192.0.2.1");
          expect(await connect(a, "192.0.2.2", 443)).toBeUndefined();

          // Without the route to the internet gateway, nothing leaves.
          await world.write(put(routeTables, { ...net.table, routes: net.table.routes.slice(0, 1) }));
          await agent.settled();
          expect(await connect(b, "192.0.2.2", 443)).toBeUndefined();
          expect(await connect(node, addressOf(priv), 22)).toBe("198.18.0.1");
          expect((await node.exec(["nft", "list", "table", "ip", "hive"])).stdout).toContain("masquerade");
        }),
      );
    },
    90 * SECONDS,
  );

  test(
    "ports of instances that are off go away, and ports of others on the bridge stay",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const group = await world.group(net);
      const [kept, gone] = [await world.eni(net, [group]), await world.eni(net, [group])];
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const ports = async () =>
            (await node.exec(["ovs-vsctl", `--db=${node.ovsdb}`, "list-ports", "br-int"])).stdout
              .trim()
              .split("\n")
              .sort();
          await agent.settled();
          await node.exec(["ip", "link", "add", "theirs", "type", "veth", "peer", "name", "theirs2"]);
          await node.exec(["ovs-vsctl", `--db=${node.ovsdb}`, "add-port", "br-int", "theirs"]);
          expect(await ports()).toEqual(["hive-gw", "hive-imds", tapName(kept.id), tapName(gone.id), "theirs"].sort());
          await world.turnOff(gone);
          await agent.settled();
          expect(await ports()).toEqual(["hive-gw", "hive-imds", tapName(kept.id), "theirs"].sort());
          // Its number is not given out again at once.
          const next = await world.eni(net, [group]);
          await agent.settled();
          const ofport = await node.exec([
            "ovs-vsctl",
            `--db=${node.ovsdb}`,
            "get",
            "interface",
            tapName(next.id),
            "ofport_request",
          ]);
          expect(Number(ofport.stdout)).toBe(18);
          await world.write(remove(networkInterfaces, next.id));
          await agent.settled();
          expect(await ports()).not.toContain(tapName(next.id));
        }),
      );
    },
    60 * SECONDS,
  );

  test(
    "a guest's device may come after its port, and again after it was removed",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const eni = await world.eni(net, [await world.group(net, { protocol: "icmp", from: "0.0.0.0/0" })]);
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const exec: RunCommand = (argv, options) => run([...node.prefix, ...argv], options);
          const ofport = async () => {
            const got = await node.try([
              "ovs-vsctl",
              `--db=${node.ovsdb}`,
              "get",
              "interface",
              tapName(eni.id),
              "ofport",
            ]);
            return got.code === 0 ? Number(got.stdout) : undefined;
          };
          expect((await agent.settled()).ok).toBe(true);
          expect(await ofport()).toBe(-1);
          expect((await ensureTap({ name: tapName(eni.id) }, exec)).ok).toBe(true);
          await until(async () => (await ofport()) === 16, "the switch has opened the TAP");
          expect((await removeTap(tapName(eni.id), exec)).ok).toBe(true);
          for (const name of ["first", "second"]) {
            await guestOf(node, name, eni, net.subnet);
            await until(() => pings(node, addressOf(eni)), `the ${name} device of this name carries packets`);
            await node.exec(["ip", "link", "del", tapName(eni.id)]);
          }
        }),
      );
    },
    60 * SECONDS,
  );

  test(
    "where nftables is missing, iptables does the same and leaves the rules of others",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const eni = await world.eni(net, [await world.group(net)], { publicIp: "198.18.0.10" });
      await withNode((node) =>
        withAgent(
          node,
          world,
          async ({ agent }) => {
            await node.exec(["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "203.0.113.0/24", "-j", "RETURN"]);
            const guest = await guestOf(node, "g", eni, net.subnet);
            const out = await node.outside("w", { node: "192.0.2.1/24", outside: "192.0.2.2/24" });
            await serve(out, 443);
            expect(await agent.settled()).toMatchObject({ ok: true, reason: "" });
            expect(await connect(guest, "192.0.2.2", 443)).toBe("192.0.2.1");
            const rules = (await node.exec(["iptables", "-t", "nat", "-S"])).stdout;
            expect(rules).toContain("203.0.113.0/24");
            expect(rules.match(/-j HIVE-BR-INT$/gm)).toHaveLength(1);
            expect((await node.try(["nft", "list", "table", "ip", "hive"])).code).not.toBe(0);
          },
          {},
          (argv) => (argv[0] === "nft" ? missingProgram("nft") : undefined),
        ),
      );
    },
    60 * SECONDS,
  );

  test(
    "a bridge that is not Hive's is left alone, and said so",
    async () => {
      const world = await World.open();
      await withNode(async (node) => {
        await node.exec([
          "ovs-vsctl",
          `--db=${node.ovsdb}`,
          "add-br",
          "br-int",
          "--",
          "set",
          "bridge",
          "br-int",
          "datapath_type=netdev",
        ]);
        await withAgent(node, world, async ({ agent }) => {
          const status = await agent.settled();
          expect(status).toMatchObject({ ok: false });
          expect(status.reason).toContain("br-int is there and is not Hive's");
          const flows = await node.exec(["ovs-ofctl", "dump-flows", `unix:${node.directory}/br-int.mgmt`]);
          expect(flows.stdout).toContain("NORMAL");
        });
      });
    },
    60 * SECONDS,
  );
});

suite(`a switch that comes and goes${lacking ? ` (skipped: ${lacking})` : ""}`, () => {
  test(
    "the agent says that Open vSwitch is missing, and heals when it comes",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const group = await world.group(net, { protocol: "icmp", from: "0.0.0.0/0" });
      const eni = await world.eni(net, [group]);
      await withNode(
        async (node) => {
          await withAgent(node, world, async ({ agent }) => {
            await guestOf(node, "g", eni, net.subnet);
            const before = await agent.settled();
            expect(before.ok).toBe(false);
            expect(before.reason).toMatch(/Open vSwitch is not ready: ovsdb-server .*openvswitch-switch/);
            await node.startDatabase();
            await node.exec(["ovs-vsctl", `--db=${node.ovsdb}`, "--no-wait", "init"]);
            await until(
              () => /ovs-vswitchd/.test(agent.status().reason),
              "the status names the missing daemon",
              20 * SECONDS,
            );
            await node.startSwitch();
            await until(() => agent.status().ok, "the agent has healed", 20 * SECONDS);
            expect(await pings(node, addressOf(eni))).toBe(true);
          });
        },
        { stopped: true },
      );
    },
    60 * SECONDS,
  );

  test(
    "kill -9 of ovs-vswitchd and of ovsdb-server is repaired, and an open connection goes on",
    async () => {
      const world = await World.open();
      const net = await world.vpc("10.0.0.0/16", "10.0.1.0/24");
      const group = await world.group(net, { protocol: "tcp", fromPort: 22, toPort: 22, from: "10.0.0.0/16" });
      const [client, server] = [
        await world.eni(net, [group]),
        await world.eni(net, [group], { publicIp: "198.18.0.9" }),
      ];
      await withNode((node) =>
        withAgent(node, world, async ({ agent }) => {
          const c = await guestOf(node, "c", client, net.subnet);
          const s = await guestOf(node, "s", server, net.subnet);
          await agent.settled();
          await serve(s, 22);
          const kept = hold(c, addressOf(server), 22);
          await kept.waitFor(/from 10\.0\.1\./);
          const outOfService = async (stop: () => Promise<void>, start: () => Promise<void>, name: string) => {
            await stop();
            await start();
            const startedAt = performance.now();
            await until(
              async () => (await connect(c, addressOf(server), 22, 300)) !== undefined,
              `traffic after ${name}`,
            );
            const healedMs = performance.now() - startedAt;
            console.log(`      ${name}: traffic again ${Math.round(healedMs)} ms after its start`);
            kept.write(`after ${name}\n`);
            await kept.waitFor(new RegExp(`after ${name}`));
            await until(() => agent.status().ok, "the agent is content");
          };
          await outOfService(() => node.stopSwitch(), node.startSwitch, "ovs-vswitchd");
          await outOfService(() => node.stopDatabase(), node.startDatabase, "ovsdb-server");
          // The host's side has been made anew, too.
          await world.allow(group, { protocol: "icmp", from: "0.0.0.0/0" });
          await agent.settled();
          expect(await pings(node, "198.18.0.9")).toBe(true);
          expect(await pings(node, addressOf(server))).toBe(true);
        }),
      );
    },
    60 * SECONDS,
  );
});
