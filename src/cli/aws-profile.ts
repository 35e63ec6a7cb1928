/** Reads the AWS configuration files as the AWS CLI does: INI with `[profile name]` in one and `[name]` in the other. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** What a profile says, as far as Hive's commands need it. */
export interface AwsProfile {
  readonly endpointUrl?: string;
  readonly region?: string;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
}

/** Sections of an INI file, by name. Lines that are not `key = value`, nested settings and comments are passed over. */
export function parseIni(text: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>();
  let current: Map<string, string> | undefined;
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line);
    if (header) {
      const name = header[1]!;
      current = sections.get(name) ?? new Map();
      sections.set(name, current);
      continue;
    }
    const setting = /^([A-Za-z0-9_]+)\s*=\s*(.*?)\s*$/.exec(line);
    if (setting && current) current.set(setting[1]!, setting[2]!);
  }
  return sections;
}

/** A profile from the texts of the two files; undefined when neither names it. */
export function profileFrom(configText: string, credentialsText: string, name: string): AwsProfile | undefined {
  const config = parseIni(configText).get(name === "default" ? "default" : `profile ${name}`);
  const credentials = parseIni(credentialsText).get(name);
  if (!config && !credentials) return undefined;
  const value = (key: string) => credentials?.get(key) ?? config?.get(key);
  const found = {
    endpointUrl: value("endpoint_url"),
    region: config?.get("region"),
    accessKeyId: value("aws_access_key_id"),
    secretAccessKey: value("aws_secret_access_key"),
  };
  return Object.fromEntries(Object.entries(found).filter(([, v]) => v !== undefined));
}

/** A profile of the files in a folder (`config`, `credentials`), or undefined. */
export const profileInFolder = (folder: string, name: string): AwsProfile | undefined =>
  profileFrom(readText(join(folder, "config")), readText(join(folder, "credentials")), name);

/** A profile of the user's own files, which AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE may move. */
export function userProfile(env: Readonly<Record<string, string | undefined>>, name: string): AwsProfile | undefined {
  const folder = join(homedir(), ".aws");
  return profileFrom(
    readText(env.AWS_CONFIG_FILE ?? join(folder, "config")),
    readText(env.AWS_SHARED_CREDENTIALS_FILE ?? join(folder, "credentials")),
    name,
  );
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
