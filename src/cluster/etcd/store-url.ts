/**
 * How an operator names an etcd, in the manner of the connection strings of databases:
 *
 *   etcd://host:2379,host2:2379                          one cluster's members; 2379 is the default port
 *   etcd://user:password@host/clouds/berlin              as a user of etcd's; the cloud lives under /clouds/berlin/
 *   etcd+https://host?ca=FILE&cert=FILE&key=FILE         over TLS: who signs the server, and who we are to it
 *   etcd://user@host?password-file=FILE                  the password is not on the command line
 */
import { Secret } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";

export type EtcdUrl = {
  /** `http://host:port` or `https://host:port`, one for each member. */
  readonly endpoints: readonly string[];
  /** Begins and ends with a slash. All keys of one cloud begin with it. */
  readonly prefix: string;
  readonly user: string | undefined;
  readonly password: Secret | undefined;
  /** Files, to be read when the store is opened. */
  readonly files: { readonly [name in EtcdFile]?: string };
};
const FILES = ["ca", "cert", "key", "password-file"] as const;
export type EtcdFile = (typeof FILES)[number];

const DEFAULT_PREFIX = "/hive/";
const DEFAULT_PORT = 2379;
const ENDPOINTS_MAX = 16;
const URL_LENGTH_MAX = 4096;

/** Reads such a name. Pure. @returns what it says, or a sentence on what is wrong with it, without the password */
export function parseEtcdUrl(url: string): Result<EtcdUrl, string> {
  if (url.length > URL_LENGTH_MAX) return fail(`an etcd URL has at most ${URL_LENGTH_MAX} characters`);
  // Not the URL class: it knows no list of hosts.
  const parts =
    /^etcd(?<tls>\+https)?:\/\/(?:(?<login>[^@/]*)@)?(?<hosts>[^/?@]*)(?<path>\/[^?]*)?(?:\?(?<query>.*))?$/.exec(url);
  if (!parts?.groups) return fail("a store in etcd is written etcd://host:2379,host2:2379/prefix or etcd+https://…");
  const { tls, login, hosts = "", path = DEFAULT_PREFIX, query = "" } = parts.groups;

  const endpoints: string[] = [];
  for (const host of hosts.split(",")) {
    const endpoint = endpointOf(tls ? "https" : "http", host);
    if (endpoint === undefined) return fail(`"${host}" is not an etcd member's host:port`);
    endpoints.push(endpoint);
  }
  if (endpoints.length > ENDPOINTS_MAX) return fail(`an etcd URL names at most ${ENDPOINTS_MAX} members`);

  const prefix = path.endsWith("/") ? path : `${path}/`;
  if (!/^(\/[A-Za-z0-9._-]+)+\/$/.test(prefix)) return fail(`"${path}" is not a prefix for keys, as /hive/ is`);

  const files: { [name in EtcdFile]?: string } = {};
  for (const [name, value] of new URLSearchParams(query)) {
    const known = FILES.find((file) => file === name);
    if (!known) return fail(`an etcd URL knows ${FILES.join(", ")}, and not "${name}"`);
    if (value === "") return fail(`${name} names no file`);
    files[known] = value;
  }
  if ((files.ca || files.cert || files.key) && !tls) return fail("ca, cert and key need etcd+https://");
  if ((files.cert === undefined) !== (files.key === undefined)) return fail("cert and key belong together");

  const named = loginOf(login);
  if (named === undefined) return fail("the user or the password is not percent-encoded as in a URL");
  const { user, password } = named;
  if (user === undefined && files["password-file"]) return fail("password-file needs a user: etcd://user@host");
  if (password && files["password-file"]) return fail("the password is given twice: in the URL and by password-file");
  if (user !== undefined && !password && !files["password-file"]) return fail(`the user ${user} has no password`);
  return ok({ endpoints, prefix, user, password, files });
}

function endpointOf(scheme: string, host: string): string | undefined {
  const parts = /^(?<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?<port>\d{1,5}))?$/.exec(host)?.groups;
  const port = Number(parts?.port ?? DEFAULT_PORT);
  return parts && port > 0 && port < 65536 ? `${scheme}://${parts.name}:${port}` : undefined;
}

function loginOf(login: string | undefined): { user?: string; password?: Secret } | undefined {
  if (login === undefined) return {};
  const [user = "", ...rest] = login.split(":");
  try {
    const password = rest.length > 0 ? { password: new Secret(decodeURIComponent(rest.join(":"))) } : {};
    return user === "" ? undefined : { user: decodeURIComponent(user), ...password };
  } catch {
    return undefined;
  }
}
