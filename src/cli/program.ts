/** The command line: every verb, its flags and its help. What a verb does stands in a file of its own. */
import { join } from "node:path";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import type { Check } from "../host/doctor.ts";
import { addConfigCommands } from "./config.ts";
import {
  CommandFailed,
  type Connection,
  DEFAULT_DATA_DIR,
  DEFAULT_ENDPOINT,
  isEndpoint,
  requireDaemon,
  resolveConnection,
} from "./connection.ts";
import { openConsole, printLogs } from "./console.ts";
import { reportChecks } from "./doctor.ts";
import { BUILDABLE, type Buildable, type Builders, buildImage, registerImage } from "./image.ts";
import { type OutputFormat, print, red, say } from "./output.ts";
import { quickstart } from "./quickstart.ts";
import { printStatus } from "./status.ts";

/** Flags of `hive server`, as they came; the daemon joins them with the configuration file and checks both. */
export interface ServerFlags {
  readonly role: string;
  readonly dataDir: string;
  readonly config?: string;
  readonly listen?: string;
  readonly configListen?: string;
  readonly store?: string;
  readonly accel?: string;
  readonly network?: string;
  readonly region?: string;
  readonly zone?: string;
  readonly accountId?: string;
  readonly logLevel?: string;
  readonly stopInstancesOnExit?: boolean;
}

/** What only the process can do: run a daemon, look at the host, start programs. */
export interface ProgramPorts {
  readonly version: string;
  /** Resolves with the exit code once the daemon has stopped. */
  serve(flags: ServerFlags): Promise<number>;
  examine(dataDir: string): Promise<Check[]>;
  readonly builders: Builders;
  /** The command line that runs this program again. */
  readonly self: readonly string[];
}

interface QuickstartFlags {
  readonly dataDir: string;
  readonly instanceType: string;
  readonly listen?: string;
  readonly config?: string;
  readonly output: OutputFormat;
}

const endpoint = () =>
  new Option(
    "--endpoint <url>",
    `the daemon (default: HIVE_ENDPOINT, the profile hive, ${DEFAULT_ENDPOINT})`,
  ).argParser(endpointUrl);
const output = () => new Option("--output <format>", "how data is printed").choices(["text", "json"]).default("text");

/** Runs one command. @param argv the arguments after the program's name. @returns the exit code: 0 done, 1 failed, 2 wrong usage */
export async function runProgram(argv: readonly string[], ports: ProgramPorts): Promise<number> {
  let code = 0;
  const program = new Command("hive")
    .description("A private AWS on this machine: real machines behind the EC2 API, from one binary.")
    .version(ports.version, "-V, --version", "print the version")
    .addOption(endpoint())
    // Else --version would be the program's wherever it stands, and `hive config get --version` has one of its own.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (message, write) => write(message.replace(/^error: /, `${red("hive:")} `)) })
    .showHelpAfterError("Add --help to see how it is used.")
    .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
    .addHelpText("after", "\nFirst time here? Run `hive doctor`, then `hive quickstart`.");
  const asked = () => program.opts<{ endpoint?: string }>().endpoint;
  const connect = (): Promise<Connection> => requireDaemon(resolveConnection(asked(), process.env));

  program
    .command("server")
    .description("run the daemon: the AWS endpoint and this node's agents")
    .option("--role <roles>", "all, or a comma-separated list of gateway, compute, vpc, config, storage", "all")
    .option("--data-dir <dir>", "where everything is kept", DEFAULT_DATA_DIR)
    .option("--config <file>", "configuration (YAML); flags win over it")
    .option("--listen <host:port>", "the AWS endpoint (default 127.0.0.1:9999)")
    .option(
      "--config-listen <host:port>",
      "serve the configuration store over the Redis protocol, unencrypted (default: nowhere)",
    )
    .option("--store <where>", "raft: Hive's own store (default); or etcd://host:2379,host2:2379/prefix")
    .addOption(new Option("--accel <kind>", "how machines run (default auto)").choices(["auto", "kvm", "tcg", "none"]))
    .addOption(
      new Option("--network <mode>", "how machines are networked (default ovs)").choices(["ovs", "user", "none"]),
    )
    .option("--region <name>", "the region served (default us-east-1)")
    .option("--zone <name>", "this node's availability zone (default: the region's first)")
    .option("--account-id <digits>", "the account (default 000000000000)", accountId)
    .addOption(
      new Option("--log-level <level>", "the least that is logged (default info)").choices([
        "debug",
        "info",
        "warn",
        "error",
      ]),
    )
    .option("--stop-instances-on-exit", "stop the machines when the daemon stops; they keep running otherwise")
    .action(async (flags: ServerFlags) => {
      code = await ports.serve(flags);
    });

  program
    .command("quickstart")
    .description("start a server, build an image, launch a machine and show how to ssh in")
    .option("--data-dir <dir>", "where everything is kept", DEFAULT_DATA_DIR)
    .option("--instance-type <type>", "the machine's size", "h1.nano")
    .option("--listen <host:port>", "the endpoint of the server that is started")
    .option("--config <file>", "the configuration of the server that is started")
    .addOption(output())
    .action(async (flags: QuickstartFlags) => {
      code = await quickstart(
        {
          output: flags.output,
          endpoint: asked() ?? (flags.listen && `http://${flags.listen}`),
          dataDir: flags.dataDir,
          instanceType: flags.instanceType,
          serverFlags: [
            ...(flags.listen ? ["--listen", flags.listen] : []),
            ...(flags.config ? ["--config", flags.config] : []),
          ],
        },
        { builders: ports.builders, examine: () => ports.examine(flags.dataDir), self: ports.self },
      );
    });

  const image = program.command("image").description("make images (AMIs) or bring them in");
  image
    .command("build")
    .description("build an image from the distribution's packages and register it; prints its ami-… id")
    .argument("<which>", BUILDABLE.join(" or "), buildable)
    .option("--name <name>", "the AMI's name (default: after its content, so that the same image is registered once)")
    .option("--cache-dir <dir>", "where packages and built images are kept", defaultCache())
    .addOption(output())
    .action(async (which: Buildable, flags: { name?: string; cacheDir: string; output: OutputFormat }) => {
      const imageId = await buildImage(await connect(), which, ports.builders, {
        name: flags.name,
        cacheDirectory: flags.cacheDir,
        workDirectory: flags.cacheDir,
      });
      print(flags.output === "json" ? JSON.stringify({ imageId }) : imageId);
    });
  image
    .command("import")
    .description("register a disk image (qcow2 or raw) as an AMI; prints its ami-… id")
    .argument("<file>", "the disk image")
    .requiredOption("--name <name>", "the AMI's name")
    .option("--description <text>", "the AMI's description")
    .option("--root-device-name <device>", "the root device", "/dev/xvda")
    .option("--kernel <file>", "a kernel that QEMU boots directly, without firmware")
    .option("--initrd <file>", "the initrd for --kernel")
    .option("--kernel-command-line <text>", "the command line for --kernel")
    .addOption(
      new Option("--boot-mode <mode>", "the firmware that the disk boots with")
        .choices(["legacy-bios", "uefi"])
        .default("legacy-bios"),
    )
    .addOption(output())
    .action(
      async (
        file: string,
        flags: {
          name: string;
          description?: string;
          rootDeviceName: string;
          kernel?: string;
          initrd?: string;
          kernelCommandLine?: string;
          bootMode: string;
          output: OutputFormat;
        },
      ) => {
        const { output: format, ...facts } = flags;
        const imageId = await registerImage(await connect(), { ...facts, disk: file });
        print(format === "json" ? JSON.stringify({ imageId }) : imageId);
      },
    );

  program
    .command("status")
    .description("show what the daemon is, holds and lacks")
    .addOption(output())
    .action(async (flags: { output: OutputFormat }) => {
      code = await printStatus(await connect(), flags.output);
    });

  addConfigCommands(program, connect);

  program
    .command("doctor")
    .description("name what is missing on this host, and the command that mends it")
    .option("--data-dir <dir>", "the data directory to look at", DEFAULT_DATA_DIR)
    .addOption(output())
    .action(async (flags: { dataDir: string; output: OutputFormat }) => {
      code = reportChecks(await ports.examine(flags.dataDir), flags.output);
    });

  program
    .command("console")
    .description("join an instance's serial console; Ctrl-] detaches")
    .argument("<instance-id>", "i-…", instanceId)
    .action(async (id: string) => {
      code = await openConsole(await connect(), id);
    });

  program
    .command("logs")
    .description("print what an instance's serial console has said")
    .argument("<instance-id>", "i-…", instanceId)
    .option("-f, --follow", "go on until the machine ends", false)
    .addOption(output())
    .action(async (id: string, flags: { follow: boolean; output: OutputFormat }) =>
      printLogs(await connect(), id, flags.follow, flags.output),
    );

  // The endpoint may be named after a verb as well as before it.
  for (const verb of program.commands.flatMap((command) => [command, ...command.commands])) {
    verb.addOption(endpoint().hideHelp());
    verb.on("option:endpoint", (url: string) => program.setOptionValue("endpoint", url));
  }

  try {
    await program.parseAsync(argv, { from: "user" });
    return code;
  } catch (cause) {
    if (cause instanceof CommanderError) return cause.exitCode === 0 ? 0 : 2;
    if (!(cause instanceof CommandFailed)) throw cause;
    say(`${red("hive:")} ${cause.message}`);
    return cause.code === "Usage" ? 2 : 1;
  }
}

function buildable(value: string): Buildable {
  const found = BUILDABLE.find((name) => name === value);
  if (!found) throw new InvalidArgumentError(`Hive builds ${BUILDABLE.join(" and ")}.`);
  return found;
}

function endpointUrl(value: string): string {
  if (!isEndpoint(value)) throw new InvalidArgumentError(`An endpoint is a URL such as ${DEFAULT_ENDPOINT}.`);
  return value;
}

function instanceId(value: string): string {
  if (!/^i-[0-9a-f]{8,17}$/.test(value))
    throw new InvalidArgumentError("An instance id is written i-0123456789abcdef0.");
  return value;
}

function accountId(value: string): string {
  if (!/^\d{12}$/.test(value)) throw new InvalidArgumentError("An account id is twelve digits.");
  return value;
}

const defaultCache = () =>
  process.getuid?.() === 0
    ? "/var/cache/hive"
    : join(process.env.XDG_CACHE_HOME ?? join(process.env.HOME ?? "/tmp", ".cache"), "hive");
