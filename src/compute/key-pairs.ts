/** CreateKeyPair, ImportKeyPair, DescribeKeyPairs and DeleteKeyPair. The private half is given once and kept nowhere. */
import { generateKeyPair } from "node:crypto";
import { promisify } from "node:util";
import { present } from "../lib/assert.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { KeyPairRecord, TagsRecord } from "../model/common-records.ts";
import { type AwsError, awsError, invalidValueFor, missingParameter } from "../model/errors.ts";
import { newId, parseId } from "../model/ids.ts";
import type { Call, Describe, Mutation } from "../model/operation.ts";
import { put, remove, type Write } from "../model/store.ts";
import { inAccount, keyPairs, tags } from "../model/tables.ts";
import { type Tags, tagList, tagsFor } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type {
  CreateKeyPairRequest,
  DeleteKeyPairRequest,
  DeleteKeyPairResult,
  DescribeKeyPairsRequest,
  DescribeKeyPairsResult,
  ImportKeyPairRequest,
  ImportKeyPairResult,
  KeyPair,
  KeyPairInfo,
  TagSpecification,
} from "../schema/ec2/types.ts";
import { keyPairNotFound } from "./errors.ts";
import { oneOf } from "./instance-options.ts";
import { allOwned, getOwned } from "./owned.ts";
import {
  createdFingerprint,
  importedFingerprint,
  openSshLine,
  parsePublicKey,
  pemOf,
  ppkOf,
  type SshPublicKey,
  sshPublicKey,
} from "./ssh-key.ts";

const generate = promisify(generateKeyPair);
const RSA_BITS = 2048;

const byName = (call: Call, name: string): KeyPairRecord | undefined =>
  call.state.lookup(keyPairs, "byName", `${inAccount(call.accountId, call.region)}/${name}`)[0];

const duplicate = (name: string): AwsError =>
  awsError("InvalidKeyPair.Duplicate", `The keypair '${name}' already exists.`);

/** A name that is free, and well formed: up to 255 printable ASCII characters without spaces at its ends. */
function freeName(name: string | undefined, call: Call): Result<string, AwsError> {
  if (!name) return fail(missingParameter("KeyName"));
  if (name.length > 255 || !/^[\x20-\x7e]+$/.test(name) || name.trim() !== name)
    return fail(
      invalidValueFor(
        "keyName",
        name.slice(0, 255),
        "It can have up to 255 ASCII characters, and no space at its ends.",
      ),
    );
  return byName(call, name) ? fail(duplicate(name)) : ok(name);
}

interface NewKeyPair {
  readonly record: KeyPairRecord;
  readonly tags: TagsRecord | undefined;
  readonly writes: readonly Write[];
}

function newKeyPair(
  name: string,
  key: SshPublicKey,
  fingerprint: string,
  specifications: readonly TagSpecification[] | undefined,
  call: Call,
): Result<NewKeyPair, AwsError> {
  const found: Result<Tags, AwsError> = tagsFor(specifications, "key-pair");
  if (!found.ok) return found;
  const { accountId, region } = call;
  const record: KeyPairRecord = {
    id: newId("KeyPair", call.random),
    accountId,
    region,
    name,
    type: key.type,
    fingerprint,
    publicKey: openSshLine(key, name),
    createdAt: call.now,
  };
  const tagsOf =
    Object.keys(found.value).length > 0
      ? { resourceId: record.id, resourceType: "key-pair", accountId, region, tags: found.value }
      : undefined;
  return ok({ record, tags: tagsOf, writes: [put(keyPairs, record), ...(tagsOf ? [put(tags, tagsOf)] : [])] });
}

interface Generated {
  readonly key: SshPublicKey;
  readonly fingerprint: string;
  readonly material: string;
}

export const createKeyPair: Mutation<CreateKeyPairRequest, KeyPair, Generated> = {
  kind: "mutation",
  async prepare(input, call) {
    // What can be refused is refused before a key is made: that takes a hundred milliseconds.
    const name = freeName(input.KeyName, call);
    if (!name.ok) return name;
    const type = oneOf("KeyType", input.KeyType ?? "rsa", ["rsa", "ed25519"]);
    if (!type.ok) return type;
    const format = oneOf("KeyFormat", input.KeyFormat ?? "pem", ["pem", "ppk"]);
    if (!format.ok) return format;
    const { publicKey, privateKey } =
      type.value === "rsa" ? await generate("rsa", { modulusLength: RSA_BITS }) : await generate("ed25519");
    const key = present(sshPublicKey(publicKey), "a new key has an SSH form");
    return ok({
      key,
      fingerprint: createdFingerprint(key, privateKey),
      material:
        format.value === "pem" ? pemOf(key, privateKey, name.value, call.random) : ppkOf(key, privateKey, name.value),
    });
  },
  decide(input, call, { key, fingerprint, material }) {
    const name = freeName(input.KeyName, call);
    if (!name.ok) return name;
    const made = newKeyPair(name.value, key, fingerprint, input.TagSpecifications, call);
    if (!made.ok) return made;
    return ok({
      writes: made.value.writes,
      output: {
        KeyPairId: made.value.record.id,
        KeyName: name.value,
        KeyFingerprint: fingerprint,
        KeyMaterial: material,
        Tags: tagList(made.value.tags),
      },
    });
  },
};

/** A public key file is some hundred bytes; this is the largest that is looked at. */
const PUBLIC_KEY_BYTES_MAX = 16 * 1024;

export const importKeyPair: Mutation<ImportKeyPairRequest, ImportKeyPairResult> = {
  kind: "mutation",
  decide(input, call) {
    const name = freeName(input.KeyName, call);
    if (!name.ok) return name;
    if (!input.PublicKeyMaterial?.length) return fail(missingParameter("PublicKeyMaterial"));
    if (input.PublicKeyMaterial.length > PUBLIC_KEY_BYTES_MAX)
      return fail(awsError("InvalidKey.Format", "Key is too long to be a public key"));
    const key = parsePublicKey(Buffer.from(input.PublicKeyMaterial).toString("utf8"));
    if (!key.ok) return fail(awsError("InvalidKey.Format", key.error));
    const made = newKeyPair(name.value, key.value, importedFingerprint(key.value), input.TagSpecifications, call);
    if (!made.ok) return made;
    const { record } = made.value;
    return ok({
      writes: made.value.writes,
      output: {
        KeyPairId: record.id,
        KeyName: record.name,
        KeyFingerprint: record.fingerprint,
        Tags: tagList(made.value.tags),
      },
    });
  },
};

const viewKeyPair = memoView(
  (record: KeyPairRecord, tagsOf: TagsRecord | undefined): KeyPairInfo => ({
    KeyPairId: record.id,
    KeyName: record.name,
    KeyType: record.type,
    KeyFingerprint: record.fingerprint,
    CreateTime: new Date(record.createdAt),
    Tags: tagList(tagsOf),
  }),
);
/** With the public key, which EC2 shows only when it is asked to. */
const viewWholeKeyPair = memoView(
  (record: KeyPairRecord, tagsOf: TagsRecord | undefined): KeyPairInfo => ({
    ...viewKeyPair(record, tagsOf),
    PublicKey: record.publicKey,
  }),
);
const view = (record: KeyPairRecord, input: DescribeKeyPairsRequest, call: Call): KeyPairInfo =>
  (input.IncludePublicKey ? viewWholeKeyPair : viewKeyPair)(record, call.state.get(tags, record.id));

export const describeKeyPairs: Describe<DescribeKeyPairsRequest, DescribeKeyPairsResult, KeyPairInfo> = {
  kind: "describe",
  ids: {
    kind: "KeyPair",
    of: (input) => input.KeyPairIds,
    idOf: (pair) => pair.KeyPairId!,
    get(id, input, call) {
      const record = getOwned(call, keyPairs, id);
      return record && view(record, input, call);
    },
  },
  list(input, call) {
    const all = [...allOwned(call, keyPairs)].sort((a, b) => (a.name < b.name ? -1 : 1));
    if (!input.KeyNames?.length) return ok(all.map((record) => view(record, input, call)));
    const missing = input.KeyNames.find((name) => !byName(call, name));
    if (missing !== undefined) return fail(keyPairNotFound(missing));
    return ok(all.filter((record) => input.KeyNames!.includes(record.name)).map((record) => view(record, input, call)));
  },
  filters: { fingerprint: (pair) => pair.KeyFingerprint },
  answer: (items) => ({ KeyPairs: items }),
};

/** Succeeds when there is no such key pair, as EC2 does. Instances that were launched with it keep its public half. */
export const deleteKeyPair: Mutation<DeleteKeyPairRequest, DeleteKeyPairResult> = {
  kind: "mutation",
  decide(input, call) {
    if (!input.KeyName && !input.KeyPairId) return fail(missingParameter("KeyName or KeyPairId"));
    if (input.KeyPairId) {
      const id = parseId("KeyPair", input.KeyPairId);
      if (!id.ok) return id;
    }
    const record = input.KeyPairId ? getOwned(call, keyPairs, input.KeyPairId) : byName(call, input.KeyName!);
    if (!record || (input.KeyName && record.name !== input.KeyName))
      return ok({ writes: [], output: { Return: true } });
    return ok({
      writes: [remove(keyPairs, record.id), remove(tags, record.id)],
      output: { Return: true, KeyPairId: record.id },
    });
  },
};
