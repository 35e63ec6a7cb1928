/**
 * A client of etcd's JSON gateway: one call at a time, and watches. It picks a member that answers, logs in where a user
 * is named, and bounds what it reads and how long it waits. It retries nothing that might have been carried out: whether
 * that is safe, only its user knows.
 */
import type { z } from "zod";
import type { Clock } from "../../lib/clock.ts";
import type { Secret } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { KIB, MIB } from "../../lib/units.ts";
import {
  type EtcdKeyValue,
  errorAnswer,
  headed,
  type RangeRequest,
  rangeAnswer,
  type TxnRequest,
  tokenAnswer,
  txnAnswer,
  type WatchRequest,
  watchLine,
} from "./gateway-json.ts";

/**
 * Why a call came to nothing.
 *   unreachable  no member answered as etcd does; the call may have been carried out all the same, or may yet be
 *   compacted    the revision asked for is held no more
 *   too-large    above a limit that etcd was started with
 *   full         etcd's database has reached its quota
 *   refused      anything else that etcd says no to; like the three above, certainly not carried out
 */
export type EtcdError = {
  readonly kind: "unreachable" | "compacted" | "too-large" | "full" | "refused";
  /** A whole sentence. */
  readonly message: string;
};

export type RangeResult = {
  readonly revision: number;
  readonly entries: readonly EtcdKeyValue[];
  readonly more: boolean;
  /** The size of the answer, in bytes of JSON. */
  readonly bytes: number;
};
export type TxnResult = { readonly revision: number; readonly succeeded: boolean };

/** What one etcd revision did to the watched keys; `value` is absent where the key was deleted. */
export type EtcdRevision = {
  readonly revision: number;
  readonly changes: readonly { readonly key: string; readonly value: string | undefined }[];
};

const REQUEST_MS_MAX = 5000;
/** An answer, or a line of a watch. */
const ANSWER_BYTES_MAX = 64 * MIB;
const ERROR_BYTES_MAX = 64 * KIB;
/** Read at one go. */
const SMALL_BYTES = 64 * KIB;

export type EtcdClientOptions = {
  readonly endpoints: readonly string[];
  readonly user: { readonly name: string; readonly password: Secret } | undefined;
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly clock: Clock;
  readonly answerBytesMax?: number;
};

export class EtcdClient {
  readonly #options: EtcdClientOptions;
  readonly #session: Bun.FetchSession;
  readonly #answerBytesMax: number;
  /** The member that is asked first: the last one that answered. */
  #at = 0;
  #token: Promise<Result<string, EtcdError>> | undefined;
  #cluster: string | undefined;

  constructor(options: EtcdClientOptions) {
    this.#options = options;
    this.#answerBytesMax = options.answerBytesMax ?? ANSWER_BYTES_MAX;
    // A proxy of the environment is for the web, not for the cloud's own store.
    this.#session = new Bun.FetchSession({ proxy: false, tls: options.tls });
  }

  /** Reads keys; linearizable: nothing that was committed before the call is missing. */
  async range(request: RangeRequest): Promise<Result<RangeResult, EtcdError>> {
    const called = await this.#call("kv/range", request, rangeAnswer);
    if (!called.ok) return called;
    const { answer, bytes } = called.value;
    return ok({ revision: answer.header.revision, entries: answer.kvs, more: answer.more, bytes });
  }

  async txn(request: TxnRequest): Promise<Result<TxnResult, EtcdError>> {
    const called = await this.#call("kv/txn", request, txnAnswer);
    if (!called.ok) return called;
    const { answer } = called.value;
    return ok({ revision: answer.header.revision, succeeded: answer.succeeded });
  }

  /**
   * What happens to the keys from a revision on, one value a revision, in order and without gaps; values without changes
   * say only that it works, and how far it has come. The last one is the error that it ended with, unless `signal` did.
   */
  async *watch(request: WatchRequest, signal: AbortSignal): AsyncGenerator<Result<EtcdRevision, EtcdError>> {
    const body = JSON.stringify({ create_request: { ...request, progress_notify: true } });
    const opened = await this.#failover((endpoint) => this.#post(endpoint, "watch", body, signal));
    if (!opened.ok) {
      if (!signal.aborted) yield opened;
      return;
    }
    const { endpoint, response } = opened.value;
    let reached = request.start_revision - 1;
    try {
      for await (const line of linesOf(response, this.#answerBytesMax)) {
        if (line === undefined) return yield fail(tooMuch(endpoint, this.#answerBytesMax));
        const read = watchLine.safeParse(jsonOf(line));
        if (!read.success) return yield fail(strange(endpoint, excerpt(line)));
        if ("error" in read.data) return yield fail(unreachable(endpoint, read.data.error.message));
        const { header, created, canceled, cancel_reason, compact_revision, events } = read.data.result;
        const other = this.#otherCluster(endpoint, header.cluster_id);
        if (other) return yield fail(other);
        if (compact_revision > 0) {
          const message = `Etcd holds the changes before revision ${compact_revision} no more.`;
          return yield fail({ kind: "compacted", message });
        }
        if (canceled) return yield fail(unreachable(endpoint, cancel_reason || "it ended the watch"));
        // That it has begun; and, now and then, that nothing has happened until some revision.
        if (events.length === 0) {
          if (!created) reached = Math.max(reached, header.revision);
          yield ok({ revision: reached, changes: [] });
        }
        // Several revisions may come in one line, each of them whole.
        let changes: { key: string; value: string | undefined }[] = [];
        for (const [i, { type, kv }] of events.entries()) {
          changes.push({ key: kv.key, value: type === "PUT" ? kv.value : undefined });
          if (events[i + 1]?.kv.mod_revision === kv.mod_revision) continue;
          if (kv.mod_revision > reached) {
            reached = kv.mod_revision;
            yield ok({ revision: reached, changes });
          }
          changes = [];
        }
      }
      if (!signal.aborted) yield fail(unreachable(endpoint, "it ended the watch"));
    } catch (cause) {
      if (!signal.aborted) yield fail(unreachable(endpoint, reasonOf(cause)));
    } finally {
      await response.body?.cancel().catch(() => undefined);
    }
  }

  /** Closes idle connections. */
  close(): void {
    this.#session.close();
  }

  async #call<T>(
    path: string,
    request: object,
    shape: z.ZodType<T>,
  ): Promise<Result<{ readonly answer: T; readonly bytes: number }, EtcdError>> {
    const body = JSON.stringify(request);
    return this.#failover(async (endpoint) => {
      const timeout = new AbortController();
      const waited = new AbortController();
      // The time covers the answer's body too.
      void this.#options.clock.sleep(REQUEST_MS_MAX, waited.signal).then(() => timeout.abort());
      try {
        const posted = await this.#post(endpoint, path, body, timeout.signal);
        if (!posted.ok) return posted;
        const text = await textOf(posted.value.response, this.#answerBytesMax);
        if (text === undefined) return fail(tooMuch(endpoint, this.#answerBytesMax));
        const json = jsonOf(text);
        const read = shape.safeParse(json);
        if (!read.success) return fail(strange(endpoint, excerpt(text)));
        const other = this.#otherCluster(endpoint, headed.safeParse(json).data?.header.cluster_id);
        return other ? fail(other) : ok({ answer: read.data, bytes: text.length });
      } catch (cause) {
        return fail(unreachable(endpoint, timeout.signal.aborted ? noAnswer : reasonOf(cause)));
      } finally {
        waited.abort();
      }
    });
  }

  /** Asks the members in turn until one answers, once each. */
  async #failover<T>(ask: (endpoint: string) => Promise<Result<T, EtcdError>>): Promise<Result<T, EtcdError>> {
    const { endpoints } = this.#options;
    const complaints: string[] = [];
    for (let tried = 0; tried < endpoints.length; tried++) {
      const answer = await ask(endpoints[this.#at]!);
      if (answer.ok || answer.error.kind !== "unreachable") return answer;
      complaints.push(answer.error.message);
      this.#at = (this.#at + 1) % endpoints.length;
    }
    return fail({ kind: "unreachable", message: complaints.join(" ") });
  }

  /** One request, with its headers answered. Logs in again when the token is no longer good. */
  async #post(
    endpoint: string,
    path: string,
    body: string,
    signal: AbortSignal,
  ): Promise<Result<{ readonly endpoint: string; readonly response: Response }, EtcdError>> {
    for (let attempt = 0; ; attempt++) {
      const login = this.#login(endpoint, signal);
      const token = await login;
      if (token && !token.ok) return token;
      try {
        const response = await this.#session.fetch(`${endpoint}/v3/${path}`, {
          method: "POST",
          body,
          signal,
          redirect: "manual",
          timeout: false,
          ...(token && { headers: { authorization: token.value } }),
        });
        if (response.status === 200) return ok({ endpoint, response });
        const text = (await textOf(response, ERROR_BYTES_MAX)) ?? "";
        if (attempt === 0 && token && tokenIsStale(text)) {
          // Unless somebody else has noticed before us.
          if (this.#token === login) this.#token = undefined;
          continue;
        }
        return fail(errorOf(endpoint, response.status, text));
      } catch (cause) {
        return fail(unreachable(endpoint, signal.aborted ? noAnswer : reasonOf(cause)));
      }
    }
  }

  /** The token of our user; undefined where none is named. All that wait for it share one login. */
  #login(endpoint: string, signal: AbortSignal): Promise<Result<string, EtcdError>> | undefined {
    const { user } = this.#options;
    if (!user || this.#token) return this.#token;
    const login = this.#logIn(endpoint, user, signal);
    this.#token = login;
    void login.then((token) => {
      if (!token.ok && this.#token === login) this.#token = undefined;
    });
    return login;
  }

  async #logIn(
    endpoint: string,
    user: NonNullable<EtcdClientOptions["user"]>,
    signal: AbortSignal,
  ): Promise<Result<string, EtcdError>> {
    try {
      const response = await this.#session.fetch(`${endpoint}/v3/auth/authenticate`, {
        method: "POST",
        body: JSON.stringify({ name: user.name, password: user.password.reveal() }),
        signal,
        redirect: "manual",
      });
      const text = (await textOf(response, ERROR_BYTES_MAX)) ?? "";
      if (response.status !== 200) {
        const error = errorOf(endpoint, response.status, text);
        if (error.kind === "unreachable") return fail(error);
        return fail({ kind: "refused", message: `The login of the user ${user.name} failed. ${error.message}` });
      }
      const read = tokenAnswer.safeParse(jsonOf(text));
      return read.success ? ok(read.data.token) : fail(strange(endpoint, "no token"));
    } catch (cause) {
      return fail(unreachable(endpoint, signal.aborted ? noAnswer : reasonOf(cause)));
    }
  }

  /** Members of one cluster have one history. An address that belongs to another must not be taken for it. */
  #otherCluster(endpoint: string, cluster: string | undefined): EtcdError | undefined {
    this.#cluster ??= cluster;
    if (cluster === undefined || cluster === this.#cluster) return undefined;
    const message = `${hostOf(endpoint)} belongs to another etcd cluster (${cluster}) than the one in use (${this.#cluster}).`;
    return { kind: "unreachable", message };
  }
}

const noAnswer = `no answer within ${REQUEST_MS_MAX / 1000} s`;
const hostOf = (endpoint: string): string => `Etcd at ${endpoint.slice(endpoint.indexOf("//") + 2)}`;

const unreachable = (endpoint: string, why: string): EtcdError => ({
  kind: "unreachable",
  message: `${hostOf(endpoint)} cannot be reached: ${why}.`,
});
const strange = (endpoint: string, what: string): EtcdError => ({
  kind: "unreachable",
  message: `${hostOf(endpoint)} does not answer as etcd's JSON gateway does: ${what}.`,
});
const tooMuch = (endpoint: string, bytesMax: number): EtcdError => ({
  kind: "too-large",
  message: `${hostOf(endpoint)} answered with more than ${bytesMax} bytes.`,
});

/** gRPC codes after which the call was certainly not carried out. */
const REFUSALS = new Set([3, 5, 6, 7, 8, 9, 11, 12, 16]);

/** The error of an answer that is none of success. Pure. */
export function errorOf(endpoint: string, status: number, text: string): EtcdError {
  const read = errorAnswer.safeParse(jsonOf(text));
  if (status === 404 && !read.success) {
    return {
      kind: "refused",
      message: `${hostOf(endpoint)} serves no v3 JSON gateway: that takes etcd 3.4 or later, not started with --enable-grpc-gateway=false.`,
    };
  }
  if (!read.success) return strange(endpoint, `status ${status}, ${excerpt(text)}`);
  const { code, message } = read.data;
  const said = `${hostOf(endpoint)} said: ${message.replace(/^etcdserver: /, "").replace(/\.$/, "")}.`;
  if (/too many operations/.test(message)) {
    return { kind: "too-large", message: `${said} Start it with a larger --max-txn-ops; 128 is the default.` };
  }
  if (/request is too large|larger than max/.test(message)) {
    return {
      kind: "too-large",
      message: `${said} Start it with a larger --max-request-bytes; 1572864 is the default.`,
    };
  }
  if (/database space exceeded/.test(message)) {
    const mend = "Compact and defragment it, or raise --quota-backend-bytes, and disarm its alarm.";
    return { kind: "full", message: `${said} ${mend}` };
  }
  if (/has been compacted/.test(message)) return { kind: "compacted", message: said };
  if (/too many requests|future revision/.test(message)) return { kind: "unreachable", message: said };
  return { kind: REFUSALS.has(code) ? "refused" : "unreachable", message: said };
}

const tokenIsStale = (text: string): boolean => /invalid auth token|revision of auth store is old/.test(text);

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What a complaint quotes of an answer. */
const excerpt = (text: string): string => (text.trim() === "" ? "an empty answer" : JSON.stringify(text.slice(0, 80)));

function reasonOf(cause: unknown): string {
  const { code, message } = cause as { code?: unknown; message?: unknown };
  if (code === "ECONNREFUSED" || code === "ConnectionRefused") return "nothing listens there";
  return String(message ?? cause).replace(/\.$/, "");
}

/** The body as text; undefined when it is larger than an answer may be. */
async function textOf(response: Response, bytesMax: number): Promise<string | undefined> {
  const length = Number(response.headers.get("content-length") ?? Number.NaN);
  if (length <= Math.min(bytesMax, SMALL_BYTES)) return response.text();
  const decoder = new TextDecoder();
  const parts: string[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > bytesMax) return undefined;
    parts.push(decoder.decode(chunk, { stream: true }));
  }
  return parts.join("") + decoder.decode();
}

/** The lines of a body, as they come; undefined, and the end, for one that is larger than a line may be. */
async function* linesOf(response: Response, bytesMax: number): AsyncGenerator<string | undefined> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    const pieces = decoder.decode(chunk, { stream: true }).split("\n");
    const last = pieces.pop()!;
    for (const piece of pieces) {
      const line = parts.join("") + piece;
      parts = [];
      size = 0;
      if (line.trim() !== "") yield line;
    }
    parts.push(last);
    size += last.length;
    if (size > bytesMax) return yield undefined;
  }
}
