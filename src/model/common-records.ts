import type { AccountId, KeyPairId, NodeId } from "./ids.ts";

/** All tags of one resource, in one record, so that one change is one record. */
export interface TagsRecord {
  readonly resourceId: string;
  /** EC2's word for the kind: `instance`, `security-group`, … */
  readonly resourceType: string;
  readonly accountId: AccountId;
  readonly region: string;
  readonly tags: { readonly [key: string]: string };
}

export interface KeyPairRecord {
  readonly id: KeyPairId;
  readonly accountId: AccountId;
  readonly region: string;
  readonly name: string;
  readonly type: "rsa" | "ed25519";
  readonly fingerprint: string;
  /** One line in OpenSSH's form. */
  readonly publicKey: string;
  readonly createdAt: number;
}

/** A node of the cluster: who it is, what it can hold. Written by the node itself. */
export interface NodeRecord {
  readonly id: NodeId;
  readonly name: string;
  readonly region: string;
  readonly zone: string;
  readonly roles: readonly string[];
  readonly version: string;
  readonly accel: "kvm" | "tcg" | "none";
  /** Why this accelerator: the proof's outcome, for a person. */
  readonly accelReason: string;
  /** Physical figures, before overcommit. */
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskGib: number;
  /** What placement may hand out: physical times the overcommit factor. */
  readonly allocatableVcpus: number;
  readonly allocatableMemoryMib: number;
  /** The network's state, for `hive status` and DescribeInstanceStatus. */
  readonly network: { readonly mode: "ovs" | "user" | "none"; readonly ok: boolean; readonly reason: string };
  readonly startedAt: number;
}

/** Remembers a ClientToken and its answer, so that a retry gets the same one. */
export interface IdempotencyRecord {
  readonly accountId: AccountId;
  readonly region: string;
  readonly operation: string;
  readonly token: string;
  /** SHA-256 of the canonical parameters without the token. */
  readonly parametersHash: string;
  readonly output: unknown;
  readonly createdAt: number;
}

/** Long-lived secrets of an account. The secret is encrypted with a key that is not in the store. */
export interface AccessKeyRecord {
  readonly accessKeyId: string;
  readonly accountId: AccountId;
  /** `root` until there are users. */
  readonly principal: string;
  /** Base64 of nonce, ciphertext and tag (AES-256-GCM). */
  readonly sealedSecret: string;
  readonly status: "Active" | "Inactive";
  readonly createdAt: number;
}
