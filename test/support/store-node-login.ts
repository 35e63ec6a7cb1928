/** Whom the nodes of a test let in. */
import { RedisClient } from "./redis-client.ts";

export const NODE_USER = "AKIATEST000000000000";
export const NODE_SECRET = "a secret of the test";

/** A client of the node whose Redis port this is. @throws when it can't be reached or won't have us */
export async function login(port: number): Promise<RedisClient> {
  const client = await RedisClient.connect(port);
  const said = await client.ask(["AUTH", NODE_USER, NODE_SECRET]);
  if (said !== "OK") throw new Error(`AUTH: ${said}`);
  return client;
}
