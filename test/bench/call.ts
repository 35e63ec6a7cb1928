/**
 * Sends signed requests from inside a test node's network namespace: each line of stdin is one, in base64; each line of
 * stdout tells when it was sent and answered (milliseconds since the epoch), and the answer. Started once, so that the time
 * of a client's own start is in no figure.
 */
import { openExchange } from "./http-load.ts";

const port = Number(process.argv[2]);
const now = () => performance.timeOrigin + performance.now();
console.log("started");
for await (const line of console) {
  const exchange = await openExchange(port);
  const sentAt = now();
  const answer = await exchange.send(Buffer.from(line, "base64"));
  const answeredAt = now();
  exchange.close();
  console.log(JSON.stringify({ sentAt, answeredAt, answer: answer.toString() }));
}
