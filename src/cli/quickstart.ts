/**
 * `hive quickstart`: from nothing to a machine that you can ssh into. Every step looks first whether it is done already, so that
 * it can be run again at any time.
 */
import { chmodSync, existsSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import type { Check } from "../host/doctor.ts";
import {
  CommandFailed,
  type Connection,
  ec2,
  fields,
  hiveRequest,
  items,
  resolveConnection,
  text,
} from "./connection.ts";
import { type Builders, buildImage } from "./image.ts";
import { bold, dim, print, progress, say } from "./output.ts";

export interface QuickstartOptions {
  readonly endpoint?: string | undefined;
  readonly dataDir: string;
  readonly instanceType: string;
  /** Flags for `hive server`, when one has to be started. */
  readonly serverFlags: readonly string[];
}

export interface QuickstartPorts {
  readonly builders: Builders;
  examine(): Promise<Check[]>;
  /** The command line that runs this program again. */
  readonly self: readonly string[];
}

const NAME = "hive-quickstart";
const SERVER_READY_MS = 30_000;
/** Software emulation on a busy host is slow; nobody waits this long without being shown the console. */
const GUEST_READY_MS = 180_000;

/** Runs every step. @returns the exit code */
export async function quickstart(options: QuickstartOptions, ports: QuickstartPorts): Promise<number> {
  const missing = (await ports.examine()).filter((check) => check.status === "fail");
  for (const check of missing) say(`✗ ${check.message}${check.fix ? `\n  → ${check.fix}` : ""}`);
  if (missing.length > 0) throw new CommandFailed("the host is not ready; `hive doctor` has the whole list");

  const connection = await ensureServer(options, ports.self);
  const imageId = await buildImage(connection, "tiny", ports.builders, {
    cacheDirectory: join(options.dataDir, "cache"),
    workDirectory: join(options.dataDir, "cache"),
  });
  const keyFile = await ensureKeyPair(connection, options.dataDir);
  const groupId = await ensureSecurityGroup(connection);
  const instanceId = await launch(connection, { imageId, groupId, instanceType: options.instanceType });
  await showBoot(connection, instanceId);
  const address = await addressOf(connection, instanceId);
  tellHow(options, connection, { instanceId, address, keyFile });
  return 0;
}

async function ensureServer(options: QuickstartOptions, self: readonly string[]): Promise<Connection> {
  const connect = () => resolveConnection(options.endpoint, process.env, options.dataDir);
  const step = progress("Looking for a Hive server");
  if (await answers(connect())) {
    step.done(connect().endpoint);
    return connect();
  }
  step.update("none answers: starting one");
  mkdirSync(options.dataDir, { recursive: true });
  const logFile = join(options.dataDir, "hive.log");
  const output = openSync(logFile, "a", 0o600);
  const child = Bun.spawn([...self, "server", "--role=all", "--data-dir", options.dataDir, ...options.serverFlags], {
    stdin: "ignore",
    stdout: output,
    stderr: output,
    detached: true,
  });
  child.unref();
  const deadline = Date.now() + SERVER_READY_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null) break;
    if (await answers(connect())) {
      step.done(`started, pid ${child.pid}, log ${logFile}`);
      return connect();
    }
    await Bun.sleep(50);
  }
  step.fail();
  throw new CommandFailed(`the server did not start; its log, ${logFile}, says why`);
}

async function answers(connection: Connection): Promise<boolean> {
  try {
    return (await fetch(`${connection.endpoint}/_hive/health`, { signal: AbortSignal.timeout(2000) })).ok;
  } catch {
    return false;
  }
}

/** A key pair whose private half lies in the data directory; made anew when either half is gone. */
async function ensureKeyPair(connection: Connection, dataDir: string): Promise<string> {
  const file = existsSync(dataDir) ? join(dataDir, `${NAME}.pem`) : join(homedir(), `${NAME}.pem`);
  const step = progress("Key pair");
  const found = await optional(ec2(connection, "DescribeKeyPairs", { "KeyName.1": NAME }), "InvalidKeyPair.NotFound");
  if (!found || !existsSync(file)) {
    if (found) await ec2(connection, "DeleteKeyPair", { KeyName: NAME });
    const made = await ec2(connection, "CreateKeyPair", { KeyName: NAME, KeyType: "ed25519" });
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text(made.keyMaterial), { mode: 0o600 });
    chmodSync(file, 0o600);
  }
  step.done(file);
  return file;
}

/** A group that lets ssh and ping in from anywhere. */
async function ensureSecurityGroup(connection: Connection): Promise<string> {
  const step = progress("Security group");
  const found = await ec2(connection, "DescribeSecurityGroups", {
    "Filter.1.Name": "group-name",
    "Filter.1.Value.1": NAME,
  });
  let groupId = text(items(found.securityGroupInfo)[0]?.groupId);
  if (groupId === "") {
    const made = await ec2(connection, "CreateSecurityGroup", { GroupName: NAME, GroupDescription: "hive quickstart" });
    groupId = text(made.groupId);
    await ec2(connection, "AuthorizeSecurityGroupIngress", {
      GroupId: groupId,
      "IpPermissions.1.IpProtocol": "tcp",
      "IpPermissions.1.FromPort": "22",
      "IpPermissions.1.ToPort": "22",
      "IpPermissions.1.IpRanges.1.CidrIp": "0.0.0.0/0",
      "IpPermissions.2.IpProtocol": "icmp",
      "IpPermissions.2.FromPort": "-1",
      "IpPermissions.2.ToPort": "-1",
      "IpPermissions.2.IpRanges.1.CidrIp": "0.0.0.0/0",
    });
  }
  step.done(`${groupId} lets ssh and ping in`);
  return groupId;
}

async function launch(
  connection: Connection,
  what: { readonly imageId: string; readonly groupId: string; readonly instanceType: string },
): Promise<string> {
  const step = progress("RunInstances");
  const userData = `#!/bin/sh\necho "Hello from $(hostname): this line was written by user data" | tee /etc/motd\n`;
  const answer = await ec2(connection, "RunInstances", {
    ImageId: what.imageId,
    InstanceType: what.instanceType,
    MinCount: "1",
    MaxCount: "1",
    KeyName: NAME,
    "SecurityGroupId.1": what.groupId,
    UserData: Buffer.from(userData).toString("base64"),
    "TagSpecification.1.ResourceType": "instance",
    "TagSpecification.1.Tag.1.Key": "Name",
    "TagSpecification.1.Tag.1.Value": NAME,
  });
  const instanceId = text(items(answer.instancesSet)[0]?.instanceId);
  step.done(instanceId);
  return instanceId;
}

async function describe(connection: Connection, instanceId: string) {
  const answer = await ec2(connection, "DescribeInstances", { "InstanceId.1": instanceId });
  return items(items(answer.reservationSet)[0]?.instancesSet)[0] ?? {};
}

/** Shows the console from the first line until the guest says that it is ready, or dies. */
async function showBoot(connection: Connection, instanceId: string): Promise<void> {
  const step = progress(`Waiting for ${instanceId} to start`);
  const deadline = Date.now() + GUEST_READY_MS;
  for (;;) {
    const instance = await describe(connection, instanceId);
    const state = text(fields(instance.instanceState).name);
    step.update(state);
    if (state === "running") break;
    const reason = fields(instance.stateReason);
    if (state !== "pending" || (text(reason.code) !== "" && text(reason.code) !== "pending")) {
      step.fail();
      throw new CommandFailed(`${instanceId} is ${state}: ${text(reason.message)}`);
    }
    if (Date.now() > deadline) {
      step.fail();
      throw new CommandFailed(`${instanceId} did not start in time; hive logs ${instanceId} and hive status say more`);
    }
    await Bun.sleep(200);
  }
  step.done("running");
  say(dim("─── its console ───"));
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), Math.max(1, deadline - Date.now()));
  try {
    const response = await hiveRequest(connection, "GET", `/_hive/logs/${instanceId}?follow=true`);
    const decoder = new TextDecoder();
    let seen = "";
    abort.signal.addEventListener("abort", () => void response.body?.cancel());
    for await (const chunk of response.body ?? []) {
      process.stderr.write(dim(decoder.decode(chunk, { stream: true })));
      seen = (seen + decoder.decode(chunk)).slice(-4096);
      if (/HIVE:ready/.test(seen)) break;
    }
  } finally {
    clearTimeout(timer);
    say(dim("───────────────────"));
  }
}

async function addressOf(connection: Connection, instanceId: string): Promise<string> {
  const instance = await describe(connection, instanceId);
  return text(instance.ipAddress) || text(instance.privateIpAddress);
}

function tellHow(
  options: QuickstartOptions,
  connection: Connection,
  machine: { readonly instanceId: string; readonly address: string; readonly keyFile: string },
): void {
  const aws = join(options.dataDir, "aws");
  print(`
${bold("Your machine is up.")}

  ${bold(`ssh -i ${machine.keyFile} -o StrictHostKeyChecking=accept-new root@${machine.address}`)}
  hive console ${machine.instanceId}        its serial console (Ctrl-] detaches)

Use the AWS CLI as always:

  export AWS_PROFILE=hive AWS_CONFIG_FILE=${aws}/config AWS_SHARED_CREDENTIALS_FILE=${aws}/credentials
  aws ec2 describe-instances --output table
  aws ec2 terminate-instances --instance-ids ${machine.instanceId}

The server answers at ${connection.endpoint}; its machines keep running when it stops. ${dim("hive status · hive doctor")}`);
}

async function optional<T>(call: Promise<T>, missingCode: string): Promise<T | undefined> {
  try {
    return await call;
  } catch (cause) {
    if (cause instanceof CommandFailed && cause.code === missingCode) return undefined;
    throw cause;
  }
}
