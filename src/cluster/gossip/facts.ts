/**
 * What Hive's nodes say of themselves, and how it travels: each fact by its own name, with its own version, so that a new load
 * does not carry the roles along. A fact that can't be read is absent, not an error: another version of Hive may have written it.
 */
export type NodeFacts = {
  /** Where the node's transport for consensus and requests listens, `ip:port`. */
  readonly address: string;
  readonly roles: readonly string[];
  /** Availability zone. */
  readonly zone: string;
  /** Hive's version on it. */
  readonly version: string;
  readonly capacity: Resources;
  /** What of the capacity is taken. */
  readonly load: Resources;
  /** `ok`, or a sentence on what is wrong. At most FACT_VALUE_BYTES_MAX bytes. */
  readonly health: string;
};

export type Resources = { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number };

/** The values for the core. */
export function writeFacts(facts: Partial<NodeFacts>): { readonly [name: string]: string } {
  const { address, roles, zone, version, capacity, load, health } = facts;
  return {
    ...(address !== undefined && { address }),
    ...(roles && { roles: roles.join(",") }),
    ...(zone !== undefined && { zone }),
    ...(version !== undefined && { version }),
    ...(capacity && { capacity: writeResources(capacity) }),
    ...(load && { load: writeResources(load) }),
    ...(health !== undefined && { health }),
  };
}

/** What a member says of itself, as far as it can be read. */
export function readFacts(values: { readonly [name: string]: string }): Partial<NodeFacts> {
  const { address, roles, zone, version, health } = values;
  const capacity = readResources(values.capacity);
  const load = readResources(values.load);
  return {
    ...(address !== undefined && { address }),
    ...(roles !== undefined && { roles: roles === "" ? [] : roles.split(",") }),
    ...(zone !== undefined && { zone }),
    ...(version !== undefined && { version }),
    ...(capacity && { capacity }),
    ...(load && { load }),
    ...(health !== undefined && { health }),
  };
}

const writeResources = ({ vcpus, memoryMib, diskGib }: Resources): string => `${vcpus}/${memoryMib}/${diskGib}`;

function readResources(text: string | undefined): Resources | undefined {
  const parts = /^(\d{1,15})\/(\d{1,15})\/(\d{1,15})$/.exec(text ?? "");
  return parts ? { vcpus: Number(parts[1]), memoryMib: Number(parts[2]), diskGib: Number(parts[3]) } : undefined;
}
