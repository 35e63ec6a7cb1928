import { dlopen, ptr } from "bun:ffi";
import { expect, test } from "bun:test";
import { DEFAULT_TTL, openSetTtl } from "./ip-ttl.ts";

test.skipIf(process.platform !== "linux")("a socket's TTL is set, and given back to the host's default", async () => {
  const { symbols } = dlopen("libc.so.6", {
    getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
  });
  const ttlOf = (fd: number) => {
    const value = new Int32Array(1);
    const length = new Uint32Array([4]);
    expect(symbols.getsockopt(fd, 0, 2, ptr(value), ptr(length))).toBe(0);
    return value[0];
  };
  const setTtl = openSetTtl()!;
  const { promise, resolve } = Promise.withResolvers<number>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: (socket) => resolve((socket as { readonly fd?: number }).fd ?? -1), data() {} },
  });
  const client = await Bun.connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } });
  const fd = await promise;
  const before = ttlOf(fd);
  expect(setTtl(fd, 2)).toBe(true);
  expect(ttlOf(fd)).toBe(2);
  expect(setTtl(fd, DEFAULT_TTL)).toBe(true);
  expect(ttlOf(fd)).toBe(before);
  expect(setTtl(-1, 2)).toBe(false);
  client.end();
  listener.stop(true);
});
