import { describe, expect, test } from "bun:test";
import { trustedId } from "../../model/ids.ts";
import type { DesiredNetwork, DesiredPort } from "../../vpc/plan-network.ts";
import type { OvsBridge, OvsPort } from "./ovsdb-watch.ts";
import { planVsctl } from "./plan-vsctl.ts";

const tap: DesiredPort = { name: "hv1", ofport: 16, kind: "tap", interfaceId: trustedId<"NetworkInterface">("eni-1") };
const imds: DesiredPort = { name: "hive-imds", ofport: 1, kind: "internal", mac: "0a:a9:fe:a9:fe:00" };
const desired = (ports: readonly DesiredPort[]): DesiredNetwork => ({
  bridge: "br-int",
  datapath: "auto",
  ports,
  nextOfport: 17,
  devices: [],
  nat: { gatewayDevice: "hive-gw", publicPool: "198.18.0.0/16", masquerade: true },
  flows: [],
  directory: new Map(),
  notes: [],
});
const seenTap: OvsPort = {
  name: "hv1",
  type: "",
  ofport: 16,
  ofportRequest: 16,
  mac: undefined,
  ifindex: 7,
  error: undefined,
  externalIds: new Map([
    ["hive", "1"],
    ["iface-id", "eni-1"],
    ["hive-ifindex", "7"],
  ]),
};
const bridge = (ports: readonly OvsPort[], fields: Partial<OvsBridge> = {}): ReadonlyMap<string, OvsBridge> =>
  new Map([
    [
      "br-int",
      {
        name: "br-int",
        datapathType: "netdev",
        failMode: "secure",
        externalIds: new Map([
          ["hive", "1"],
          ["hive-next-ofport", "17"],
        ]),
        ports: new Map(ports.map((port) => [port.name, port])),
        ...fields,
      },
    ],
  ]);
const plan = (...args: Parameters<typeof planVsctl>) => {
  const planned = planVsctl(...args);
  return planned.ok ? planned.value.join(" ") : planned.error.kind;
};

describe("the transaction of ports", () => {
  test("makes the bridge with its ports in one go", () => {
    expect(plan(desired([imds]), new Map(), "netdev")).toBe(
      "add-br br-int -- set Bridge br-int datapath_type=netdev fail_mode=secure external_ids:hive=1 external_ids:hive-next-ofport=17" +
        " -- add-port br-int hive-imds" +
        ' -- set Interface hive-imds ofport_request=1 external_ids:hive=1 type=internal mac="0a:a9:fe:a9:fe:00"',
    );
  });

  test("is empty when all is as wanted", () => {
    expect(plan(desired([tap]), bridge([seenTap]), "system")).toBe("");
  });

  test("refuses a bridge that does not carry Hive's mark", () => {
    expect(plan(desired([]), bridge([], { externalIds: new Map() }), "netdev")).toBe("unsupported");
  });

  test("removes what is Hive's and not wanted, and nothing else", () => {
    const theirs = { ...seenTap, name: "eth7", externalIds: new Map() };
    expect(plan(desired([]), bridge([theirs, seenTap]), "netdev")).toBe("--if-exists del-port br-int hv1");
  });

  test("notes which device the switch opened, and takes the port out when another one has the name now", () => {
    const unnoted = {
      ...seenTap,
      externalIds: new Map([...seenTap.externalIds].filter(([key]) => key !== "hive-ifindex")),
    };
    expect(plan(desired([tap]), bridge([unnoted]), "netdev")).toBe("set Interface hv1 external_ids:hive-ifindex=7");
    expect(plan(desired([tap]), bridge([{ ...seenTap, ifindex: 9 }]), "netdev")).toBe(
      "--if-exists del-port br-int hv1",
    );
    expect(plan(desired([tap]), bridge([{ ...seenTap, ifindex: 0 }]), "netdev")).toBe("");
  });
});
