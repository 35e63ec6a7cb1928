import { expect, test } from "bun:test";
import { foreignBlocks, type HostAddressing, planDevices } from "./devices.ts";

const wanted = [
  { name: "hive-gw", addresses: ["198.18.0.1/16"], routes: [{ cidr: "172.31.0.0/16", source: "198.18.0.1" }] },
];
const link = (local: string, prefixlen: number, flags = ["UP"]) => ({
  ifname: "hive-gw",
  flags,
  addr_info: [{ family: "inet", local, prefixlen }],
});
const kernelRoute = { dst: "198.18.0.0/16", dev: "hive-gw", prefsrc: "198.18.0.1", protocol: "kernel" };
const ownRoute = { dst: "172.31.0.0/16", dev: "hive-gw", prefsrc: "198.18.0.1" };
const table: [string, HostAddressing, string[]][] = [
  ["a device as wanted needs nothing", { links: [link("198.18.0.1", 16)], routes: [kernelRoute, ownRoute] }, []],
  [
    "a new device gets all",
    { links: [], routes: [] },
    [
      "link set dev hive-gw up",
      "addr replace 198.18.0.1/16 dev hive-gw",
      "route replace 172.31.0.0/16 dev hive-gw src 198.18.0.1",
    ],
  ],
  [
    "an address and a route of before go, the kernel's own routes stay",
    { links: [link("198.19.0.1", 16)], routes: [kernelRoute, { dst: "10.0.0.0/16", dev: "hive-gw" }, ownRoute] },
    [
      "addr del 198.19.0.1/16 dev hive-gw",
      "addr replace 198.18.0.1/16 dev hive-gw",
      "route del 10.0.0.0/16 dev hive-gw",
    ],
  ],
];
test.each(table)("%s", (_, seen, lines) => expect(planDevices(wanted, seen)).toEqual(lines));

test("blocks of the host are those of other devices; neither a default route nor Hive's own", () => {
  const routes = [
    { dst: "default", dev: "eth0" },
    { dst: "192.0.2.0/24", dev: "eth0" },
    { dst: "192.0.2.9", dev: "eth0" },
    ownRoute,
  ];
  expect(foreignBlocks({ links: [], routes }, ["hive-gw"])).toEqual(["192.0.2.0/24", "192.0.2.9/32"]);
});
