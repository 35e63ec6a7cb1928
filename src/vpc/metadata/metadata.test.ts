import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ACCOUNT, type ComputeWorld, computeWorld } from "../../../test/support/compute-world.ts";
import { systemRandom } from "../../lib/random.ts";
import type { InstanceRecord, MetadataOptions } from "../../model/instance.ts";
import { put } from "../../model/store.ts";
import { instances, networkInterfaces } from "../../model/tables.ts";
import { type MetadataService, metadataService } from "./service.ts";

let world: ComputeWorld;
let service: MetadataService;
let ids: [string, string];
let now = Date.UTC(2026, 0, 2);
const addresses = new Map<string, string>();

beforeAll(async () => {
  world = await computeWorld({ config: { zones: ["us-east-1a", "us-east-1b"] } });
  await world.ok("CreateKeyPair", { KeyName: "mine", KeyType: "ed25519" });
  ids = (await world.launch({
    MinCount: 2,
    MaxCount: 2,
    KeyName: "mine",
    UserData: Buffer.from([0, 1, 0xff, 0x0a]).toString("base64"),
    TagSpecifications: [
      {
        ResourceType: "instance",
        Tags: [
          { Key: "Name", Value: "web 1" },
          { Key: "a/b", Value: "unreachable" },
        ],
      },
    ],
  })) as [string, string];
  ids.forEach((id, i) => {
    const [eni] = world.store.read().lookup(networkInterfaces, "byInstance", id);
    addresses.set(`100.64.0.${10 + i}`, eni!.id);
  });
  service = metadataService({
    read: () => world.store.read(),
    directory: { byMetadataAddress: (address) => addresses.get(address) as never },
    clock: { now: () => now },
    random: systemRandom,
    tokenKey: new Uint8Array(32).fill(7),
    signer: () => undefined,
    zones: ["us-east-1a", "us-east-1b"],
  });
});
afterAll(() => world.close());

const FIRST = "100.64.0.10";
const SECOND = "100.64.0.11";
const record = () => world.store.read().get(instances, ids[0])!;
const options = (change: Partial<MetadataOptions>) =>
  world.write([
    put(instances, { ...record(), metadataOptions: { ...record().metadataOptions, ...change } } as InstanceRecord),
  ]);

const ask = (method: string, target: string, headers: Record<string, string> = {}, source = FIRST) =>
  service.answer(source, { method, target, headers: new Map(Object.entries(headers)) });
const TTL = "x-aws-ec2-metadata-token-ttl-seconds";
const token = (ttl = "60", source = FIRST) => String(ask("PUT", "/latest/api/token", { [TTL]: ttl }, source).body);
const get = (path: string, source = FIRST): string => {
  const answer = ask("GET", path, { "x-aws-ec2-metadata-token": token("60", source) }, source);
  return answer.status === 200 ? Buffer.from(answer.body as string).toString() : String(answer.status);
};

describe("the tree", () => {
  test("lists versions, then the parts of each", () => {
    expect(get("/").split("\n")).toContain("2021-03-23");
    expect(get("/").split("\n").at(-1)).toBe("latest");
    expect(get("/latest")).toBe("dynamic\nmeta-data\nuser-data");
    expect(get("/2021-03-23/meta-data/instance-id")).toBe(ids[0]);
    expect(get("/1999-01-01/meta-data/")).toBe("404");
  });

  test("lists directories with a slash and leaves without", () => {
    const names = get("/latest/meta-data/").split("\n");
    expect(names).toEqual([...names].sort());
    for (const name of [
      "ami-id",
      "ami-launch-index",
      "ami-manifest-path",
      "block-device-mapping/",
      "hostname",
      "instance-action",
      "instance-id",
      "instance-life-cycle",
      "instance-type",
      "local-hostname",
      "local-ipv4",
      "mac",
      "metrics/",
      "network/",
      "placement/",
      "profile",
      "public-hostname",
      "public-ipv4",
      "public-keys/",
      "reservation-id",
      "security-groups",
      "services/",
    ])
      expect(names).toContain(name);
    expect(get("/latest/meta-data")).toBe(get("/latest/meta-data/"));
  });

  test("says of the instance what the API says", async () => {
    const [instance] = (await world.ok("DescribeInstances", { InstanceIds: [ids[0]] })).Reservations![0]!.Instances!;
    const leaf = (name: string) => get(`/latest/meta-data/${name}`);
    expect(leaf("ami-id")).toBe(instance!.ImageId!);
    expect(leaf("instance-type")).toBe("h1.nano");
    expect(leaf("local-ipv4")).toBe(instance!.PrivateIpAddress!);
    expect(leaf("local-hostname")).toBe(instance!.PrivateDnsName!);
    expect(leaf("public-ipv4")).toBe(instance!.PublicIpAddress!);
    expect(leaf("public-hostname")).toBe(instance!.PublicDnsName!);
    expect(leaf("security-groups")).toBe("default");
    expect(leaf("placement/availability-zone")).toBe("us-east-1a");
    expect(leaf("placement/availability-zone-id")).toBe("use1-az1");
    expect(leaf("placement/region")).toBe("us-east-1");
    expect(leaf("services/domain")).toBe("amazonaws.com");
    expect(leaf("services/partition")).toBe("aws");
    expect(leaf("block-device-mapping/root")).toBe(instance!.RootDeviceName!);
    expect(leaf("iam/security-credentials/")).toBe("404");
    expect(leaf("spot/instance-action")).toBe("404");
    const eni = instance!.NetworkInterfaces![0]!;
    const macs = leaf("network/interfaces/macs/");
    expect(macs).toBe(`${eni.MacAddress}/`);
    const net = (name: string) => leaf(`network/interfaces/macs/${eni.MacAddress}/${name}`);
    expect(net("device-number")).toBe("0");
    expect(net("interface-id")).toBe(eni.NetworkInterfaceId!);
    expect(net("local-ipv4s")).toBe(eni.PrivateIpAddress!);
    expect(net("owner-id")).toBe(ACCOUNT);
    expect(net("security-group-ids")).toBe(eni.Groups![0]!.GroupId!);
    expect(net("subnet-id")).toBe(eni.SubnetId!);
    expect(net("subnet-ipv4-cidr-block")).toBe("172.31.0.0/20");
    expect(net("vpc-ipv4-cidr-blocks")).toBe("172.31.0.0/16");
    expect(net("ipv4-associations/")).toBe(instance!.PublicIpAddress!);
    expect(net(`ipv4-associations/${instance!.PublicIpAddress}`)).toBe(eni.PrivateIpAddress!);
  });

  test("the key's listing names it, and its leaf is one line of OpenSSH's form", () => {
    expect(get("/latest/meta-data/public-keys/")).toBe("0=mine");
    expect(get("/latest/meta-data/public-keys/0/")).toBe("openssh-key");
    expect(get("/latest/meta-data/public-keys/0/openssh-key")).toMatch(/^ssh-ed25519 [A-Za-z0-9+/=]+ mine\n$/);
  });

  test("user data is the bytes that were given, and absent without any", async () => {
    const answer = ask("GET", "/latest/user-data", { "x-aws-ec2-metadata-token": token() });
    expect([...(answer.body as Uint8Array)]).toEqual([0, 1, 0xff, 0x0a]);
    expect(answer.contentType).toBe("application/octet-stream");
    const before = record();
    const { userData: _gone, ...without } = before;
    await world.write([put(instances, without)]);
    expect(get("/latest/user-data")).toBe("404");
    expect(get("/latest/")).toBe("dynamic\nmeta-data");
    await world.write([put(instances, before)]);
  });

  test("tags are there only when the instance may read them, and those with a slash never", async () => {
    expect(get("/latest/meta-data/tags/instance/")).toBe("404");
    await options({ instanceMetadataTags: "enabled" });
    expect(get("/latest/meta-data/tags/instance/")).toBe("Name");
    expect(get("/latest/meta-data/tags/instance/Name")).toBe("web 1");
    await options({ instanceMetadataTags: "disabled" });
  });

  test("each port sees its own instance, and no other", () => {
    expect(get("/latest/meta-data/instance-id", SECOND)).toBe(ids[1]);
    expect(get("/latest/meta-data/ami-launch-index", SECOND)).toBe("1");
    expect(service.knows("100.64.9.9")).toBe(false);
    expect(ask("GET", "/latest/meta-data/", {}, "100.64.9.9").status).toBe(404);
  });

  test("the identity document is EC2's, byte for byte in form", () => {
    const text = get("/latest/dynamic/instance-identity/document");
    expect(text).toStartWith(`{\n  "accountId" : "${ACCOUNT}",\n  "architecture" : "x86_64",`);
    expect(JSON.parse(text)).toMatchObject({ instanceId: ids[0], region: "us-east-1", version: "2017-09-30" });
    expect(JSON.parse(text).pendingTime).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    // Without a signer there is a document and no signature.
    expect(get("/latest/dynamic/instance-identity/")).toBe("document");
  });

  test("no path makes it throw", () => {
    const nasty = fc.array(
      fc.constantFrom("latest", "meta-data", "..", "%2e", "%zz", "__proto__", "constructor", "", "public-keys", "0"),
    );
    fc.assert(
      fc.property(nasty, (names) => {
        expect([200, 404]).toContain(ask("GET", `/${names.join("/")}`, { "x-aws-ec2-metadata-token": token() }).status);
      }),
    );
    expect(get("/latest/meta-data/__proto__")).toBe("404");
    expect(get("/latest/meta-data/constructor")).toBe("404");
  });
});

describe("session tokens", () => {
  test("look like EC2's, say how long they last, and carry the hop limit of the instance", async () => {
    await options({ httpPutResponseHopLimit: 3 });
    const answer = ask("PUT", "/latest/api/token", { [TTL]: "21600" });
    expect(answer).toMatchObject({ status: 200, contentType: "text/plain", hopLimit: 3 });
    expect(answer.headers).toEqual({ "X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600" });
    expect(String(answer.body)).toMatch(/^[A-Za-z0-9_-]{54}==$/);
  });

  test.each(["0", "21601", "-1", "1.5", "", "abc", "99999999999999999999"])("a TTL of %p is refused", (ttl) => {
    expect(ask("PUT", "/latest/api/token", { [TTL]: ttl }).status).toBe(400);
  });

  test("a request for one without TTL is 400, by a proxy 403, and by GET 405", () => {
    expect(ask("PUT", "/latest/api/token").status).toBe(400);
    expect(ask("PUT", "/latest/api/token", { [TTL]: "60", "x-forwarded-for": "10.0.0.1" }).status).toBe(403);
    expect(ask("GET", "/latest/api/token").status).toBe(405);
    expect(ask("PUT", "/latest/meta-data/").status).toBe(405);
    expect(ask("DELETE", "/latest/meta-data/").status).toBe(405);
  });

  test("are good until they end, on their instance alone, and only as issued", () => {
    const mine = token("60");
    const status = (shown: string, source = FIRST) =>
      ask("GET", "/latest/meta-data/", { "x-aws-ec2-metadata-token": shown }, source).status;
    expect(status(mine)).toBe(200);
    expect(status(mine, SECOND)).toBe(401);
    now += 59_000;
    expect(status(mine)).toBe(200);
    now += 2_000;
    expect(status(mine)).toBe(401);
    const fresh = token("60");
    fc.assert(
      fc.property(fc.nat(53), fc.constantFrom(..."AZaz09-_"), (at, letter) => {
        const forged = `${fresh.slice(0, at)}${letter}${fresh.slice(at + 1)}`;
        // The last letter's low bits are not part of any byte.
        if (Buffer.from(forged, "base64url").equals(Buffer.from(fresh, "base64url"))) return;
        expect(status(forged)).toBe(401);
      }),
    );
    for (const nonsense of ["", "x", "A".repeat(56), `${"A".repeat(54)}==`]) expect(status(nonsense)).toBe(401);
  });

  test("are asked for when the instance requires them, and else only checked when shown", async () => {
    await options({ httpTokens: "required" });
    expect(ask("GET", "/latest/meta-data/instance-id").status).toBe(401);
    await options({ httpTokens: "optional" });
    expect(ask("GET", "/latest/meta-data/instance-id").status).toBe(200);
    expect(ask("GET", "/latest/meta-data/instance-id", { "x-aws-ec2-metadata-token": "x" }).status).toBe(401);
    await options({ httpTokens: "required" });
  });

  test("a disabled endpoint answers 403 to everything", async () => {
    await options({ httpEndpoint: "disabled" });
    expect(ask("GET", "/latest/meta-data/").status).toBe(403);
    expect(ask("PUT", "/latest/api/token", { [TTL]: "60" }).status).toBe(403);
    await options({ httpEndpoint: "enabled" });
  });
});
