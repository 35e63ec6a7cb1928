/**
 * DHCP for IPv4 (RFC 2131, options of RFC 2132): reads a client's message, decides the answer from what is known of its
 * port, and writes it. There is no pool and no lease to keep: an interface has its address for life, so every answer
 * follows from the tables. Pure; input is bytes that a hostile guest chose.
 */
import { formatIpv4, parseIpv4 } from "../model/ipv4.ts";

export const DHCP_MESSAGE = {
  DISCOVER: 1,
  OFFER: 2,
  REQUEST: 3,
  DECLINE: 4,
  ACK: 5,
  NAK: 6,
  RELEASE: 7,
  INFORM: 8,
} as const;

const OPTION = {
  subnetMask: 1,
  router: 3,
  nameServers: 6,
  hostName: 12,
  domainName: 15,
  mtu: 26,
  broadcast: 28,
  ntpServers: 42,
  netbiosNameServers: 44,
  netbiosNodeType: 46,
  requestedAddress: 50,
  leaseTime: 51,
  messageType: 53,
  serverIdentifier: 54,
  message: 56,
  renewalTime: 58,
  rebindingTime: 59,
  clientIdentifier: 61,
} as const;

/** Offsets of the fixed part, in bytes; all numbers are big-endian. */
const FIXED = { xid: 4, flags: 10, ciaddr: 12, yiaddr: 16, giaddr: 24, chaddr: 28, cookie: 236, options: 240 } as const;
const MAGIC_COOKIE = 0x63825363;
const BOOTREQUEST = 1;
const BOOTREPLY = 2;
const ETHERNET = 1;
const BROADCAST_FLAG = 0x8000;
/** A BOOTP message has 300 bytes at least; a client takes 576 bytes of IP at least, 28 of them headers. */
const REPLY_BYTES_MIN = 300;
const REPLY_BYTES_MAX = 548;

export interface DhcpRequest {
  readonly type: number;
  readonly xid: number;
  readonly flags: number;
  /** The address that the client already uses, or 0. */
  readonly ciaddr: number;
  readonly giaddr: number;
  /** Lower-case, with colons. */
  readonly macAddress: string;
  readonly requestedAddress?: number;
  readonly serverIdentifier?: number;
  readonly clientIdentifier?: Uint8Array;
}

/** What an interface is told. Addresses as dotted text. */
export interface LeaseFacts {
  readonly macAddress: string;
  readonly address: string;
  readonly subnetMask: string;
  readonly broadcast: string;
  readonly router: string;
  readonly hostName: string;
  readonly domainName?: string;
  readonly nameServers: readonly string[];
  readonly ntpServers: readonly string[];
  readonly netbiosNameServers: readonly string[];
  readonly netbiosNodeType?: number;
  readonly mtu: number;
  readonly leaseSeconds: number;
}

/** As EC2's. Half and seven eighths of it are for renewing and rebinding, as the RFC says. */
export const LEASE_SECONDS = 3600;

/** Reads a client's message; undefined when it is none, or is malformed. */
export function decodeDhcp(packet: Uint8Array): DhcpRequest | undefined {
  if (packet.length < FIXED.options) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  if (packet[0] !== BOOTREQUEST || packet[1] !== ETHERNET || packet[2] !== 6) return undefined;
  if (view.getUint32(FIXED.cookie) !== MAGIC_COOKIE) return undefined;
  const options = readOptions(packet.subarray(FIXED.options));
  const type = options?.get(OPTION.messageType);
  if (!options || type?.length !== 1) return undefined;
  const requested = addressIn(options.get(OPTION.requestedAddress));
  const server = addressIn(options.get(OPTION.serverIdentifier));
  const client = options.get(OPTION.clientIdentifier);
  return {
    type: type[0]!,
    xid: view.getUint32(FIXED.xid),
    flags: view.getUint16(FIXED.flags),
    ciaddr: view.getUint32(FIXED.ciaddr),
    giaddr: view.getUint32(FIXED.giaddr),
    macAddress: [...packet.subarray(FIXED.chaddr, FIXED.chaddr + 6)]
      .map((byte) => byte.toString(16).padStart(2, "0"))
      .join(":"),
    ...(requested !== undefined && { requestedAddress: requested }),
    ...(server !== undefined && { serverIdentifier: server }),
    ...(client && { clientIdentifier: client }),
  };
}

/** Options by code; the parts of one that comes several times are joined (RFC 3396). Undefined when one is cut short. */
function readOptions(bytes: Uint8Array): Map<number, Uint8Array> | undefined {
  const options = new Map<number, Uint8Array>();
  let at = 0;
  while (at < bytes.length) {
    const code = bytes[at]!;
    if (code === 0) {
      at++;
      continue;
    }
    if (code === 255) return options;
    const length = bytes[at + 1];
    if (length === undefined || at + 2 + length > bytes.length) return undefined;
    const value = bytes.subarray(at + 2, at + 2 + length);
    const before = options.get(code);
    options.set(code, before ? Buffer.concat([before, value]) : value);
    at += 2 + length;
  }
  return options; // Some clients leave the end out.
}

const addressIn = (value: Uint8Array | undefined): number | undefined =>
  value?.length === 4 ? new DataView(value.buffer, value.byteOffset, 4).getUint32(0) : undefined;

export interface DhcpReply {
  readonly type: number;
  readonly request: DhcpRequest;
  readonly yiaddr: number;
  readonly ciaddr: number;
  readonly options: readonly (readonly [code: number, value: Uint8Array])[];
}

/**
 * The answer to a client's message, or undefined when none is due: from another MAC than the interface's, by way of a
 * relay, to another server, a release (the address stays the interface's), or a decline (somebody answers to an address
 * that is this interface's alone; the flows see to it that it is the guest itself).
 */
export function answerDhcp(request: DhcpRequest, facts: LeaseFacts): DhcpReply | undefined {
  if (request.macAddress !== facts.macAddress || request.giaddr !== 0) return undefined;
  const own = address(facts.address);
  const grant = (type: number): DhcpReply => ({
    type,
    request,
    yiaddr: own,
    ciaddr: type === DHCP_MESSAGE.ACK ? request.ciaddr : 0,
    options: [...leaseOptions(facts), ...configurationOptions(facts)],
  });
  const refuse = (): DhcpReply => ({
    type: DHCP_MESSAGE.NAK,
    request,
    yiaddr: 0,
    ciaddr: 0,
    options: [[OPTION.message, Buffer.from("the address is not this interface's")]],
  });
  switch (request.type) {
    case DHCP_MESSAGE.DISCOVER:
      return grant(DHCP_MESSAGE.OFFER);
    case DHCP_MESSAGE.REQUEST: {
      const { serverIdentifier, requestedAddress, ciaddr } = request;
      if (serverIdentifier !== undefined && serverIdentifier !== address(facts.router)) return undefined;
      // Selecting and rebooting clients name the address in an option, renewing and rebinding ones use it already.
      const wanted = requestedAddress ?? ciaddr;
      if (wanted === 0) return undefined;
      return wanted === own && (ciaddr === 0 || ciaddr === own) ? grant(DHCP_MESSAGE.ACK) : refuse();
    }
    case DHCP_MESSAGE.INFORM:
      return {
        type: DHCP_MESSAGE.ACK,
        request,
        yiaddr: 0,
        ciaddr: request.ciaddr,
        options: configurationOptions(facts),
      };
    default:
      return undefined;
  }
}

const address = (text: string): number => parseIpv4(text) ?? 0;

function uint32(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => {
    bytes.writeUInt32BE(value, 4 * i);
  });
  return bytes;
}

function uint16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

const addresses = (texts: readonly string[]): Uint8Array =>
  uint32(...texts.map(parseIpv4).filter((value) => value !== undefined));

type Option = readonly [code: number, value: Uint8Array];

const leaseOptions = ({ leaseSeconds }: LeaseFacts): Option[] => [
  [OPTION.leaseTime, uint32(leaseSeconds)],
  [OPTION.renewalTime, uint32(Math.floor(leaseSeconds / 2))],
  [OPTION.rebindingTime, uint32(Math.floor((leaseSeconds * 7) / 8))],
];

/** The most needed first: what finds no room in the message is left out. */
const configurationOptions = (facts: LeaseFacts): Option[] => [
  [OPTION.subnetMask, addresses([facts.subnetMask])],
  [OPTION.router, addresses([facts.router])],
  [OPTION.nameServers, addresses(facts.nameServers)],
  [OPTION.mtu, uint16(facts.mtu)],
  [OPTION.hostName, Buffer.from(facts.hostName, "latin1")],
  [OPTION.domainName, Buffer.from(facts.domainName ?? "", "latin1")],
  [OPTION.broadcast, addresses([facts.broadcast])],
  [OPTION.ntpServers, addresses(facts.ntpServers)],
  [OPTION.netbiosNameServers, addresses(facts.netbiosNameServers)],
  [
    OPTION.netbiosNodeType,
    facts.netbiosNodeType === undefined ? Buffer.alloc(0) : Buffer.from([facts.netbiosNodeType]),
  ],
];

/** The message as bytes: 300 to 548 of them. `router` is the server's identifier: the address that a guest knows it by. */
export function encodeDhcp(reply: DhcpReply, router: string): Uint8Array {
  const { request } = reply;
  const packet = Buffer.alloc(REPLY_BYTES_MAX);
  packet[0] = BOOTREPLY;
  packet[1] = ETHERNET;
  packet[2] = 6;
  packet.writeUInt32BE(request.xid, FIXED.xid);
  // A refused client has no address to be reached at.
  const flags = reply.type === DHCP_MESSAGE.NAK ? request.flags | BROADCAST_FLAG : request.flags;
  packet.writeUInt16BE(flags, FIXED.flags);
  packet.writeUInt32BE(reply.ciaddr, FIXED.ciaddr);
  packet.writeUInt32BE(reply.yiaddr, FIXED.yiaddr);
  packet.set(Buffer.from(request.macAddress.replaceAll(":", ""), "hex"), FIXED.chaddr);
  packet.writeUInt32BE(MAGIC_COOKIE, FIXED.cookie);
  let at: number = FIXED.options;
  const options: Option[] = [
    [OPTION.messageType, Buffer.from([reply.type])],
    [OPTION.serverIdentifier, addresses([router])],
    ...reply.options,
    // Told back as it came (RFC 6842).
    [OPTION.clientIdentifier, request.clientIdentifier ?? Buffer.alloc(0)],
  ];
  for (const [code, value] of options) {
    if (value.length === 0 || value.length > 255 || at + 2 + value.length + 1 > packet.length) continue;
    packet[at] = code;
    packet[at + 1] = value.length;
    packet.set(value, at + 2);
    at += 2 + value.length;
  }
  packet[at] = 255;
  return packet.subarray(0, Math.max(REPLY_BYTES_MIN, at + 1));
}

/** A prefix length as a mask, such as 255.255.240.0. */
export const maskText = (prefix: number): string => formatIpv4(prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0);
