/** `hive server`: reads the configuration, runs a daemon until a signal, and says what went wrong in a sentence. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { ServerFlags } from "./cli/program.ts";
import { readConfig } from "./config/load-config.ts";
import { startDaemon } from "./daemon.ts";
import { jsonLog, LogThreshold, lineBuffer } from "./lib/log.ts";
import { fail, ok, type Result } from "./lib/result.ts";
import type { Config } from "./model/config.ts";
import { parseRoles, type Role } from "./model/roles.ts";

/** Runs a daemon. @returns the exit code: 0 stopped by a signal, 1 could not start, 2 wrong usage */
export async function serve(flags: ServerFlags): Promise<number> {
  const roles = parseRoles(flags.role);
  if (!roles.ok) return complain(roles.error, 2);
  const text = await configText(flags.config);
  if (!text.ok) return complain(text.error, 1);
  const config = readConfig(text.value, flags.config ?? "configuration", {
    listen: flags.listen,
    configListen: flags.configListen,
    store: flags.store,
    accel: flags.accel,
    network: flags.network,
    region: flags.region,
    zone: flags.zone,
    accountId: flags.accountId,
    logLevel: flags.logLevel,
  });
  if (!config.ok) return complain(config.error, 2);
  const refused = cannotServe(roles.value, config.value);
  if (refused !== undefined) return complain(refused, 2);

  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort());
  // A daemon whose terminal is gone goes on.
  process.on("SIGHUP", () => undefined);

  // A reader of our output that goes away is no reason to stop.
  process.stdout.on("error", () => undefined);
  const output = lineBuffer((text) => void process.stdout.write(text));
  process.on("exit", output.flush);
  const logThreshold = new LogThreshold(config.value.logLevel);
  const log = jsonLog(output.write, logThreshold, Date.now);
  // A promise that nobody waited for is a defect, and no reason to stop answering everybody.
  process.on("unhandledRejection", (cause) => log.error("defect.unhandled-rejection", { cause }));
  const daemon = await startDaemon({
    config: config.value,
    roles: roles.value,
    dataDir: resolve(flags.dataDir),
    env: process.env,
    log,
    logThreshold,
  });
  if (!daemon.ok) {
    output.flush();
    return complain(daemon.error, 1);
  }
  const { endpoint, awsFolder, configAddress } = daemon.value;
  if (configAddress !== undefined) {
    output.write(
      `Redis clients reach the configuration store at ${configAddress} (user and password: an access key)\n`,
    );
  }
  output.write(
    `use it with: export AWS_PROFILE=hive AWS_CONFIG_FILE=${awsFolder}/config AWS_SHARED_CREDENTIALS_FILE=${awsFolder}/credentials\n` +
      `an AWS CLI older than 2.13 also needs: alias aws='aws --endpoint-url ${endpoint}'\n` +
      `ready ${endpoint}\n`,
  );
  output.flush();

  if (!stop.signal.aborted) await new Promise((done) => stop.signal.addEventListener("abort", done, { once: true }));
  await daemon.value.stop({ stopInstances: flags.stopInstancesOnExit === true });
  output.flush();
  return 0;
}

/** What this version does not serve, as a sentence; undefined when it serves what is asked. */
export function cannotServe(roles: ReadonlySet<Role>, config: Config): string | undefined {
  if (config.network.mode === "user") {
    return "--network user is not there yet: use ovs, or none for machines without a network";
  }
  if (!roles.has("gateway")) return "--role: a node that is alone has to answer requests itself: add the role gateway";
  if (config.configListen !== undefined && !roles.has("config")) {
    return "--config-listen: the configuration store is served by nodes of the role config";
  }
  const machines = config.accel !== "none";
  if (machines && config.network.mode === "ovs" && roles.has("compute") !== roles.has("vpc")) {
    return "--role: machines and their network belong together on a node that is alone: give both compute and vpc, or neither";
  }
  return undefined;
}

async function configText(file: string | undefined): Promise<Result<string, string>> {
  if (file === undefined) return ok("");
  try {
    return ok(await readFile(file, "utf8"));
  } catch (cause) {
    return fail(`the configuration ${file} cannot be read: ${cause instanceof Error ? cause.message : cause}`);
  }
}

function complain(message: string, code: number): number {
  process.stderr.write(`hive server: ${message}\n`);
  return code;
}
