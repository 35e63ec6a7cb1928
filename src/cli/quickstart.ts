/**
 * `hive quickstart`: from nothing to a machine that you can ssh into. Every step looks first whether it is done already, so that
 * it can be run again at any time.
 */
import { chmodSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
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
  requireDaemon,
  resolveConnection,
  text,
} from "./connection.ts";
import { type Builders, buildImage } from "./image.ts";
import { bold, dim, type OutputFormat, print, progress, red, say } from "./output.ts";

export interface QuickstartOptions {
  readonly output: OutputFormat;
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
/** The name of doctor's check of the AWS CLI. */
const AWS_CLI_CHECK = "aws";
const SERVER_READY_MS = 30_000;
/** Software emulation on a busy host is slow; nobody waits this long without being shown the console. */
const GUEST_READY_MS = 180_000;

/** Runs every step. @returns the exit code */
export async function quickstart(options: QuickstartOptions, ports: QuickstartPorts): Promise<number> {
  const checks = await ports.examine();
  const missing = checks.filter((check) => check.status === "fail");
  for (const check of missing) say(`${red("✗")} ${check.message}${check.fix ? `\n  → ${check.fix}` : ""}`);
  if (missing.length > 0) {
    throw new CommandFailed("the host is not ready: mend what is marked above; `hive doctor` has the whole list");
  }

  const connection = await ensureServer(options, ports.self);
  const cache = join(options.dataDir, "cache");
  const imageId = await buildImage(connection, "tiny", ports.builders, {
    cacheDirectory: cache,
    workDirectory: cache,
  });
  const keyPair = await ensureKeyPair(connection, options.dataDir);
  const groupId = await ensureSecurityGroup(connection);
  const running = keyPair.fresh ? undefined : await findRunning(connection, imageId);
  const instanceId = running ?? (await launch(connection, { imageId, groupId, instanceType: options.instanceType }));
  if (running) progress("Machine").done(`${running} is up already`);
  else await showBoot(connection, instanceId);
  const machine = { instanceId, address: await addressOf(connection, instanceId), keyFile: keyPair.file };
  const ssh = `ssh -i ${machine.keyFile} -o StrictHostKeyChecking=accept-new root@${machine.address}`;
  if (options.output === "json") {
    print(JSON.stringify({ endpoint: connection.endpoint, imageId, ...machine, ssh }));
    return 0;
  }
  const oldCli = checks.some((check) => check.name === AWS_CLI_CHECK && check.status !== "ok");
  tellHow(options, connection, { ...machine, ssh, oldCli });
  return 0;
}

async function ensureServer(options: QuickstartOptions, self: readonly string[]): Promise<Connection> {
  const connect = () => resolveConnection(options.endpoint, process.env, options.dataDir);
  const step = progress("Hive server");
  if (await answers(connect())) {
    step.done(`answers at ${connect().endpoint}`);
    return requireDaemon(connect());
  }
  step.update("none answers: starting one");
  const logFile = join(options.dataDir, "hive.log");
  const output = openLog(logFile);
  // In a session of its own: it goes on when this terminal is closed.
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
    // It writes its keys a moment after it listens.
    if (connect().credentials && (await answers(connect()))) {
      step.done(`started (pid ${child.pid}, log ${logFile})`);
      return requireDaemon(connect());
    }
    await Bun.sleep(50);
  }
  step.fail();
  throw new CommandFailed(`the server did not start: ${lastLine(logFile)}\n  Its whole log is ${logFile}`);
}

function openLog(file: string): number {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o711 });
    return openSync(file, "a", 0o600);
  } catch (cause) {
    const { code } = cause as { code?: unknown };
    const what = code === "EACCES" || code === "EPERM" || code === "EROFS" ? "cannot be written" : `fails with ${code}`;
    throw new CommandFailed(`${file} ${what}: run as root (sudo hive quickstart), or choose another --data-dir`);
  }
}

function lastLine(file: string): string {
  return readFileSync(file, "utf8").trim().split("\n").at(-1) || "it wrote nothing";
}

async function answers(connection: Connection): Promise<boolean> {
  try {
    return (await fetch(`${connection.endpoint}/_hive/health`, { signal: AbortSignal.timeout(2000) })).ok;
  } catch {
    return false;
  }
}

/** A key pair whose private half lies in the data directory; made anew when either half is gone. */
async function ensureKeyPair(
  connection: Connection,
  dataDir: string,
): Promise<{ readonly file: string; readonly fresh: boolean }> {
  const file = existsSync(dataDir) ? join(dataDir, `${NAME}.pem`) : join(homedir(), `${NAME}.pem`);
  const step = progress("Key pair");
  const found = await optional(ec2(connection, "DescribeKeyPairs", { "KeyName.1": NAME }), "InvalidKeyPair.NotFound");
  const fresh = !found || !existsSync(file);
  if (fresh) {
    if (found) await ec2(connection, "DeleteKeyPair", { KeyName: NAME });
    const made = await ec2(connection, "CreateKeyPair", { KeyName: NAME, KeyType: "ed25519" });
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text(made.keyMaterial), { mode: 0o600 });
    chmodSync(file, 0o600);
  }
  step.done(file);
  return { file, fresh };
}

/** The machine that an earlier run left, if it still runs. */
async function findRunning(connection: Connection, imageId: string): Promise<string | undefined> {
  const answer = await ec2(connection, "DescribeInstances", {
    "Filter.1.Name": "tag:Name",
    "Filter.1.Value.1": NAME,
    "Filter.2.Name": "instance-state-name",
    "Filter.2.Value.1": "running",
    "Filter.3.Name": "key-name",
    "Filter.3.Value.1": NAME,
    "Filter.4.Name": "image-id",
    "Filter.4.Value.1": imageId,
  });
  const found = items(items(answer.reservationSet)[0]?.instancesSet)[0];
  return found && text(found.instanceId);
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
  const step = progress("Machine (RunInstances)");
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
  let ready = false;
  try {
    const response = await hiveRequest(connection, "GET", `/_hive/logs/${instanceId}?follow=true`);
    const decoder = new TextDecoder();
    let seen = "";
    abort.signal.addEventListener("abort", () => void response.body?.cancel());
    for await (const chunk of response.body ?? []) {
      const said = decoder.decode(chunk, { stream: true });
      process.stderr.write(dim(said));
      seen = (seen + said).slice(-4096);
      ready = /HIVE:ready[^\n]*\n/.test(seen);
      if (ready) break;
    }
  } finally {
    clearTimeout(timer);
    say(dim("───────────────────"));
  }
  if (ready) return;
  const state = text(fields((await describe(connection, instanceId)).instanceState).name);
  throw new CommandFailed(
    state === "running"
      ? `${instanceId} runs, but was not ready within ${GUEST_READY_MS / 1000} s; \`hive logs -f ${instanceId}\` shows how far it comes`
      : `${instanceId} is ${state}: its console, above, may say why`,
  );
}

async function addressOf(connection: Connection, instanceId: string): Promise<string> {
  const instance = await describe(connection, instanceId);
  return text(instance.ipAddress) || text(instance.privateIpAddress);
}

function tellHow(
  options: QuickstartOptions,
  connection: Connection,
  machine: { readonly instanceId: string; readonly ssh: string; readonly oldCli: boolean },
): void {
  const aws = join(options.dataDir, "aws");
  // The AWS CLI reads a profile's endpoint_url from 2.13 on; Debian 12's is older.
  const alias = machine.oldCli
    ? `\n  alias aws='aws --endpoint-url ${connection.endpoint}'     ${dim("# your AWS CLI is older than 2.13: it does not read the profile's endpoint_url")}`
    : "";
  print(`
${bold("Your machine is up.")}

  ${bold(machine.ssh)}
  hive console ${machine.instanceId}        its serial console (Ctrl-] detaches)

Use the AWS CLI as always:

  export AWS_PROFILE=hive AWS_CONFIG_FILE=${aws}/config AWS_SHARED_CREDENTIALS_FILE=${aws}/credentials${alias}
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
