/** A service as the generator holds it between reading the SDK and writing src/schema. */

/**
 * What a member is, as a short text (the tables carry it as it is):
 *   `s` string   `i` integer   `f` number that may have a fraction   `b` boolean   `x` blob   `X` streamed blob
 *   `t` timestamp in the protocol's format; `t5` date-time, `t6` http-date, `t7` epoch seconds   `d` document
 *   `I` big integer   `D` big decimal
 *   `=Name` string of the enum Name   `#Name` the shape Name
 *   `[target` list without a shape of its own   `{target` map of strings likewise
 */
export type Target = string;

/** Smithy traits by their SDK names (`xmlName`, `ec2QueryName`, `sensitive`, …). */
export type Traits = { readonly [name: string]: unknown };

export type Member = { readonly name: string; target: Target; readonly traits: Traits };

export type Structure = {
  readonly kind: "structure" | "union" | "error";
  readonly name: string;
  readonly traits: Traits;
  readonly members: readonly Member[];
  /** The first so many members are required. */
  readonly required: number;
};
export type List = { readonly kind: "list"; readonly name: string; readonly traits: Traits; readonly item: Member };
export type MapShape = {
  readonly kind: "map";
  readonly name: string;
  readonly traits: Traits;
  readonly key: Member;
  readonly value: Member;
};
export type Shape = Structure | List | MapShape;

export type Operation = {
  readonly name: string;
  readonly traits: Traits;
  /** The name of the input's structure, or "" for none. */
  readonly input: string;
  readonly output: string;
};

export type ServiceModel = {
  readonly name: string;
  readonly serviceId: string;
  readonly apiVersion: string;
  /** The Smithy id of the protocol without its namespace: `ec2Query`, `awsQuery`, `restXml`, `restJson1`. */
  readonly protocol: string;
  readonly xmlNamespace: string;
  readonly shapes: ReadonlyMap<string, Shape>;
  readonly operations: readonly Operation[];
};

/** Says what the generator did not understand, and stops it: a guess would surface as a wrong answer on the wire. */
export class NotUnderstood extends Error {
  override readonly name = "NotUnderstood";
}
