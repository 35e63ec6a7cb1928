/** The limit that the gateway is measured against: reads the request's body and answers fixed bytes. Prints its port. */
const bytes = new Uint8Array(await Bun.file(process.argv[2]!).arrayBuffer());
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  async fetch(request) {
    await request.text();
    return new Response(bytes, { headers: { "content-type": "text/xml;charset=UTF-8" } });
  },
});
console.log(server.port);
