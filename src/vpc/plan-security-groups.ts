/**
 * Security groups as OpenFlow. A rule of a group holds for every port in the group, from every address of its source, for
 * every port number of its range; written out, that is a product. A conjunctive match (ovs-fields(7)) keeps it a sum: one
 * flow for each port, each address and each protocol match, which names the conjunctions that it is one clause of:
 *
 *   id      one (direction, group, source) — all rules of the group with that source share it
 *   clause  the port is in the group; the peer is in the source; the protocol and port are in a rule's range
 *
 * A clause that anything would meet (source 0.0.0.0/0, all protocols) is left out. A port with a group that allows
 * everything has one plain flow. Flows with the same match are merged, so that their number is ports + addresses +
 * distinct protocol matches. Ids are hashes of what they stand for: a change elsewhere leaves a group's flows as they are.
 */
import type { SecurityGroupRuleRecord } from "../model/network.ts";
import type { Flow } from "./plan-flows.ts";
import { formatMaskedPort, portRangeMasks } from "./plan-port-ranges.ts";

/** What one group asks of the ports on this node. */
export interface GroupPolicy {
  readonly groupId: string;
  /** OpenFlow numbers of this node's ports in the group. */
  readonly ports: readonly number[];
  readonly rules: readonly PolicyRule[];
}
export interface PolicyRule {
  readonly egress: boolean;
  readonly protocol: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly peer: PeerSet;
}
/** The other side: a name that is the same in every plan, and the addresses or CIDR blocks that it stands for. */
export interface PeerSet {
  readonly key: string;
  readonly blocks: readonly string[];
}

export interface Direction {
  readonly name: "ingress" | "egress";
  readonly table: number;
  /** The register that holds the port whose groups decide, and the field that holds the other side's address. */
  readonly portField: string;
  readonly peerField: "nw_src" | "nw_dst";
  /** What happens to a new connection that is allowed. */
  readonly allow: string;
}

const ANYWHERE = "0.0.0.0/0";
const PRIORITY = 100;

/** The flows that let new connections through in one direction. What they do not match is for the table's last flow. Pure. */
export function planSecurityGroups(policies: readonly GroupPolicy[], direction: Direction): Flow[] {
  const bundles = policies.flatMap((policy) => bundle(policy, direction.name));
  const open = new Set(bundles.filter(allowsEverything).flatMap((b) => b.ports));
  const clauses = new Map<string, string[]>();
  const allowed: string[] = [];
  const taken = new Set<number>();
  const clause = (match: string, action: string) => {
    const actions = clauses.get(match);
    if (actions) actions.push(action);
    else clauses.set(match, [action]);
  };

  for (const { key, ports, blocks, protocols } of bundles) {
    const guarded = ports.filter((port) => !open.has(port));
    if (guarded.length === 0 || blocks.length === 0) continue;
    const dimensions = [
      guarded.map((port) => `ip,${direction.portField}=0x${port.toString(16)}`),
      ...(blocks.includes(ANYWHERE) ? [] : [blocks.map((block) => `ip,${direction.peerField}=${block}`)]),
      ...(protocols.includes("ip") ? [] : [protocols]),
    ];
    const id = freshId(`${direction.name}/${key}`, taken);
    dimensions.forEach((matches, i) => {
      for (const match of matches) clause(match, `conjunction(${id},${i + 1}/${dimensions.length})`);
    });
    allowed.push(`conj_id=${id},ip`);
  }

  const { table, allow, portField } = direction;
  return [
    ...[...open].map((port) => ({
      table,
      priority: PRIORITY,
      match: `ip,${portField}=0x${port.toString(16)}`,
      actions: allow,
    })),
    ...allowed.map((match) => ({ table, priority: PRIORITY, match, actions: allow })),
    ...[...clauses].map(([match, actions]) => ({
      table,
      priority: PRIORITY,
      match,
      actions: actions.sort().join(","),
    })),
  ];
}

/** All of a group's rules with one peer. */
type Bundle = {
  readonly key: string;
  readonly ports: readonly number[];
  readonly blocks: readonly string[];
  readonly protocols: readonly string[];
};

function bundle(policy: GroupPolicy, name: Direction["name"]): Bundle[] {
  const byPeer = new Map<string, { peer: PeerSet; protocols: Set<string> }>();
  for (const rule of policy.rules) {
    if (rule.egress !== (name === "egress")) continue;
    const entry = byPeer.get(rule.peer.key) ?? { peer: rule.peer, protocols: new Set<string>() };
    byPeer.set(rule.peer.key, entry);
    for (const match of protocolMatches(rule)) entry.protocols.add(match);
  }
  return [...byPeer.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .filter(([, entry]) => entry.protocols.size > 0)
    .map(([key, entry]) => ({
      key: `${policy.groupId}/${key}`,
      ports: policy.ports,
      blocks: [...new Set(entry.peer.blocks)],
      protocols: [...entry.protocols],
    }));
}

const allowsEverything = (b: Bundle): boolean => b.blocks.includes(ANYWHERE) && b.protocols.includes("ip");

const NAMES: { readonly [protocol: string]: string } = { "6": "tcp", "17": "udp", "1": "icmp" };

/**
 * A rule's protocol and ports as ovs-ofctl matches; `ip` when it allows all of IPv4, none when it is about IPv6 only.
 * For ICMP, `fromPort` is the type and `toPort` the code.
 */
export function protocolMatches(
  rule: Pick<SecurityGroupRuleRecord, "protocol" | "fromPort" | "toPort">,
): readonly string[] {
  const { fromPort, toPort } = rule;
  const protocol = NAMES[rule.protocol] ?? rule.protocol;
  switch (protocol) {
    case "-1":
      return ["ip"];
    case "icmpv6":
    case "58":
      return [];
    case "icmp":
      if (fromPort < 0) return ["icmp"];
      return [toPort < 0 ? `icmp,icmp_type=${fromPort}` : `icmp,icmp_type=${fromPort},icmp_code=${toPort}`];
    case "tcp":
    case "udp":
      if (fromPort < 0) return [protocol];
      return portRangeMasks(fromPort, toPort).map((block) => {
        const port = formatMaskedPort(block);
        return port === undefined ? protocol : `${protocol},tp_dst=${port}`;
      });
    default:
      return /^\d{1,3}$/.test(protocol) ? [`ip,nw_proto=${protocol}`] : [];
  }
}

/** FNV-1a of `key`, or the next number that is free. Never 0, which means "no conjunction". */
function freshId(key: string, taken: Set<number>): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193) >>> 0;
  while (hash === 0 || taken.has(hash)) hash = (hash + 1) >>> 0;
  taken.add(hash);
  return hash;
}
