/**
 * The limit that the gateway is measured against: a bare `Bun.serve` that reads the request's body and answers the bytes of a
 * file. Prints its port.
 */
const bytes = await Bun.file(process.argv[2] ?? "").bytes();
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  async fetch(request) {
    await request.bytes();
    return new Response(bytes, { headers: { "content-type": "text/xml;charset=UTF-8" } });
  },
});
console.log(server.port);
