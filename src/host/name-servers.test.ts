import { expect, test } from "bun:test";
import { parseNameServers } from "./name-servers.ts";

test("a guest is told of the host's name servers that it can reach: no loopback, no IPv6, each once, three at most", () => {
  const text = `# nameserver 192.0.2.9
nameserver 127.0.0.53
nameserver ::1
 nameserver\t192.0.2.1
nameserver 192.0.2.1
search example.org
nameserver 192.0.2.2 # second
nameserver 192.0.2.3
nameserver 192.0.2.4
nameserver nonsense`;
  expect(parseNameServers(text)).toEqual(["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
  expect(parseNameServers("")).toEqual([]);
});
