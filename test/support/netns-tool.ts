/**
 * Runs inside a test's namespaces: `serve PORT`, `connect HOST PORT [TIMEOUT_MS]`, `hold HOST PORT`,
 * `udp-serve ADDRESS PORT`, `udp-ask SOURCE_PORT HOST PORT [TIMEOUT_MS]`. See netns-world.ts.
 */
import { createSocket } from "node:dgram";
import { createConnection, createServer } from "node:net";

const [command, ...args] = process.argv.slice(2);
switch (command) {
  case "serve": {
    // Greets with the peer's address and then answers what it gets; says so on stdout once it listens.
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.write(`from ${socket.remoteAddress}\n`);
      socket.on("data", (data) => socket.write(data));
    });
    server.listen(Number(args[0]), args[1] ?? "0.0.0.0", () => console.log("listening"));
    break;
  }
  case "connect": {
    const socket = createConnection({ host: args[0]!, port: Number(args[1]) });
    const timer = setTimeout(() => process.exit(2), Number(args[2] ?? 3000));
    socket.on("data", (data) => {
      clearTimeout(timer);
      process.stdout.write(data);
      process.exit(0);
    });
    socket.on("error", () => process.exit(1));
    break;
  }
  case "hold": {
    // Keeps one connection; every line on stdin goes over it, every line that comes back is printed.
    const socket = createConnection({ host: args[0]!, port: Number(args[1]) });
    socket.on("data", (data) => process.stdout.write(data));
    socket.on("error", (error) => console.log(`error ${error.message}`));
    socket.on("close", () => console.log("closed"));
    process.stdin.on("data", (data) => socket.write(data));
    break;
  }
  case "udp-serve": {
    // Answers each datagram with the address and port that it came from.
    const socket = createSocket("udp4");
    socket.on("message", (_data, from) => socket.send(`from ${from.address}:${from.port}\n`, from.port, from.address));
    socket.bind(Number(args[1]), args[0], () => console.log("listening"));
    break;
  }
  case "udp-ask": {
    const socket = createSocket("udp4");
    setTimeout(() => process.exit(2), Number(args[3] ?? 1000));
    socket.on("message", (data) => {
      process.stdout.write(data);
      process.exit(0);
    });
    socket.bind(Number(args[0]), () => {
      socket.setBroadcast(true);
      socket.send("?", Number(args[2]), args[1]);
    });
    break;
  }
  default:
    console.error("usage: serve | connect | hold | udp-serve | udp-ask");
    process.exit(64);
}
