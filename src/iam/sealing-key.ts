/**
 * Secrets at rest. Access keys' secrets stand in the store encrypted with AES-256-GCM (NIST SP 800-38D) under a key that is
 * in a file of its own beside the store and never in it: a copy of the store, a snapshot or a backup of it, opens nothing.
 * The access key's id is authenticated with the secret, so that one record's secret can't be moved to another's.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import { chmod, link, mkdir, open, readFile, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import type { Random } from "../lib/random.ts";
import { randomHex } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** What went wrong with the key file, as a whole sentence for an operator. */
export type KeyFileError = { readonly kind: "key-file"; readonly message: string; readonly cause?: unknown };

export class SealingKey {
  readonly #key: Buffer;

  /** @param key 32 random bytes */
  constructor(key: Uint8Array) {
    this.#key = Buffer.from(key);
  }

  /** Base64 of nonce, ciphertext and tag. `name` says what the secret belongs to, and is needed to open it. */
  seal(secret: string, name: string, random: Random): string {
    const nonce = random.bytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce).setAAD(Buffer.from(name));
    return Buffer.concat([nonce, cipher.update(secret, "utf8"), cipher.final(), cipher.getAuthTag()]).toString(
      "base64",
    );
  }

  /** The secret; undefined when it was sealed under another key or name, or is damaged. */
  open(sealed: string, name: string): string | undefined {
    const bytes = Buffer.from(sealed, "base64");
    if (bytes.length < NONCE_BYTES + TAG_BYTES) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", this.#key, bytes.subarray(0, NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    })
      .setAAD(Buffer.from(name))
      .setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      const plain = [decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()];
      return Buffer.concat(plain).toString("utf8");
    } catch {
      return undefined;
    }
  }

  /** A key for another purpose, which tells nothing of this one (HKDF-SHA256, RFC 5869). 32 bytes. */
  derive(purpose: string): Uint8Array {
    return new Uint8Array(hkdfSync("sha256", this.#key, "", `hive ${purpose}`, KEY_BYTES));
  }
}

/**
 * The key in `path`: 64 hexadecimal digits and a line feed, readable by its owner alone. Made when the file is missing.
 * Two processes that start at once agree on one key. A file that others may read is closed to them.
 */
export async function loadSealingKey(path: string, random: Random): Promise<Result<SealingKey, KeyFileError>> {
  try {
    const found = await readKey(path);
    if (found !== undefined) return found;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeNewKey(path, random);
    return (await readKey(path)) ?? fail(keyFileError(`The key file ${path} vanished after it was written.`));
  } catch (cause) {
    return fail(keyFileError(`The key file ${path} cannot be read or made: ${(cause as Error).message}`, cause));
  }
}

async function readKey(path: string): Promise<Result<SealingKey, KeyFileError> | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  if (!/^[0-9a-f]{64}\n?$/.test(text)) {
    return fail(
      keyFileError(
        `The key file ${path} does not hold 64 hexadecimal digits. Restore it from a backup: ` +
          "without it the access keys in the store cannot be opened.",
      ),
    );
  }
  if (((await stat(path)).mode & 0o077) !== 0) await chmod(path, 0o600);
  return ok(new SealingKey(Buffer.from(text.trim(), "hex")));
}

/** Writes the whole file aside and links it into place, which fails where another process was first. */
async function writeNewKey(path: string, random: Random): Promise<void> {
  const aside = `${path}.${randomHex(random, 16)}`;
  try {
    const file = await open(aside, "wx", 0o600);
    try {
      await file.writeFile(`${Buffer.from(random.bytes(KEY_BYTES)).toString("hex")}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(aside, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
    await syncDirectory(dirname(path));
  } finally {
    await unlink(aside).catch(() => {});
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

const keyFileError = (message: string, cause?: unknown): KeyFileError => ({ kind: "key-file", message, cause });
