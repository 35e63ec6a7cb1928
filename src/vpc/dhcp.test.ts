import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { clientMessage, type DhcpClientMessage, readReply } from "../../test/support/dhcp-client.ts";
import { silentLog } from "../lib/log.ts";
import { parseIpv4 } from "../model/ipv4.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import { put } from "../model/store.ts";
import { dhcpOptions, networkInterfaces } from "../model/tables.ts";
import { answerDhcp, DHCP_MESSAGE, decodeDhcp, encodeDhcp, type LeaseFacts } from "./dhcp.ts";
import { dhcpService, leaseFacts } from "./dhcp-service.ts";

const MAC = "0a:01:02:03:04:05";
const facts: LeaseFacts = {
  macAddress: MAC,
  address: "172.31.16.9",
  subnetMask: "255.255.240.0",
  broadcast: "172.31.31.255",
  router: "172.31.16.1",
  hostName: "ip-172-31-16-9",
  domainName: "ec2.internal",
  nameServers: ["192.0.2.53", "192.0.2.54"],
  ntpServers: [],
  netbiosNameServers: [],
  mtu: 1500,
  leaseSeconds: 3600,
};

/** What the server says to a client's message, read back as a client reads it. */
function say(message: Partial<DhcpClientMessage>, over: Partial<LeaseFacts> = {}) {
  const request = decodeDhcp(clientMessage({ mac: MAC, ...message }))!;
  const known = { ...facts, ...over };
  const reply = answerDhcp(request, known);
  return reply && readReply(encodeDhcp(reply, known.router));
}
const { DISCOVER, REQUEST, OFFER, ACK, NAK, DECLINE, RELEASE, INFORM } = DHCP_MESSAGE;

describe("a client's message", () => {
  test("DISCOVER gets an offer with everything that the interface is told", () => {
    const offer = say({ type: DISCOVER, xid: 0xdeadbeef, clientIdentifier: [1, 2, 3] })!;
    expect(offer).toMatchObject({ op: 2, type: OFFER, xid: 0xdeadbeef, yiaddr: facts.address, mac: MAC });
    expect(offer.options).toEqual({
      1: [255, 255, 240, 0],
      3: [172, 31, 16, 1],
      6: [192, 0, 2, 53, 192, 0, 2, 54],
      12: [...Buffer.from("ip-172-31-16-9")],
      15: [...Buffer.from("ec2.internal")],
      26: [1500 >> 8, 1500 & 255],
      28: [172, 31, 31, 255],
      51: [0, 0, 14, 16],
      53: [OFFER],
      54: [172, 31, 16, 1],
      58: [0, 0, 7, 8],
      59: [0, 0, 12, 78],
      61: [1, 2, 3],
    });
  });

  const own = facts.address;
  const server = facts.router;
  const table: [string, Partial<DhcpClientMessage>, number | undefined][] = [
    ["selecting our offer", { type: REQUEST, requested: own, server }, ACK],
    ["selecting another server's offer", { type: REQUEST, requested: own, server: "10.0.0.1" }, undefined],
    ["selecting a wrong address", { type: REQUEST, requested: "172.31.16.10", server }, NAK],
    ["rebooting with its address", { type: REQUEST, requested: own }, ACK],
    ["rebooting with an address from elsewhere", { type: REQUEST, requested: "192.168.1.4" }, NAK],
    ["renewing", { type: REQUEST, ciaddr: own }, ACK],
    ["rebinding with a wrong address", { type: REQUEST, ciaddr: "172.31.16.77" }, NAK],
    ["requesting nothing", { type: REQUEST }, undefined],
    ["asking for configuration alone", { type: INFORM, ciaddr: own }, ACK],
    ["releasing", { type: RELEASE, ciaddr: own, server }, undefined],
    ["declining", { type: DECLINE, requested: own, server }, undefined],
    ["another MAC", { type: DISCOVER, mac: "0a:01:02:03:04:06" }, undefined],
    ["by way of a relay", { type: DISCOVER, giaddr: "10.0.0.1" }, undefined],
    ["a server's message", { type: OFFER }, undefined],
    ["an unknown type", { type: 99 }, undefined],
  ];
  test.each(table)("%s", (_, message, answer) => {
    expect(say(message)?.type).toBe(answer as number);
  });

  test("a refusal has no address, is broadcast, and says why", () => {
    const nak = say({ type: REQUEST, requested: "10.9.9.9" })!;
    expect(nak).toMatchObject({ yiaddr: "0.0.0.0", ciaddr: "0.0.0.0", flags: 0x8000 });
    expect(Object.keys(nak.options)).toEqual(["53", "54", "56"]);
  });

  test("INFORM gets no address and no lease", () => {
    const ack = say({ type: INFORM, ciaddr: own })!;
    expect(ack).toMatchObject({ yiaddr: "0.0.0.0", ciaddr: own });
    for (const code of [51, 58, 59]) expect(ack.options).not.toHaveProperty(String(code));
    expect(ack.options[6]).toHaveLength(8);
  });

  test("options that find no room are left out whole, and the message stays within 548 bytes", () => {
    const packet = encodeDhcp(
      answerDhcp(decodeDhcp(clientMessage({ mac: MAC, type: DISCOVER }))!, {
        ...facts,
        domainName: "d".repeat(250),
        nameServers: Array.from({ length: 20 }, (_, i) => `192.0.2.${i}`),
      })!,
      facts.router,
    );
    expect(packet.length).toBeLessThanOrEqual(548);
    const reply = readReply(packet);
    expect(reply.options[3]).toEqual([172, 31, 16, 1]);
    expect(reply.options).not.toHaveProperty("15");
  });

  test("no bytes make it throw, and nothing malformed gets an answer", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 700 }), (bytes) => {
        decodeDhcp(bytes);
      }),
    );
    const whole = clientMessage({ mac: MAC, type: REQUEST, requested: own, server, clientIdentifier: [1, 2, 3, 4] });
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, value, length) => {
        const changed = Buffer.from(whole);
        changed[at] = value;
        const request = decodeDhcp(changed.subarray(0, length));
        const reply = request && answerDhcp(request, facts);
        if (reply) expect([ACK, NAK, OFFER] as number[]).toContain(readReply(encodeDhcp(reply, facts.router)).type);
      }),
    );
    expect(decodeDhcp(whole.subarray(0, 239))).toBeUndefined();
    const cut = Buffer.from(whole);
    cut[241] = 200; // the first option says it is longer than the message
    expect(decodeDhcp(cut.subarray(0, 260))).toBeUndefined();
  });
});

describe("the service", () => {
  let world: ComputeWorld;
  let eni: NetworkInterfaceRecord;
  beforeAll(async () => {
    world = await computeWorld();
    await world.launch();
    eni = world.store.read().all(networkInterfaces)[0]!;
  });
  afterAll(() => world.close());
  const settings = { nameServers: ["192.0.2.53"], mtu: 1450 };

  test("an interface is told what its subnet, VPC and options set say", () => {
    const own = eni.privateIpAddresses[0]!.address;
    expect(leaseFacts(world.store.read(), eni, settings)).toEqual({
      macAddress: eni.macAddress,
      address: own,
      subnetMask: "255.255.240.0",
      broadcast: "172.31.15.255",
      router: "172.31.0.1",
      hostName: `ip-${own.replaceAll(".", "-")}`,
      domainName: "ec2.internal",
      nameServers: ["192.0.2.53"],
      ntpServers: [],
      netbiosNameServers: [],
      mtu: 1450,
      leaseSeconds: 3600,
    });
  });

  test("name servers and NTP servers of the options set go first to the guest", async () => {
    const [set] = world.store.read().all(dhcpOptions);
    const options = [
      { key: "domain-name-servers", values: ["10.0.0.2", "AmazonProvidedDNS"] },
      { key: "ntp-servers", values: ["10.0.0.3"] },
    ];
    await world.write([put(dhcpOptions, { ...set!, options })]);
    const told = leaseFacts(world.store.read(), eni, settings)!;
    expect(told).toMatchObject({ nameServers: ["10.0.0.2", "192.0.2.53"], ntpServers: ["10.0.0.3"] });
    expect(told).not.toHaveProperty("domainName");
    await world.write([put(dhcpOptions, set!)]);
  });

  test("only a port of this node is answered", () => {
    const service = dhcpService({
      read: () => world.store.read(),
      directory: { byMetadataAddress: (address) => (address === "100.64.0.5" ? eni.id : undefined) },
      settings: () => settings,
      log: silentLog,
    });
    const packet = clientMessage({ mac: eni.macAddress, type: DISCOVER });
    const offer = readReply(service.answer("100.64.0.5", packet)!);
    expect(parseIpv4(offer.yiaddr)).toBe(parseIpv4(eni.privateIpAddresses[0]!.address)!);
    expect(service.answer("100.64.0.6", packet)).toBeUndefined();
    expect(service.answer("100.64.0.5", clientMessage({ mac: MAC, type: DISCOVER }))).toBeUndefined();
  });
});
