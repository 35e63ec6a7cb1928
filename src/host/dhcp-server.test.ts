import { expect, test } from "bun:test";
import { silentLog } from "../lib/log.ts";
import { startDhcpServer } from "./dhcp-server.ts";

test("answers go to the address and port that the request came from; a silent service sends nothing", async () => {
  const started = await startDhcpServer({
    hostname: "127.0.0.1",
    port: 0,
    log: silentLog,
    service: {
      answer: (source, packet) => (packet[0] === 1 ? Buffer.from(`to ${source}: ${packet.length}`) : undefined),
    },
  });
  if (!started.ok) throw new Error(started.error.message);
  const heard: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const client = await Bun.udpSocket({
    hostname: "127.0.0.1",
    socket: {
      data(_socket, packet) {
        heard.push(packet.toString());
        resolve();
      },
    },
  });
  client.send(new Uint8Array([0]), started.value.port, "127.0.0.1");
  client.send(new Uint8Array([1, 2, 3]), started.value.port, "127.0.0.1");
  await promise;
  expect(heard).toEqual(["to 127.0.0.1: 3"]);
  client.close();
  started.value.stop();
});
