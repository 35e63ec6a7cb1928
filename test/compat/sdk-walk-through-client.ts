/**
 * The JavaScript SDK's part of the walk-through, as a program of its own: it runs in the node's network namespace. Prints one
 * line of JSON for each thing done. Arguments: AMI, security group. The environment names endpoint and keys as for any SDK program.
 */
import {
  CreateKeyPairCommand,
  DescribeInstancesCommand,
  EC2Client,
  EC2ServiceException,
  paginateDescribeInstanceTypes,
  RebootInstancesCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  waitUntilInstanceRunning,
  waitUntilInstanceStatusOk,
  waitUntilInstanceStopped,
  waitUntilInstanceTerminated,
} from "@aws-sdk/client-ec2";

const [imageId, groupId] = process.argv.slice(2);
const client = new EC2Client({ maxAttempts: 1 });
const waiting = { client, maxWaitTime: 180, minDelay: 1, maxDelay: 2 };
const say = (step: string, fields: object = {}) => console.log(JSON.stringify({ step, ...fields }));

const { KeyMaterial } = await client.send(new CreateKeyPairCommand({ KeyName: "sdk", KeyType: "ed25519" }));
say("key", { KeyMaterial });

const run = {
  ImageId: imageId,
  InstanceType: "h1.nano" as never,
  MinCount: 1,
  MaxCount: 1,
  KeyName: "sdk",
  SecurityGroupIds: [groupId!],
  UserData: Buffer.from("#!/bin/sh\necho by the SDK >/root/greeting\n").toString("base64"),
  TagSpecifications: [{ ResourceType: "instance" as const, Tags: [{ Key: "Name", Value: "größer & <kleiner>" }] }],
};
const refused = await client.send(new RunInstancesCommand({ ...run, DryRun: true })).catch((cause: unknown) => cause);
say("dry-run", { name: refused instanceof EC2ServiceException ? refused.name : String(refused) });

const launched = await client.send(new RunInstancesCommand(run));
const id = launched.Instances![0]!.InstanceId!;
const one = { InstanceIds: [id] };
const instance = async () => (await client.send(new DescribeInstancesCommand(one))).Reservations![0]!.Instances![0]!;
const settled = async (step: string) => {
  const { State, PublicIpAddress, PrivateIpAddress, LaunchTime, Tags } = await instance();
  say(step, { id, state: State?.Name, PublicIpAddress, PrivateIpAddress, launched: LaunchTime instanceof Date, Tags });
};
await waitUntilInstanceRunning(waiting, one);
await waitUntilInstanceStatusOk(waiting, one);
await settled("running");
// The test logs in, then lets the program go on.
const lines = console[Symbol.asyncIterator]();
await lines.next();

await client.send(new RebootInstancesCommand(one));
await settled("rebooted");
await lines.next();
await client.send(new StopInstancesCommand(one));
await waitUntilInstanceStopped(waiting, one);
await settled("stopped");
await client.send(new StartInstancesCommand(one));
await waitUntilInstanceRunning(waiting, one);
await settled("started");
await lines.next();

let types = 0;
for await (const page of paginateDescribeInstanceTypes({ client, pageSize: 5 }, {}))
  types += page.InstanceTypes!.length;
say("paged", { types });
await client.send(new TerminateInstancesCommand(one));
await waitUntilInstanceTerminated(waiting, one);
await settled("terminated");
process.exit(0);
