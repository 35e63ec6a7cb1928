import { afterEach, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { silentLog } from "../lib/log.ts";
import type { MetadataRequest, MetadataResponse } from "../vpc/metadata/exchange.ts";
import { type MetadataServer, type MetadataServerOptions, startMetadataServer } from "./metadata-server.ts";

let server: MetadataServer | undefined;
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server?.stop();
  server = undefined;
});

/** A service that says back what it was asked; `/big` is a megabyte, `/token` has a hop limit. */
function echo(source: string, request: MetadataRequest): MetadataResponse {
  const body = request.target === "/big" ? "x".repeat(1 << 20) : `${request.method} ${request.target} for ${source}`;
  const base = { status: 200, contentType: "text/plain", body };
  return request.target === "/token" ? { ...base, hopLimit: 1 } : base;
}

function start(options: Partial<MetadataServerOptions> = {}) {
  const started = startMetadataServer({
    hostname: "127.0.0.1",
    port: 0,
    log: silentLog,
    service: { knows: (source) => source === "127.0.0.1", answer: echo },
    ...options,
  });
  if (!started.ok) throw new Error(started.error.message);
  server = started.value;
}

/** Sends text, and collects what comes until the server closes (or `until` holds). */
function exchange(text: string, options: { end?: boolean; until?: (heard: string) => boolean; from?: string } = {}) {
  return new Promise<string>((resolve, reject) => {
    let heard = "";
    const socket = connect({
      port: server!.port,
      host: "127.0.0.1",
      allowHalfOpen: true,
      ...(options.from && { localAddress: options.from }),
    });
    sockets.push(socket);
    socket.on("connect", () => (options.end ? socket.end(text, "latin1") : socket.write(text, "latin1")));
    socket.on("data", (bytes) => {
      heard += bytes.toString("latin1");
      if (options.until?.(heard)) resolve(heard);
    });
    socket.on("end", () => resolve(heard));
    socket.on("close", () => resolve(heard));
    socket.on("error", (error) => (heard === "" ? reject(error) : resolve(heard)));
  });
}

describe("the metadata server", () => {
  test("answers HTTP/1.0 and closes", async () => {
    start();
    const heard = await exchange("GET /a HTTP/1.0\r\n\r\n");
    expect(heard).toStartWith("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n");
    expect(heard).toContain("Connection: close\r\n");
    expect(heard).toEndWith("\r\n\r\nGET /a for 127.0.0.1");
  });

  test("answers a client that closed its side with the request, as netcat does", async () => {
    start();
    expect(await exchange("GET /a HTTP/1.1\r\n\r\n", { end: true })).toEndWith("GET /a for 127.0.0.1");
    expect(await exchange("GET /a HTTP", { end: true })).toBe("");
  });

  test("answers requests in a row on one connection, in order, a byte at a time or all at once", async () => {
    start();
    const three = ["/1", "/2", "/3"].map((path) => `GET ${path} HTTP/1.1\r\n\r\n`).join("");
    const heard = await exchange(three, { until: (text) => text.includes("/3 for") });
    expect(heard.match(/\/\d for/g)).toEqual(["/1 for", "/2 for", "/3 for"]);
    const slow = connect({ port: server!.port, host: "127.0.0.1" });
    sockets.push(slow);
    const first = new Promise<string>((resolve) => slow.once("data", (bytes) => resolve(bytes.toString())));
    slow.setNoDelay(true);
    for (const byte of "GET /slow HTTP/1.1\r\n\r\n") {
      slow.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await first).toContain("/slow for");
  });

  test("a large answer to pipelined requests comes whole", async () => {
    start();
    const ask = "GET /big HTTP/1.1\r\n\r\n";
    const heard = await exchange(`${ask}${ask}GET /last HTTP/1.0\r\n\r\n`);
    expect(heard.match(/x{1048576}/g)).toHaveLength(2);
    expect(heard).toEndWith("/last for 127.0.0.1");
  });

  test("HEAD has the length and no body", async () => {
    start();
    const heard = await exchange("HEAD /a HTTP/1.0\r\n\r\n");
    expect(heard).toContain("Content-Length: 21\r\n");
    expect(heard).toEndWith("\r\n\r\n");
  });

  test.each([
    ["nonsense", "\x00\x01\x02\r\n\r\n", "400 Bad Request"],
    ["a long head", `GET / HTTP/1.1\r\nA: ${"a".repeat(20_000)}`, "431 "],
    ["a long body", "PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nabc", "413 "],
  ])("%s is refused and the connection ends", async (_, text, status) => {
    start();
    const heard = await exchange(text);
    expect(heard).toStartWith(`HTTP/1.1 ${status}`);
    expect(heard.match(/HTTP\/1\.1/g)).toHaveLength(1);
  });

  test("a client that does not finish its request is told so and cut off; one that says nothing is cut off", async () => {
    start({ requestTimeoutMs: 50 });
    expect(await exchange("GET / HT")).toStartWith("HTTP/1.1 408 ");
    expect(await exchange("")).toBe("");
  });

  test("a client that drips bytes does not win time by it", async () => {
    start({ requestTimeoutMs: 100 });
    const socket = connect({ port: server!.port, host: "127.0.0.1" });
    sockets.push(socket);
    socket.on("error", () => {});
    const drip = setInterval(() => socket.write("a"), 10);
    await new Promise((resolve) => socket.on("close", resolve));
    clearInterval(drip);
  });

  test("a source without a port on this node is not spoken to", async () => {
    start();
    const heard = await exchange("GET / HTTP/1.0\r\n\r\n", { from: "127.0.0.2" }).catch(() => "");
    expect(heard).toBe("");
  });

  test("one source holds no more connections than it may, and gets them back", async () => {
    start({ connectionsPerSourceMax: 2 });
    const ask = () => exchange("GET /a HTTP/1.1\r\n\r\n", { until: (text) => text.includes("for") }).catch(() => "");
    expect(await ask()).toContain("/a for");
    expect(await ask()).toContain("/a for");
    expect(await ask()).toBe("");
    for (const socket of sockets.splice(0)) socket.destroy();
    let heard = "";
    while (heard === "") heard = await ask();
    expect(heard).toContain("/a for");
  });

  test("an address that is taken is a failure that names it", () => {
    start();
    const again = startMetadataServer({
      hostname: "127.0.0.1",
      port: server!.port,
      log: silentLog,
      service: { knows: () => true, answer: echo },
    });
    expect(again.ok).toBe(false);
    if (!again.ok) expect(again.error.message).toContain(String(server!.port));
  });
});
