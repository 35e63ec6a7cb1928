/** One guest under QEMU's user network, with a metadata service of its own: for proving images without the rest of Hive. */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Socket, type Subprocess, spawn } from "bun";
import { runChecked } from "../../src/host/run.ts";
import { assert } from "../../src/lib/assert.ts";

/** A stand-in for the instance metadata service, strict about version 2's token. */
export class FakeImds {
  instanceId = "i-0123456789abcdef0";
  hostname = "ip-169-254-0-15.ec2.internal";
  publicKeys: { name: string; key: string }[] = [];
  userData: string | Uint8Array | undefined;
  readonly requests: string[] = [];
  readonly #token = crypto.randomUUID();
  readonly #server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#answer(request) });

  get port(): number {
    return this.#server.port!;
  }

  stop(): void {
    this.#server.stop(true);
  }

  #answer(request: Request): Response {
    const path = new URL(request.url).pathname;
    this.requests.push(`${request.method} ${path}`);
    if (path === "/latest/api/token") {
      if (request.method !== "PUT") return new Response("", { status: 405 });
      const ttl = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds") ?? "";
      if (!/^\d+$/.test(ttl)) return new Response("", { status: 400 });
      return new Response(this.#token, { headers: { "x-aws-ec2-metadata-token-ttl-seconds": ttl } });
    }
    if (request.headers.get("x-aws-ec2-metadata-token") !== this.#token) return new Response("", { status: 401 });
    const body = this.#lookUp(path.replace(/^\/(latest|\d{4}-\d{2}-\d{2})\//, ""));
    return body === undefined ? new Response("", { status: 404 }) : new Response(body);
  }

  #lookUp(path: string): string | Uint8Array<ArrayBuffer> | undefined {
    const key = /^meta-data\/public-keys\/(\d+)\/(openssh-key)?$/.exec(path);
    if (key) {
      const entry = this.publicKeys[Number(key[1])];
      return entry && (key[2] ? `${entry.key}\n` : "openssh-key");
    }
    switch (path.replace(/\/$/, "")) {
      case "":
        return "dynamic\nmeta-data\nuser-data";
      case "meta-data":
        return "ami-id\nhostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nplacement/\npublic-keys/";
      case "meta-data/ami-id":
        return "ami-0123456789abcdef0";
      case "meta-data/instance-id":
        return this.instanceId;
      case "meta-data/hostname":
      case "meta-data/local-hostname":
        return this.hostname;
      case "meta-data/local-ipv4":
        return "169.254.0.15";
      case "meta-data/placement":
        return "availability-zone";
      case "meta-data/placement/availability-zone":
        return "us-east-1a";
      case "meta-data/public-keys":
        return this.publicKeys.map(({ name }, index) => `${index}=${name}`).join("\n");
      case "dynamic":
        return "instance-identity/";
      case "dynamic/instance-identity":
        return "document";
      case "dynamic/instance-identity/document":
        return JSON.stringify({ instanceId: this.instanceId, region: "us-east-1", availabilityZone: "us-east-1a" });
      case "user-data":
        return typeof this.userData === "object" ? new Uint8Array(this.userData) : this.userData;
      default:
        return undefined;
    }
  }
}

export type GuestOptions = {
  readonly disk: string;
  readonly imds: FakeImds;
  /** A static busybox of the host's architecture: carries each metadata connection from QEMU to the fake service. */
  readonly busybox: string;
  readonly memoryMib?: number;
  readonly translationCacheMib?: number;
  readonly direct?: { readonly kernel: string; readonly initrd: string; readonly commandLine: string };
  readonly diskDevice?: "virtio-blk-pci" | "nvme";
  readonly extraArguments?: readonly string[];
};

export class Guest {
  readonly directory = mkdtempSync(join(tmpdir(), "hive-guest-"));
  readonly startedAt = performance.now();
  readonly #process: Subprocess;
  #qmp: Qmp | undefined;

  constructor(options: GuestOptions) {
    const { direct } = options;
    // The metadata address has to lie within the user network for QEMU to forward it.
    const network =
      "user,id=n0,net=169.254.0.0/16,host=169.254.0.2,dns=169.254.0.3,dhcpstart=169.254.0.15,restrict=on,hostfwd=tcp:127.0.0.1:0-:22," +
      `guestfwd=tcp:169.254.169.254:80-cmd:${options.busybox} nc 127.0.0.1 ${options.imds.port}`;
    this.#process = spawn(
      [
        ...["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"],
        ...["-accel", `tcg,thread=multi,tb-size=${options.translationCacheMib ?? 32}`, "-cpu", "max"],
        ...["-m", String(options.memoryMib ?? 128), "-smp", "1"],
        // cloud-init takes a machine for EC2 when its UUID starts with ec2 and its serial number is the same.
        ...[
          "-smbios",
          "type=1,manufacturer=Amazon EC2,product=h1.nano,uuid=ec2f0a4e-0000-4000-8000-000000000001,serial=ec2f0a4e-0000-4000-8000-000000000001",
        ],
        ...["-chardev", `file,id=serial0,path=${this.consoleFile}`, "-serial", "chardev:serial0"],
        ...["-qmp", `unix:${this.directory}/qmp,server=on,wait=off`],
        ...["-drive", `if=none,id=root,file=${options.disk},format=qcow2,discard=unmap`],
        ...[
          "-device",
          options.diskDevice === "nvme"
            ? "nvme,drive=root,serial=vol0123456789abcdef0"
            : "virtio-blk-pci,drive=root,bootindex=1",
        ],
        ...["-netdev", network, "-device", "virtio-net-pci,netdev=n0,mac=0e:00:00:00:00:01,romfile="],
        ...(direct ? ["-kernel", direct.kernel, "-initrd", direct.initrd, "-append", direct.commandLine] : []),
        ...(options.extraArguments ?? []),
      ],
      { stdin: "ignore", stdout: "ignore", stderr: Bun.file(join(this.directory, "stderr")) },
    );
  }

  get consoleFile(): string {
    return join(this.directory, "console");
  }

  /** Everything that the guest has written to its serial port. */
  console(): string {
    return existsSync(this.consoleFile) ? readFileSync(this.consoleFile, "utf8").replaceAll("\r", "") : "";
  }

  /** Waits until the console matches (from the `after`th character on) and returns the match; fails with the console's end. */
  async waitFor(pattern: RegExp, timeoutMs: number, after = 0): Promise<RegExpExecArray> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.console().slice(after));
      if (match) return match;
      if (this.#process.exitCode !== null) throw this.#failure(`QEMU exited with ${this.#process.exitCode}`, pattern);
      if (performance.now() > deadline) throw this.#failure(`nothing within ${timeoutMs / 1000} s`, pattern);
      await Bun.sleep(20);
    }
  }

  #failure(what: string, pattern: RegExp): Error {
    const stderr = readFileSync(join(this.directory, "stderr"), "utf8");
    return new Error(`waiting for ${pattern}: ${what}\n${stderr}\n--- console\n${this.console().slice(-4000)}`);
  }

  /** Seconds from QEMU's start to when `pattern` was seen. */
  async secondsTo(pattern: RegExp, timeoutMs: number): Promise<number> {
    await this.waitFor(pattern, timeoutMs);
    return Math.round((performance.now() - this.startedAt) / 10) / 100;
  }

  async qmp(command: string, args: object = {}): Promise<unknown> {
    this.#qmp ??= await Qmp.connect(join(this.directory, "qmp"));
    return this.#qmp.execute(command, args);
  }

  /** The loopback port that leads to the guest's port 22. QEMU chose it. */
  async sshPort(): Promise<number> {
    const text = await this.qmp("human-monitor-command", { "command-line": "info usernet" });
    const match = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s/.exec(String(text));
    assert(match, `QEMU lists the forwarded port: ${text}`);
    return Number(match[1]);
  }

  async ssh(user: string, keyFile: string, hostKey: string, command: string) {
    const port = await this.sshPort();
    const knownHosts = join(this.directory, "known_hosts");
    await Bun.write(knownHosts, `[127.0.0.1]:${port} ${hostKey.split(" ").slice(0, 2).join(" ")}\n`);
    const options = [
      "BatchMode=yes",
      "IdentitiesOnly=yes",
      "StrictHostKeyChecking=yes",
      `UserKnownHostsFile=${knownHosts}`,
      "ConnectTimeout=60",
    ];
    return runChecked(
      [
        "ssh",
        "-F",
        "none",
        "-i",
        keyFile,
        "-p",
        String(port),
        ...options.flatMap((option) => ["-o", option]),
        `${user}@127.0.0.1`,
        command,
      ],
      { timeoutMs: 120_000 },
    );
  }

  /** Waits until QEMU has ended by itself. @returns its exit code */
  async exited(timeoutMs: number): Promise<number> {
    const code = await Promise.race([this.#process.exited, Bun.sleep(timeoutMs)]);
    if (code === undefined) throw this.#failure(`QEMU still runs after ${timeoutMs / 1000} s`, /exit/);
    return code;
  }

  async dispose(): Promise<void> {
    this.#qmp?.close();
    if (this.#process.exitCode === null) this.#process.kill("SIGKILL");
    await this.#process.exited;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Just enough of QEMU's monitor protocol for a test: one command at a time, events passed over. */
class Qmp {
  #received = "";
  #socket!: Socket;
  #arrived = () => {};

  static async connect(path: string): Promise<Qmp> {
    const qmp = new Qmp();
    for (let tries = 0; !existsSync(path) && tries < 500; tries++) await Bun.sleep(20);
    qmp.#socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_socket, data) => {
          qmp.#received += data.toString();
          qmp.#arrived();
        },
      },
    });
    await qmp.execute("qmp_capabilities", {});
    return qmp;
  }

  async execute(command: string, args: object): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const end = this.#received.indexOf("\n");
      if (end < 0) {
        await new Promise<void>((resolve) => {
          this.#arrived = resolve;
        });
        continue;
      }
      const message: unknown = JSON.parse(this.#received.slice(0, end));
      this.#received = this.#received.slice(end + 1);
      assert(typeof message === "object" && message !== null, "QMP speaks in objects");
      if ("error" in message) throw new Error(`${command}: ${JSON.stringify(message.error)}`);
      if ("return" in message) return message.return;
    }
  }

  close(): void {
    this.#socket.end();
  }
}

/** Where images and packages are kept between runs of the tests. */
export const testCache = (): string => process.env.HIVE_TEST_CACHE ?? join(import.meta.dir, "../../.cache/images");

/** The static busybox out of the package that building `tiny` has fetched. */
export async function unpackBusybox(cacheDirectory: string, into: string): Promise<string> {
  const [deb] = [
    ...new Bun.Glob("busybox-static_*.deb").scanSync({ cwd: join(cacheDirectory, "packages"), absolute: true }),
  ]
    .sort()
    .slice(-1);
  assert(deb, "building tiny has fetched busybox-static");
  const unpacked = await runChecked(["dpkg-deb", "-x", deb, into]);
  assert(unpacked.ok, "busybox-static unpacks");
  const found = [join(into, "bin/busybox"), join(into, "usr/bin/busybox")].find((path) => existsSync(path));
  return found ?? assertNever();
}

function assertNever(): never {
  throw new Error("the package busybox-static holds no busybox");
}
