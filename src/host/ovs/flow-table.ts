/**
 * A bridge's flows, changed by what differs, as one OpenFlow bundle: all of it takes effect at one moment, or nothing does.
 * What was applied is remembered as long as the switch stays connected; afterwards, and now and then, the switch itself is asked.
 */
import { ok, type Result } from "../../lib/result.ts";
import type { Flow } from "../../vpc/plan-flows.ts";
import { commandFailed, type HostError } from "../host-error.ts";
import type { RunCommand } from "../net/tap.ts";

/** "hive": tells Hive's flows from others in a dump. */
export const FLOW_COOKIE = "0x68697665";
const FLOW_TOOL_TIMEOUT_MS = 15_000;

const matchOf = (flow: Flow): string =>
  `table=${flow.table},priority=${flow.priority}${flow.match ? `,${flow.match}` : ""}`;

export class FlowTable {
  #applied: ReadonlyMap<string, string> | undefined;
  readonly #target: string;
  readonly #run: RunCommand;

  /** @param target what ovs-ofctl calls the switch: `unix:` and the path of its management socket */
  constructor(target: string, run: RunCommand) {
    this.#target = target;
    this.#run = run;
  }

  /** The next `apply` asks the switch what it has. */
  forget(): void {
    this.#applied = undefined;
  }

  /** @returns how many flows were added, changed or removed; with a switch that was asked, how many are there */
  async apply(flows: readonly Flow[]): Promise<Result<number, HostError>> {
    const wanted = new Map(flows.map((flow) => [matchOf(flow), flow.actions]));
    const applied = this.#applied;
    const lines: string[] = [];
    if (applied) {
      for (const match of applied.keys()) if (!wanted.has(match)) lines.push(`delete_strict ${match}`);
      for (const [match, actions] of wanted)
        if (applied.get(match) !== actions) lines.push(`add ${line(match, actions)}`);
      if (lines.length === 0) return ok(0);
    } else {
      for (const [match, actions] of wanted) lines.push(line(match, actions));
    }
    const command = applied ? "add-flows" : "replace-flows";
    this.#applied = undefined;
    const done = await this.#run(["ovs-ofctl", "--bundle", "-O", "OpenFlow14", command, this.#target, "-"], {
      stdin: `${lines.join("\n")}\n`,
      timeoutMs: FLOW_TOOL_TIMEOUT_MS,
    });
    if (!done.ok) return done;
    if (done.value.code !== 0)
      return { ok: false, error: commandFailed("ovs-ofctl", done.value.code, done.value.stderr) };
    this.#applied = wanted;
    return ok(lines.length);
  }
}

const line = (match: string, actions: string): string => `cookie=${FLOW_COOKIE},${match},actions=${actions}`;
