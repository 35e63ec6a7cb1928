/** A DHCP client's side of the wire, written apart from the server's codec, so that one checks the other. */

export interface DhcpClientMessage {
  readonly type: number;
  readonly mac: string;
  readonly xid: number;
  readonly ciaddr: string;
  readonly giaddr: string;
  readonly requested: string;
  readonly server: string;
  readonly clientIdentifier: readonly number[];
}

const quad = (text: string): number[] => text.split(".").map(Number);

/** The message as bytes; members that are not given are absent or zero. */
export function clientMessage(message: Partial<DhcpClientMessage>): Uint8Array {
  const bytes = new Uint8Array(300);
  bytes.set([1, 1, 6, 0]);
  new DataView(bytes.buffer).setUint32(4, message.xid ?? 1);
  if (message.ciaddr) bytes.set(quad(message.ciaddr), 12);
  if (message.giaddr) bytes.set(quad(message.giaddr), 24);
  bytes.set(
    (message.mac ?? "00:00:00:00:00:00").split(":").map((digits) => Number.parseInt(digits, 16)),
    28,
  );
  bytes.set([0x63, 0x82, 0x53, 0x63], 236);
  const options = [
    ...(message.type === undefined ? [] : [53, 1, message.type]),
    ...(message.clientIdentifier ? [61, message.clientIdentifier.length, ...message.clientIdentifier] : []),
    ...(message.requested ? [50, 4, ...quad(message.requested)] : []),
    ...(message.server ? [54, 4, ...quad(message.server)] : []),
    55,
    3,
    1,
    3,
    6,
    255,
  ];
  bytes.set(options, 240);
  return bytes;
}

export interface DhcpServerMessage {
  readonly op: number;
  readonly xid: number;
  readonly flags: number;
  readonly ciaddr: string;
  readonly yiaddr: string;
  readonly mac: string;
  readonly type: number;
  readonly options: { readonly [code: number]: number[] };
}

/** Reads a server's message. @throws Error when it is not one */
export function readReply(bytes: Uint8Array): DhcpServerMessage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(236) !== 0x63825363) throw new Error("no DHCP message");
  const options: { [code: number]: number[] } = {};
  let at = 240;
  while (bytes[at] !== 255) {
    const length = bytes[at + 1];
    if (length === undefined || at + 2 + length > bytes.length) throw new Error("an option is cut short");
    options[bytes[at]!] = [...bytes.subarray(at + 2, at + 2 + length)];
    at += 2 + length;
  }
  const address = (offset: number) => [...bytes.subarray(offset, offset + 4)].join(".");
  return {
    op: bytes[0]!,
    xid: view.getUint32(4),
    flags: view.getUint16(10),
    ciaddr: address(12),
    yiaddr: address(16),
    mac: [...bytes.subarray(28, 34)].map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
    type: options[53]?.[0] ?? 0,
    options,
  };
}
