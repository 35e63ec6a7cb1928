/**
 * The keys of the metadata service, in DIR/keys: the secret behind session tokens, and the key and certificate that sign
 * identity documents. Made once; only their owner may read the secret ones.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { IdentityKeys } from "../vpc/metadata/identity.ts";
import { writeFileAtomically } from "./data-dir.ts";
import { type HostError, ioFailed } from "./host-error.ts";

const TOKEN_KEY_BYTES = 32;

/** The text of a file, undefined when there is none. @throws Error for every other failure */
async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as { code?: string }).code === "ENOENT") return undefined;
    throw cause;
  }
}

const keysIn = (dataDir: string) => join(dataDir, "keys");

/** The secret of session tokens: 32 bytes, made at the first start. */
export async function loadTokenKey(dataDir: string, random: Random): Promise<Result<Uint8Array, HostError>> {
  const path = join(keysIn(dataDir), "metadata-token.key");
  try {
    const found = await readIfThere(path);
    if (found !== undefined) {
      const key = Buffer.from(found.trim(), "hex");
      // A damaged key costs guests a new token, no more; hashing keeps its length right.
      return ok(key.length === TOKEN_KEY_BYTES ? key : createHash("sha256").update(found).digest());
    }
    const key = Buffer.from(random.bytes(TOKEN_KEY_BYTES));
    await mkdir(keysIn(dataDir), { recursive: true, mode: 0o700 });
    await writeFileAtomically(path, `${key.toString("hex")}\n`, 0o600);
    return ok(key);
  } catch (cause) {
    return fail(ioFailed(`read or write ${path}`, cause));
  }
}

/**
 * The key and certificate of identity documents. Making them takes some tenths of a second: nobody needs to wait for it
 * before requests are served. Two files; a certificate without its key is made anew with it.
 */
export async function loadIdentityKeys(
  dataDir: string,
  make: () => Promise<IdentityKeys>,
): Promise<Result<IdentityKeys, HostError>> {
  const keyPath = join(keysIn(dataDir), "identity.key.pem");
  const certificatePath = join(keysIn(dataDir), "identity.crt.pem");
  try {
    const [privateKeyPem, certificatePem] = await Promise.all([readIfThere(keyPath), readIfThere(certificatePath)]);
    if (privateKeyPem !== undefined && certificatePem !== undefined) return ok({ privateKeyPem, certificatePem });
    const keys = await make();
    await mkdir(keysIn(dataDir), { recursive: true, mode: 0o700 });
    await writeFileAtomically(certificatePath, keys.certificatePem, 0o644);
    // The key last: until it is there, both are made again.
    await writeFileAtomically(keyPath, keys.privateKeyPem, 0o600);
    return ok(keys);
  } catch (cause) {
    return fail(ioFailed(`read or write ${keyPath}`, cause));
  }
}
