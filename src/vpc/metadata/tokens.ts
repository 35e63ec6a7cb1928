/**
 * Session tokens of IMDSv2. A token carries its own end and a keyed hash over it and the instance's id, so nothing has to
 * be kept: it is good on that instance alone, and outlives a restart of the daemon.
 *   0 u64 seconds since the epoch when it ends   8 random bytes, 8 of them   16 HMAC-SHA-256, its first 24 bytes
 * as base64 for URLs, with padding: 56 characters, as EC2's.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Random } from "../../lib/random.ts";

export const TOKEN_TTL_SECONDS_MAX = 21600;
export const TOKEN_KEY_BYTES = 32;
const STATED = 16;
const TOKEN_BYTES = 40;

/** Reads the header of a request for a token: a whole number of seconds from 1 to 21600. */
export function parseTokenTtl(header: string | undefined): number | undefined {
  if (header === undefined || !/^\d{1,5}$/.test(header)) return undefined;
  const seconds = Number(header);
  return seconds >= 1 && seconds <= TOKEN_TTL_SECONDS_MAX ? seconds : undefined;
}

const sealOf = (key: Uint8Array, instanceId: string, stated: Uint8Array): Buffer =>
  createHmac("sha256", key)
    .update("hive metadata token\0")
    .update(instanceId)
    .update("\0")
    .update(stated)
    .digest()
    .subarray(0, TOKEN_BYTES - STATED);

/** @param now milliseconds since the epoch */
export function issueToken(
  key: Uint8Array,
  instanceId: string,
  ttlSeconds: number,
  now: number,
  random: Random,
): string {
  const stated = Buffer.alloc(STATED);
  stated.writeBigUInt64BE(BigInt(Math.ceil(now / 1000) + ttlSeconds), 0);
  stated.set(random.bytes(8), 8);
  const token = Buffer.concat([stated, sealOf(key, instanceId, stated)]).toString("base64url");
  return token.padEnd(Math.ceil(token.length / 4) * 4, "=");
}

/** Whether this key issued the token for this instance and it has not ended. */
export function tokenIsGood(key: Uint8Array, instanceId: string, token: string, now: number): boolean {
  if (!/^[A-Za-z0-9_-]{54}==$/.test(token)) return false;
  const bytes = Buffer.from(token, "base64url");
  if (bytes.length !== TOKEN_BYTES) return false;
  const stated = bytes.subarray(0, STATED);
  if (!timingSafeEqual(sealOf(key, instanceId, stated), bytes.subarray(STATED))) return false;
  return now < Number(stated.readBigUInt64BE(0)) * 1000;
}
