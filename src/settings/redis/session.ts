/**
 * What a connection of the Redis protocol has agreed on and waits for: its user, its version, a MULTI, watched keys, what it is
 * subscribed to. A `Session` takes commands and says what to do: answer, or run an operation. It does no I/O.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { KIB, MIB, SECOND_MS } from "../../lib/units.ts";
import type { Reader, Revision } from "../../model/store.ts";
import { settings as settingsTable } from "../../model/tables.ts";
import {
  type ErrorReply,
  errorReply,
  OK,
  type Reply,
  type RespCommand,
  type RespVersion,
  replyBytes,
} from "../../protocol/resp.ts";
import type { Draft } from "../draft.ts";
import type { Settings } from "../settings.ts";
import {
  arityFits,
  type CommandSpec,
  type CommandTable,
  describeCommands,
  findCommand,
  NO_KEYS,
} from "./command-table.ts";
import { PATTERN_CHARS_MAX } from "./glob.ts";
import type { Notifications, Subscriber } from "./notifications.ts";
import {
  DATA_COMMANDS,
  isOperation,
  type Operation,
  PATTERN_TOO_LONG,
  REPLY_BYTES_MAX,
  SYNTAX_ERROR,
  wrongArity,
} from "./operations.ts";
import type { ScanCursors } from "./scan-cursors.ts";
import { describeServer, type ServerFacts } from "./server-info.ts";

/** What all sessions of a server share. */
export interface Shared {
  readonly settings: Settings;
  readonly notifications: Notifications;
  readonly cursors: ScanCursors;
  readonly clock: Clock;
  readonly log: Log;
  /** The secret of an access key that is good now. */
  secretOf(accessKeyId: string): string | undefined;
  facts(): ServerFacts;
}

/** What a command leads to: answers now, or an operation whose result is the answer. */
export type Step = readonly Reply[] | Operation;

/** Commands that wait in a MULTI, and their bytes: they become one transaction of the store. */
const QUEUED_MAX = 1024;
const QUEUED_BYTES_MAX = 2 * MIB;
const WATCHED_MAX = 1024;
const SUBSCRIPTIONS_MAX = 1024;
/** Characters of the names that a connection watches, and of those that it is subscribed to: as many as of the longest keys. */
const NAMES_CHARS_MAX = 512 * KIB;
/** Of the patterns among them: each is compared with whatever happens to any key. */
const PATTERNS_CHARS_MAX = 32 * KIB;
const NAME_CHARS_MAX = 256;
/** Wrong secrets on one connection. */
const FAILED_AUTHS_MAX = 5;
/** Within this it is noticed that a key was made inactive. */
const KEY_CHECK_MS = SECOND_MS;

export const NOAUTH = errorReply("NOAUTH Authentication required.");
const WRONGPASS = errorReply("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PUBLISH = errorReply(
  "ERR PUBLISH is not served: channels carry what happens to keys, __keyspace@0__:KEY and __keyevent@0__:EVENT",
);
const NAMES_TOO_LONG = errorReply(
  `ERR one connection's names have at most ${NAMES_CHARS_MAX} characters, and its patterns ${PATTERNS_CHARS_MAX}`,
);
const QUEUED: readonly Reply[] = [{ simple: "QUEUED" }];

interface Control extends CommandSpec {
  /** A stranger may say it. */
  readonly open?: true;
  /** It is taken at once inside a MULTI. */
  readonly inMulti?: true;
  /** It is taken while a client of version 2 is subscribed, whose stream has no place for other answers. */
  readonly whileSubscribed?: true;
  run(session: Session, words: RespCommand): Step;
}

const control = (arity: number, run: Control["run"], more: Partial<Control> = {}): Control => ({
  arity,
  flags: ["fast"],
  keys: NO_KEYS,
  run,
  ...more,
});

const CONTROLS: CommandTable<Control> = new Map(
  Object.entries({
    AUTH: control(-2, (session, words) => session.auth(words), { open: true }),
    HELLO: control(-1, (session, words) => session.hello(words), { open: true }),
    QUIT: control(-1, (session) => session.quit(), { open: true, inMulti: true, whileSubscribed: true }),
    RESET: control(1, (session) => session.reset(), { open: true, inMulti: true, whileSubscribed: true }),
    PING: control(-1, (session, words) => session.ping(words), { whileSubscribed: true }),
    ECHO: control(2, (_, words) => [bytesReply(words[1]!)]),
    SELECT: control(2, (_, words) => [words[1] === "0" ? OK : errorReply("ERR there is one database, 0")]),
    CLIENT: control(-2, (session, words) => session.client(words)),
    COMMAND: control(-1, (_, words) => [describeCommands([DATA_COMMANDS, CONTROLS], words)]),
    CONFIG: control(-2, (_, words) => [configReply(words)]),
    INFO: control(-1, (session) => [describeServer(session.shared.facts())]),
    READONLY: control(1, (session) => session.readLocally(true)),
    READWRITE: control(1, (session) => session.readLocally(false)),
    MULTI: control(1, (session) => session.multi(), { inMulti: true }),
    EXEC: control(1, (session) => session.exec(), { inMulti: true }),
    DISCARD: control(1, (session) => session.discard(), { inMulti: true }),
    WATCH: control(-2, (session, words) => session.watch(words), { inMulti: true, keys: [1, -1, 1] }),
    UNWATCH: control(1, (session) => session.unwatch()),
    SUBSCRIBE: control(-2, (session, words) => session.subscribe(words, "channel"), { whileSubscribed: true }),
    PSUBSCRIBE: control(-2, (session, words) => session.subscribe(words, "pattern"), { whileSubscribed: true }),
    UNSUBSCRIBE: control(-1, (session, words) => session.unsubscribe(words, "channel"), { whileSubscribed: true }),
    PUNSUBSCRIBE: control(-1, (session, words) => session.unsubscribe(words, "pattern"), { whileSubscribed: true }),
    PUBLISH: control(3, () => [NO_PUBLISH]),
  }),
);

export class Session {
  readonly id: number;
  readonly shared: Shared;
  readonly remoteAddress: string;
  readonly #subscriber: Subscriber;
  version: RespVersion = 2;
  /** Nothing more is taken: what was answered is sent, and the connection ends. */
  isOver = false;
  /** Reads show what this node has, without asking whether there is more. */
  readsLocally = false;
  #user: { readonly accessKeyId: string; readonly secret: string } | undefined;
  #checkedMs = 0;
  #failedAuths = 0;
  #name = "";
  #queue: { readonly operations: Operation[]; bytes: number; isBroken: boolean } | undefined;
  readonly #watched = new Map<string, Revision>();
  readonly #subscribed = { channel: new Set<string>(), pattern: new Set<string>() };

  constructor(id: number, shared: Shared, subscriber: Subscriber, remoteAddress: string) {
    this.id = id;
    this.shared = shared;
    this.#subscriber = subscriber;
    this.remoteAddress = remoteAddress;
  }

  /** The access key that the client proved to have. */
  get accessKeyId(): string | undefined {
    return this.#user?.accessKeyId;
  }

  /** A data command that is to run now. Undefined for whatever else has come; nothing is changed. */
  operationOf(words: RespCommand): Operation | undefined {
    if (this.#queue || !this.#user || this.#onlyListens) return undefined;
    const command = findCommand(DATA_COMMANDS, words[0]!);
    if (!command) return undefined;
    return arityFits(command.arity, words.length) ? this.#parse(words) : answering(wrongArity(words[0]!));
  }

  /** Takes a command that `operationOf` did not. */
  take(words: RespCommand): Step {
    const name = words[0]!.toUpperCase();
    if (name === "POST" || name === "HOST:") {
      // A browser that a stranger's page has led here.
      this.isOver = true;
      return [errorReply("ERR this is not an HTTP server")];
    }
    const own = CONTROLS.get(name);
    if (!own?.open && !this.checkUser()) return [NOAUTH];
    const spec = own ?? DATA_COMMANDS.get(name);
    if (!spec) return this.#refuse(unknownCommand(words));
    if (!arityFits(spec.arity, words.length)) return this.#refuse(wrongArity(name));
    if (this.#onlyListens && !own?.whileSubscribed) {
      return [
        errorReply(
          `ERR Can't execute '${name.toLowerCase()}': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context`,
        ),
      ];
    }
    if (!own) return this.#enqueue(words);
    if (this.#queue && !own.inMulti) return this.#refuse(errorReply(`ERR ${name} is not taken inside MULTI`));
    return own.run(this, words);
  }

  /** Whether the client's key is still good. */
  checkUser(): boolean {
    if (!this.#user) return false;
    const now = this.shared.clock.monotonicMs();
    if (now - this.#checkedMs < KEY_CHECK_MS) return true;
    this.#checkedMs = now;
    if (this.shared.secretOf(this.#user.accessKeyId) === this.#user.secret) return true;
    this.#user = undefined;
    this.isOver = true;
    return false;
  }

  /** Gives up what others hold for it. */
  close(): void {
    const { notifications } = this.shared;
    for (const channel of this.#subscribed.channel) notifications.unsubscribe(this.#subscriber, channel);
    for (const pattern of this.#subscribed.pattern) notifications.unsubscribePattern(this.#subscriber, pattern);
    this.#subscribed.channel.clear();
    this.#subscribed.pattern.clear();
  }

  get #subscriptions(): number {
    return this.#subscribed.channel.size + this.#subscribed.pattern.size;
  }

  get #onlyListens(): boolean {
    return this.version === 2 && this.#subscriptions > 0;
  }

  #parse(words: RespCommand): Operation {
    const { clock, cursors } = this.shared;
    const parsed = findCommand(DATA_COMMANDS, words[0]!)!.parse(words, { now: clock.now(), cursors });
    return isOperation(parsed) ? parsed : answering(parsed);
  }

  /** In a MULTI, what could not be queued breaks all of it. */
  #refuse(reply: ErrorReply): readonly Reply[] {
    if (this.#queue) this.#queue.isBroken = true;
    return [reply];
  }

  #enqueue(words: RespCommand): Step {
    const queue = this.#queue!;
    const operation = this.#parse(words);
    if (operation.alone) return this.#refuse(errorReply(`ERR ${words[0]!.toUpperCase()} is not taken inside MULTI`));
    queue.bytes += commandBytes(words);
    if (queue.operations.length >= QUEUED_MAX || queue.bytes > QUEUED_BYTES_MAX) {
      queue.operations.length = 0;
      return this.#refuse(errorReply(`ERR a MULTI takes at most ${QUEUED_MAX} commands and ${QUEUED_BYTES_MAX} bytes`));
    }
    if (!queue.isBroken) queue.operations.push(operation);
    return QUEUED;
  }

  #authenticate(accessKeyId: string, secret: string): ErrorReply | undefined {
    const { log, secretOf, clock } = this.shared;
    const expected = secretOf(accessKeyId);
    // Digests are compared, also where there is no such key: the time tells neither length nor content.
    const isRight = timingSafeEqual(digest(secret), digest(expected ?? "")) && expected !== undefined;
    const who = { remoteAddress: this.remoteAddress, accessKeyId: accessKeyId.slice(0, 128) };
    if (!isRight) {
      this.#failedAuths++;
      if (this.#failedAuths >= FAILED_AUTHS_MAX) this.isOver = true;
      log.info("config.auth-failed", who);
      return WRONGPASS;
    }
    this.#user = { accessKeyId, secret };
    this.#checkedMs = clock.monotonicMs();
    log.debug("config.connected", who);
    return undefined;
  }

  auth(words: RespCommand): Step {
    if (words.length > 3) return [SYNTAX_ERROR];
    if (words.length < 3) return [errorReply("ERR AUTH takes an access key: AUTH accessKeyId secretAccessKey")];
    return [this.#authenticate(words[1]!, words[2]!) ?? OK];
  }

  hello(words: RespCommand): Step {
    const [, asked, ...options] = words;
    if (asked !== undefined && asked !== "2" && asked !== "3") {
      return [errorReply("NOPROTO unsupported protocol version")];
    }
    let name: string | undefined;
    while (options.length > 0) {
      const option = options.shift()!.toUpperCase();
      if (option === "AUTH" && options.length >= 2) {
        const refused = this.#authenticate(options.shift()!, options.shift()!);
        if (refused) return [refused];
      } else if (option === "SETNAME" && options.length >= 1) name = options.shift()!;
      else return [errorReply(`ERR Syntax error in HELLO option '${option.slice(0, 64)}'`)];
    }
    if (!this.#user) {
      return [
        errorReply(
          "NOAUTH HELLO must be called with the client already authenticated, or as HELLO <proto> AUTH <user> <pass>",
        ),
      ];
    }
    const unfit = name === undefined ? undefined : this.#setName(name);
    if (unfit) return [unfit];
    if (asked !== undefined) this.version = asked === "3" ? 3 : 2;
    return [
      {
        pairs: [
          ["server", "hive"],
          ["version", this.shared.facts().version],
          ["proto", this.version],
          ["id", this.id],
          ["mode", "standalone"],
          ["role", "master"],
          ["modules", []],
        ],
      },
    ];
  }

  quit(): Step {
    this.isOver = true;
    return [OK];
  }

  reset(): Step {
    this.close();
    this.#queue = undefined;
    this.#watched.clear();
    this.version = 2;
    this.#name = "";
    this.readsLocally = false;
    this.#user = undefined;
    return [{ simple: "RESET" }];
  }

  ping(words: RespCommand): Step {
    if (words.length > 2) return [wrongArity("ping")];
    if (this.#onlyListens) return [["pong", bytesReply(words[1] ?? "")]];
    return [words.length === 2 ? bytesReply(words[1]!) : { simple: "PONG" }];
  }

  client(words: RespCommand): Step {
    const sub = words[1]!.toUpperCase();
    if (sub === "ID") return [this.id];
    if (sub === "GETNAME") return [this.#name === "" ? null : this.#name];
    if (sub === "SETNAME" && words.length === 3) return [this.#setName(words[2]!) ?? OK];
    // Who it is made by, which nobody asks for here.
    if (sub === "SETINFO" && words.length === 4) return [OK];
    if (sub === "INFO") return [`id=${this.id} addr=${this.remoteAddress} name=${this.#name} resp=${this.version}\n`];
    return [
      errorReply(
        `ERR unknown subcommand '${sub.slice(0, 64)}'. CLIENT has GETNAME, ID, INFO, SETINFO and SETNAME here`,
      ),
    ];
  }

  readLocally(isAsked: boolean): Step {
    this.readsLocally = isAsked;
    return [OK];
  }

  multi(): Step {
    if (this.#queue) return [errorReply("ERR MULTI calls can not be nested")];
    this.#queue = { operations: [], bytes: 0, isBroken: false };
    return [OK];
  }

  exec(): Step {
    const queue = this.#queue;
    if (!queue) return [errorReply("ERR EXEC without MULTI")];
    const watched = new Map(this.#watched);
    this.#queue = undefined;
    this.#watched.clear();
    if (queue.isBroken) return [errorReply("EXECABORT Transaction discarded because of previous errors.")];
    return transactionOf(queue.operations, watched);
  }

  discard(): Step {
    if (!this.#queue) return [errorReply("ERR DISCARD without MULTI")];
    this.#queue = undefined;
    this.#watched.clear();
    return [OK];
  }

  watch(words: RespCommand): Step {
    if (this.#queue) return [errorReply("ERR WATCH inside MULTI is not allowed")];
    const keys = words.slice(1);
    if (this.#watched.size + keys.length > WATCHED_MAX) {
      return [errorReply(`ERR at most ${WATCHED_MAX} keys are watched at a time`)];
    }
    if (charsOf(this.#watched.keys()) + charsOf(keys) > NAMES_CHARS_MAX) return [NAMES_TOO_LONG];
    const state = this.shared.settings.read();
    for (const key of keys) {
      // The first look counts, as in Redis.
      if (!this.#watched.has(key)) this.#watched.set(key, writtenAt(state, key));
    }
    return [OK];
  }

  unwatch(): Step {
    this.#watched.clear();
    return [OK];
  }

  subscribe(words: RespCommand, to: "channel" | "pattern"): Step {
    const wanted = words.slice(1);
    if (this.#subscriptions + wanted.length > SUBSCRIPTIONS_MAX) {
      return [errorReply(`ERR at most ${SUBSCRIPTIONS_MAX} subscriptions are held at a time`)];
    }
    if (to === "pattern" && wanted.some((pattern) => pattern.length > PATTERN_CHARS_MAX)) return [PATTERN_TOO_LONG];
    if (charsOf(this.#subscribed[to]) + charsOf(wanted) > (to === "pattern" ? PATTERNS_CHARS_MAX : NAMES_CHARS_MAX)) {
      return [NAMES_TOO_LONG];
    }
    const { notifications, settings } = this.shared;
    const { revision } = settings.read();
    return wanted.map((name) => {
      this.#subscribed[to].add(name);
      if (to === "pattern") notifications.subscribePattern(this.#subscriber, name, revision);
      else notifications.subscribe(this.#subscriber, name, revision);
      return this.#confirmation(to === "pattern" ? "psubscribe" : "subscribe", name);
    });
  }

  /** From all of them when none is named. */
  unsubscribe(words: RespCommand, from: "channel" | "pattern"): Step {
    const { notifications } = this.shared;
    const kind = from === "pattern" ? "punsubscribe" : "unsubscribe";
    const left = words.length > 1 ? words.slice(1) : [...this.#subscribed[from]];
    if (left.length === 0) return [this.#confirmation(kind, undefined)];
    return left.map((name) => {
      this.#subscribed[from].delete(name);
      if (from === "pattern") notifications.unsubscribePattern(this.#subscriber, name);
      else notifications.unsubscribe(this.#subscriber, name);
      return this.#confirmation(kind, name);
    });
  }

  #confirmation(kind: string, name: string | undefined): Reply {
    return { message: [kind, name === undefined ? null : bytesReply(name), this.#subscriptions] };
  }

  #setName(name: string): ErrorReply | undefined {
    if (!/^[!-~]*$/.test(name) || name.length > NAME_CHARS_MAX) {
      return errorReply("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    this.#name = name;
    return undefined;
  }
}

/**
 * EXEC: all operations on one draft, if no watched key was written since. Each sees what those before it did; one that is
 * refused changes nothing, and the others stand, as in Redis.
 */
export function transactionOf(operations: readonly Operation[], watched: ReadonlyMap<string, Revision>): Operation {
  const writes = operations.flatMap((operation) => operation.writes ?? []);
  return {
    ...(operations.some((operation) => operation.writes) && { writes }),
    ttls: (state) => operations.flatMap((operation) => operation.ttls?.(state) ?? []),
    run: (draft: Draft) => {
      for (const [key, revision] of watched) {
        if (writtenAt(draft.state, key) !== revision) return null;
      }
      let bytes = 0;
      return operations.map((operation) => {
        const reply = operation.run(draft);
        bytes += replyBytes(reply);
        return bytes <= REPLY_BYTES_MAX
          ? reply
          : errorReply(`ERR the answers of this transaction are larger than ${REPLY_BYTES_MAX} bytes; it was done`);
      });
    },
  };
}

/** Of a key's newest version, its removal included: one that came and went meanwhile is another. */
const writtenAt = (state: Reader, key: string): Revision => state.stamp(settingsTable, key)?.modRevision ?? 0;

/** An operation that only answers. */
const answering = (reply: Reply): Operation => ({ run: () => reply });

/** A client's own bytes. */
const bytesReply = (bytes: string): Reply => Buffer.from(bytes, "latin1");

function charsOf(names: Iterable<string>): number {
  let sum = 0;
  for (const name of names) sum += name.length;
  return sum;
}

export const commandBytes = (words: RespCommand): number => words.reduce((sum, word) => sum + word.length, 0);

const digest = (text: string): Buffer => createHash("sha256").update(text, "latin1").digest();

function unknownCommand(words: RespCommand): ErrorReply {
  const [name, ...rest] = words.map((word) => word.slice(0, 64).replace(/[^ -~]/g, "?"));
  const shown = rest.slice(0, 8).map((word) => `'${word}' `);
  return errorReply(`ERR unknown command '${name}', with args beginning with: ${shown.join("")}`);
}

/** What tools ask before they measure or subscribe. Settings of the server itself are `hive config`'s. */
function configReply(words: RespCommand): Reply {
  if (words[1]!.toUpperCase() !== "GET") {
    return errorReply("ERR CONFIG only has GET here; what can be set has keys under hive/ (hive config list --schema)");
  }
  const known: readonly (readonly [string, string])[] = [
    ["appendonly", "yes"],
    ["databases", "1"],
    ["maxmemory", "0"],
    ["notify-keyspace-events", "KA"],
    ["save", ""],
  ];
  return {
    pairs: known.filter(([name]) => words.slice(2).some((asked) => asked === "*" || asked.toLowerCase() === name)),
  };
}
