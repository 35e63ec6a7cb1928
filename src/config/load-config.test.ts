import { describe, expect, test } from "bun:test";
import { listenAddress, readConfig } from "./load-config.ts";

describe("readConfig", () => {
  test("an empty file gives the defaults that suit one machine", () => {
    const config = readConfig("", "hive.yaml", {});
    expect(config).toMatchObject({
      ok: true,
      value: { region: "us-east-1", accountId: "000000000000", listen: "127.0.0.1:9999", accel: "auto" },
    });
  });

  test("flags win over the file, and leave what they do not name", () => {
    const file = "region: eu-west-1\nnetwork: { mode: ovs, bridge: br-x }\n";
    const config = readConfig(file, "hive.yaml", { region: "eu-west-2", network: "none", accel: undefined });
    expect(config).toMatchObject({
      ok: true,
      value: { region: "eu-west-2", network: { mode: "none", bridge: "br-x" } },
    });
  });

  const refused: [string, string, string][] = [
    ["a typing mistake in a name", "regoin: us-east-1", "regoin"],
    ["an account that is not twelve digits", "accountId: '12'", "accountId: is twelve digits"],
    ["a zone outside the region's list", "zones: [us-east-1a]\nzone: us-east-1b", "zone: us-east-1b is not one of"],
    ["a pool that is no CIDR", "network: { publicPool: lots }", "network.publicPool: lots is not an IPv4 CIDR block"],
    ["text that is not YAML", "a: [", "hive.yaml is not YAML"],
    ["a list", "- 1", "hive.yaml is not a mapping"],
    ["an address without a port", "listen: localhost", "listen: localhost is written host:port"],
    ["a store that is none", "store: redis://h", "store: is raft, or an etcd as in etcd://host:2379,host2:2379"],
    ["a second one without a port", "configListen: '6379'", "configListen: 6379 is written host:port"],
  ];
  test.each(refused)("%s is refused, and named", (_, text, complaint) => {
    const config = readConfig(text, "hive.yaml", {});
    expect(config.ok).toBe(false);
    if (!config.ok) expect(config.error).toContain(complaint);
  });
});

test("a listen address may be IPv6", () => {
  expect(listenAddress("[::1]:9999")).toEqual({ hostname: "::1", port: 9999 });
  expect(listenAddress("127.0.0.1:0")).toEqual({ hostname: "127.0.0.1", port: 0 });
});
