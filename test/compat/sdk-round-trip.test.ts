/**
 * Every operation of EC2 and STS, through the unmodified SDK's client and Hive's codec: the client serialises a random input
 * and Hive decodes it; Hive encodes a random output and the client deserialises it. Both must come out as they went in.
 * HIVE_TEST_SEED repeats a run: a failure prints its seed.
 */
import { describe, expect, test } from "bun:test";
import * as ec2 from "@aws-sdk/client-ec2";
import * as sts from "@aws-sdk/client-sts";
import { NormalizedSchema } from "@smithy/core/schema";
import type { Result } from "../../src/lib/result.ts";
import { type AwsError, awsError } from "../../src/model/errors.ts";
import { encodeAwsQueryError, sts as stsCodec } from "../../src/protocol/aws-query.ts";
import { type Form, parseForm } from "../../src/protocol/aws-query-form.ts";
import { decodeEc2Query, ec2Service } from "../../src/protocol/ec2-query.ts";
import { encodeEc2Error, encodeEc2Response } from "../../src/protocol/ec2-xml.ts";
import type { Service } from "../../src/protocol/shape.ts";
import { markCacheable } from "../../src/protocol/xml-encode.ts";
import { ec2OperationNames } from "../../src/schema/ec2/tables.ts";
import type { Ec2OperationName } from "../../src/schema/ec2/types.ts";
import { stsOperationNames } from "../../src/schema/sts/tables.ts";
import type { StsOperationName } from "../../src/schema/sts/types.ts";
import { Dice, Samples, type Style } from "./sdk-round-trip-samples.ts";

const SEED = Number(process.env.HIVE_TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]!);
const SPARSE_SAMPLES = 8;

/** What the SDK exports, by name: `RunInstances$` is a schema, `RunInstancesCommand` a class. */
type Exports = { readonly [name: string]: unknown };
type Command = new (input: object) => unknown;
type Client = { send(command: unknown): Promise<{ [name: string]: unknown }> };
type Codec = {
  readonly service: Service;
  readonly decode: (operation: string, form: Form) => Result<unknown, AwsError>;
  readonly encode: (operation: string, output: object, requestId: string) => Uint8Array<ArrayBuffer>;
  readonly encodeError: (error: AwsError, requestId: string) => Uint8Array<ArrayBuffer>;
};
type Answer = { readonly status: number; readonly body: Uint8Array };

/** A client of the SDK whose requests end in `answer`, with all of its middleware on the way. */
function clientOf(Client: new (config: never) => unknown, answer: () => (body: string) => Answer): Client {
  const handle = async (request: { readonly body: string }) => {
    const { status, body } = answer()(request.body);
    return { response: { statusCode: status, headers: { "content-type": "text/xml" }, body: streamOf(body) } };
  };
  return new Client({
    region: "us-east-1",
    endpoint: "http://127.0.0.1:1",
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret" },
    maxAttempts: 1,
    requestHandler: { handle, metadata: { handlerProtocol: "http/1.1" } },
    streamCollector: async (body: ReadableStream) => new Uint8Array(await new Response(body).arrayBuffer()),
  } as never) as Client;
}
const streamOf = (body: Uint8Array) => new Blob([body as Uint8Array<ArrayBuffer>]).stream();

/** One operation, there and back. */
async function roundTrip(codec: Codec, exports: Exports, name: string, dice: Dice, style: Style): Promise<void> {
  const operation = codec.service.operation(name)!;
  const [, , , , inputRef, outputRef] = exports[`${name}$`] as readonly unknown[];
  const sample = (ref: unknown, shape: typeof operation.input, empties: boolean): object => {
    const schema = NormalizedSchema.of(ref as never);
    if (schema.isUnitSchema() !== (shape === undefined)) throw new Error(`Hive's unit differs from the SDK's`);
    return shape ? (new Samples(dice, { ...style, empties }).value(schema, shape, undefined) as object) : {};
  };
  const input = sample(inputRef, operation.input, false);
  // The SDK's middleware would sign one for itself.
  if (name === "CopySnapshot") Object.assign(input, { PresignedUrl: "https://127.0.0.1/?signed=1&x=2" });
  const output = sample(outputRef, operation.output, style.empties);
  let decoded: Result<unknown, AwsError> | undefined;
  answering = (body) => {
    const form = parseForm(body);
    decoded = form.ok ? codec.decode(name, form.value) : form;
    // Once from an ordinary object, once from a kept fragment.
    const once = codec.encode(name, output, "req-1");
    markCacheable(output);
    const kept = codec.encode(name, output, "req-1");
    expect(Buffer.compare(once, kept)).toBe(0);
    expect(Buffer.compare(kept, codec.encode(name, output, "req-1"))).toBe(0);
    return { status: 200, body: kept };
  };
  const command = new (exports[`${name}Command`] as Command)(structuredClone(input));
  const { $metadata, ...received } = await clients(codec).send(command);
  expect(decoded).toEqual({ ok: true, value: input });
  expect(received).toEqual(output as never);
  expect($metadata).toMatchObject({ httpStatusCode: 200 });
}

let answering: (body: string) => Answer = () => {
  throw new Error("no request was expected");
};
const ec2Codec: Codec = {
  service: ec2Service(),
  decode: (operation, form) => decodeEc2Query(operation as Ec2OperationName, form),
  encode: (operation, output, id) => encodeEc2Response(operation as Ec2OperationName, output as never, id),
  encodeError: encodeEc2Error,
};
const stsCodecs: Codec = {
  service: stsCodec.service(),
  decode: (operation, form) => stsCodec.decode(operation as StsOperationName, form),
  encode: (operation, output, id) => stsCodec.encode(operation as StsOperationName, output as never, id),
  encodeError: encodeAwsQueryError,
};
const ec2Client = clientOf(ec2.EC2Client, () => answering);
const stsClient = clientOf(sts.STSClient, () => answering);
const clients = (codec: Codec) => (codec === ec2Codec ? ec2Client : stsClient);

describe.each([
  ["EC2", ec2Codec, ec2 as unknown as Exports, ec2OperationNames as readonly string[]],
  ["STS", stsCodecs, sts as unknown as Exports, stsOperationNames as readonly string[]],
] as const)("%s", (_, codec, exports, names) => {
  test("knows the operations that the SDK has, and no others", () => {
    const commands = Object.keys(exports).filter((name) => /^[A-Z]\w*Command$/.test(name) && name !== "$Command");
    expect([...names].sort()).toEqual(commands.map((name) => name.slice(0, -"Command".length)).sort());
  });

  test("every operation's input and output survive the wire", async () => {
    for (const [at, name] of names.entries()) {
      for (let sample = 0; sample <= SPARSE_SAMPLES; sample++) {
        const dice = new Dice(SEED + at * 64 + sample);
        const style: Style = { fill: sample === 0 ? "full" : "sparse", empties: sample > 0 };
        try {
          await roundTrip(codec, exports, name, dice, style);
        } catch (cause) {
          throw new Error(`${name}, sample ${sample}: HIVE_TEST_SEED=${SEED} repeats it\n${cause}`, { cause });
        }
      }
    }
  }, 60_000);

  test("an error reaches the SDK with its code, message and status", async () => {
    const error = awsError("InvalidAMIID.NotFound", `The image id '[<ami> & "co"]' does not exist`, 400);
    answering = () => ({ status: error.status, body: codec.encodeError(error, "req-2") });
    const command = new (exports[`${names[0]}Command`] as Command)({});
    const thrown = await clients(codec)
      .send(command)
      .catch((caught: unknown) => caught);
    expect(thrown).toMatchObject({ name: error.code, message: error.message, $metadata: { httpStatusCode: 400 } });
  });
});
