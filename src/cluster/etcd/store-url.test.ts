import { expect, test } from "bun:test";
import { parseEtcdUrl } from "./store-url.ts";

test.each([
  ["etcd://h", { endpoints: ["http://h:2379"], prefix: "/hive/", user: undefined, files: {} }],
  ["etcd://a:1,b,[::1]:3", { endpoints: ["http://a:1", "http://b:2379", "http://[::1]:3"], prefix: "/hive/" }],
  ["etcd://h/clouds/berlin", { prefix: "/clouds/berlin/" }],
  ["etcd://h/", undefined],
  ["etcd+https://h:1?ca=/a&cert=/c&key=/k", { endpoints: ["https://h:1"], files: { ca: "/a", cert: "/c", key: "/k" } }],
  ["etcd://u%40x@h?password-file=/p", { user: "u@x", files: { "password-file": "/p" } }],
])("%s", (url, expected) => {
  const parsed = parseEtcdUrl(url);
  expect(parsed.ok).toBe(expected !== undefined);
  if (parsed.ok && expected) expect(parsed.value).toMatchObject(expected);
});

test("a password may hold anything that is encoded, and shows nowhere", () => {
  const parsed = parseEtcdUrl("etcd://root:p%3A%40%2F:x@h");
  expect(parsed.ok && parsed.value.password?.reveal()).toBe("p:@/:x");
  expect(JSON.stringify(parsed)).not.toContain("p:@");
  const refused = parseEtcdUrl("etcd://root:secret@h/a//b");
  expect(!refused.ok && refused.error).not.toContain("secret");
});

test.each([
  ["http://h", "is written etcd://"],
  ["etcd://", "host:port"],
  ["etcd://h:0", "host:port"],
  ["etcd://h:70000", "host:port"],
  ["etcd://h,,i", "host:port"],
  ["etcd://h h", "host:port"],
  ["etcd://h/a b", "prefix"],
  ["etcd://h?nope=1", 'not "nope"'],
  ["etcd://h?ca=/x", "etcd+https"],
  ["etcd+https://h?cert=/x", "belong together"],
  ["etcd://u@h", "no password"],
  ["etcd://u:p@h?password-file=/f", "twice"],
  ["etcd://h?password-file=/f", "needs a user"],
  ["etcd://u:%zz@h", "percent-encoded"],
  [`etcd://${"h,".repeat(20)}h`, "at most 16"],
  [`etcd://${"h".repeat(5000)}`, "characters"],
])("%s is refused", (url, part) => {
  const parsed = parseEtcdUrl(url);
  expect(parsed.ok ? undefined : parsed.error).toContain(part);
});
