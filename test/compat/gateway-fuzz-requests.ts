/** Random and mutated requests, all from one seed: nearly right ones that reach the handlers, and nonsense that should not. */

import { ec2QueryName, ec2Service } from "../../src/protocol/ec2-query.ts";
import type { Member, Structure } from "../../src/protocol/shape.ts";
import { sha256Hex } from "../../src/protocol/sigv4-canonical.ts";
import { signRequest } from "../../src/protocol/sigv4-sign.ts";

export interface FuzzRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array<ArrayBuffer> | undefined;
}
export interface Signer {
  readonly url: string;
  readonly keys: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** mulberry32: small, fast, the same everywhere. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const FORM = "application/x-www-form-urlencoded; charset=utf-8";
const NASTY: readonly string[] = [
  "",
  "0",
  "-1",
  "1",
  "5",
  "65536",
  "2147483648",
  "99999999999999999999",
  "1e309",
  "NaN",
  "true",
  "false",
  "TRUE",
  "null",
  "undefined",
  "__proto__",
  "constructor",
  "default",
  "*",
  "?",
  "\\",
  "tag:x",
  "state",
  "vpc-id",
  "10.0.0.0/8",
  "0.0.0.0/0",
  "300.1.2.3/99",
  "::/0",
  "sg-00000000",
  "vpc-0123456789abcdef0",
  "i-0123456789abcdef0",
  "ami-00000000",
  "../../etc/passwd",
  "$(reboot)`id`;",
  "<&>'\"]]>",
  "\u0000",
  "\u0001\u001f\u007f\ufffe",
  "💥é\u202e",
  "%00%ff%",
  "2026-01-01T00:00:00Z",
  "9999999-99-99",
  "aGVsbG8=",
  "=====",
  "x".repeat(300),
  "a/b".repeat(200),
];

/** How ids begin that a parameter of this name takes; a text that begins no id where it takes none. */
const PREFIXES: readonly (readonly [name: RegExp, prefix: string])[] = [
  [/NetworkInterfaceId/, "eni-"],
  [/InstanceId/, "i-"],
  [/(Security)?GroupId/, "sg-"],
  [/VpcId/, "vpc-"],
  [/SubnetId/, "subnet-"],
  [/ImageId/, "ami-"],
  [/VolumeId/, "vol-"],
  [/InstanceType/, "h1."],
];
const prefixFor = (name: string): string => PREFIXES.findLast(([pattern]) => pattern.test(name))?.[1] ?? "\n";

export class RequestMaker {
  readonly #random: () => number;
  readonly #operations: readonly string[];
  /** Ids that exist, and come back now and then. */
  readonly #known: readonly string[];

  constructor(random: () => number, operations: readonly string[], known: readonly string[]) {
    this.#random = random;
    this.#operations = operations;
    this.#known = known;
  }

  make(signer: Signer): FuzzRequest {
    const roll = this.#random();
    if (roll < 0.6) return this.#signed(signer, this.#form());
    if (roll < 0.7) return this.#mutated(this.#signed(signer, this.#form()));
    if (roll < 0.78) return this.#signed(signer, Buffer.from(this.#mutatedBytes(Buffer.from(this.#form()))));
    if (roll < 0.83) return this.#signed(signer, this.#bytes());
    if (roll < 0.87) return this.#signed(signer, this.#oddNames());
    if (roll < 0.92) return this.#unsigned();
    if (roll < 0.96) return this.#presigned();
    if (roll < 0.998)
      return this.#signed(
        signer,
        this.#form(),
        this.#pick(["text/xml", "application/json", "multipart/form-data", "", "\u00e9"]),
      );
    return this.#signed(
      signer,
      `Action=${this.#pick(this.#operations)}&Version=2016-11-15&InstanceId.1=${"x".repeat(1_000_000)}`,
    );
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)]!;
  }
  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
  #text(): string {
    return this.#random() < 0.3 && this.#known.length > 0 ? this.#pick(this.#known) : this.#pick(NASTY);
  }

  /** An operation with parameters that its model has. */
  #form(): string {
    const action =
      this.#random() < 0.95
        ? this.#pick(this.#operations)
        : this.#pick(["", "Nope", "DescribeHosts", "a".repeat(5000)]);
    const version = this.#random() < 0.98 ? "2016-11-15" : this.#text();
    const parameters: [string, string][] = [
      ["Action", action],
      ["Version", version],
    ];
    const input = ec2Service().operation(action)?.input;
    if (input) this.#structure(input, "", parameters, 0);
    return new URLSearchParams(parameters).toString();
  }

  #structure(shape: Structure, prefix: string, into: [string, string][], depth: number): void {
    if (depth > 4) return;
    for (const member of shape.members) {
      const wanted = member.required ? 0.97 : depth === 0 ? 0.15 : 0.3;
      if (this.#random() < wanted) this.#member(member, prefix + ec2QueryName(member), into, depth);
    }
  }

  #member(member: Member, name: string, into: [string, string][], depth: number): void {
    const { shape } = member;
    switch (shape.kind) {
      case "structure":
        this.#structure(shape, `${name}.`, into, depth + 1);
        return;
      case "list":
        for (let n = 1 + this.#below(3); n > 0; n--)
          this.#member(
            shape.item,
            `${name}.${this.#random() < 0.9 ? n : this.#pick(["0", "01", "-1", "999999999", "4294967297", "x", ""])}`,
            into,
            depth + 1,
          );
        return;
      case "boolean":
        into.push([name, this.#random() < 0.9 ? this.#pick(["true", "false"]) : this.#text()]);
        return;
      case "integer":
        into.push([name, this.#random() < 0.7 ? String(this.#below(12)) : this.#text()]);
        return;
      case "string": {
        const fitting = this.#known.filter((text) => text.startsWith(prefixFor(name)));
        if (fitting.length > 0 && this.#random() < 0.6) {
          into.push([name, this.#pick(fitting)]);
          return;
        }
        into.push([name, shape.values && this.#random() < 0.8 ? this.#pick([...shape.values]) : this.#text()]);
        return;
      }
      default:
        into.push([name, this.#text()]);
    }
  }

  /** Names that no model has, deep and long. */
  #oddNames(): string {
    const name = this.#pick([
      "Filter.1.Name.1.Name",
      `${"Tag.1.".repeat(80)}Key`,
      `Filter.${"9".repeat(300)}.Name`,
      "__proto__.polluted",
      "Filter.1.__proto__",
      "constructor",
      ".",
      "...",
      "Filter..Name",
      "=",
      "n".repeat(10_000),
    ]);
    const many = this.#random() < 0.1 ? `&${"a=1&".repeat(25_000)}` : "";
    return `Action=${this.#pick(this.#operations)}&Version=2016-11-15&${name}=${encodeURIComponent(this.#text())}${many}`;
  }

  #bytes(): Buffer<ArrayBuffer> {
    const bytes = Buffer.alloc(this.#below(400));
    for (let at = 0; at < bytes.length; at++) bytes[at] = this.#below(256);
    return bytes;
  }

  #mutatedBytes(bytes: Uint8Array): Uint8Array {
    const out = Uint8Array.from(bytes);
    for (let n = 1 + this.#below(4); n > 0 && out.length > 0; n--) out[this.#below(out.length)] = this.#below(256);
    return out;
  }

  #signed({ url, keys }: Signer, body: string | Uint8Array, contentType = FORM): FuzzRequest {
    const bytes = typeof body === "string" ? Buffer.from(body) : Buffer.from(body);
    const headers = signRequest(
      {
        method: "POST",
        url: new URL(`${url}/`),
        service: this.#random() < 0.95 ? "ec2" : this.#pick(["sts", "s3", "iam", "dynamodb", "hive"]),
        region: "us-east-1",
        // Sent as Latin-1, which a signer would have to know: only ASCII is signed.
        headers: /^[\x20-\x7e]+$/.test(contentType) ? { "content-type": contentType } : {},
        body: { hash: sha256Hex(bytes) },
        now: Date.now(),
      },
      keys,
    );
    return { method: "POST", target: "/", headers, body: bytes };
  }

  /** A good request with one thing of its head changed. */
  #mutated(request: FuzzRequest): FuzzRequest {
    const names = Object.keys(request.headers).filter((name) => name !== "host");
    const name = this.#pick(names);
    const value = request.headers[name] ?? "";
    const at = this.#below(value.length);
    const change = this.#pick(["cut", "flip", "drop", "replace", "target", "method"]);
    switch (change) {
      case "cut":
        return { ...request, headers: { ...request.headers, [name]: value.slice(0, at) } };
      case "flip":
        return {
          ...request,
          headers: {
            ...request.headers,
            [name]: `${value.slice(0, at)}${String.fromCharCode(33 + this.#below(94))}${value.slice(at + 1)}`,
          },
        };
      case "replace":
        return {
          ...request,
          headers: {
            ...request.headers,
            [name]: this.#pick([
              "",
              ",",
              "=,=",
              "AWS4-HMAC-SHA256",
              "AWS4-HMAC-SHA256 Credential=////,SignedHeaders=;;;,Signature=",
              "a".repeat(7000),
            ]),
          },
        };
      case "drop": {
        const { [name]: _, ...headers } = request.headers;
        return { ...request, headers };
      }
      case "target":
        return {
          ...request,
          target: this.#pick([
            "/?",
            "/?x=%",
            "/?Action=DescribeVpcs",
            "/bucket/key",
            "//",
            "/a/../b",
            "/_hive/nothing",
            `/?${"q=1&".repeat(2000)}`,
          ]),
        };
      default:
        return { ...request, method: this.#pick(["PUT", "DELETE", "PATCH", "OPTIONS"]) };
    }
  }

  #unsigned(): FuzzRequest {
    const body = this.#random() < 0.5 ? Buffer.from(this.#form()) : this.#bytes();
    return { method: "POST", target: "/", headers: { "content-type": FORM }, body };
  }

  #presigned(): FuzzRequest {
    const parts = [
      ["X-Amz-Algorithm", this.#pick(["AWS4-HMAC-SHA256", "", "x"])],
      [
        "X-Amz-Credential",
        this.#pick(["AKIA/20260101/us-east-1/ec2/aws4_request", "a/b", "////", "%", "x".repeat(2000)]),
      ],
      ["X-Amz-Date", this.#pick(["20260101T000000Z", "now", "99999999T999999Z"])],
      ["X-Amz-Expires", this.#pick(["60", "-1", "1e9", "x"])],
      ["X-Amz-SignedHeaders", this.#pick(["host", "", ";;", "constructor;host"])],
      ["X-Amz-Signature", this.#pick(["", "0".repeat(64), this.#text().slice(0, 50)])],
    ].filter(() => this.#random() < 0.9);
    const query = parts.map(([name, value]) => `${name}=${encodeURIComponent(value!)}`).join("&");
    return { method: "GET", target: `/?Action=DescribeVpcs&Version=2016-11-15&${query}`, headers: {}, body: undefined };
  }
}
