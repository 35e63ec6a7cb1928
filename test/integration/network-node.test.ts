import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { ensureTap, removeTap } from "../../src/host/net/tap.ts";
import { run } from "../../src/host/run.ts";
import { nodeUnavailable, withNode } from "../support/netns.ts";

const lacking = nodeUnavailable();
describe.skipIf(lacking !== undefined)(`a node in a namespace${lacking ? ` (skipped: ${lacking})` : ""}`, () => {
  test("has its own switch, and leaves nothing behind when its test fails", async () => {
    let seen = { directory: "", name: "" };
    const failing = withNode(async (node) => {
      seen = node;
      await node.exec([
        "ovs-vsctl",
        `--db=${node.ovsdb}`,
        "add-br",
        "b0",
        "--",
        "set",
        "bridge",
        "b0",
        "datapath_type=netdev",
      ]);
      expect((await node.exec(["ip", "link", "show", "b0"])).stdout).toContain("b0");
      throw new Error("on purpose");
    });
    await expect(failing).rejects.toThrow("on purpose");
    expect(existsSync(seen.directory)).toBe(false);
    const spaces = await run(["ip", "netns", "list"]);
    expect(spaces.ok && spaces.value.stdout).not.toContain(seen.name);
  });

  test("a TAP can be made twice and removed twice, and another kind of device of that name is refused", async () => {
    await withNode(
      async (node) => {
        const exec: typeof run = (argv, options) => run([...node.prefix, ...argv], options);
        expect(await ensureTap({ name: "hv1", uid: 64321 }, exec)).toEqual({ ok: true, value: undefined });
        expect(await ensureTap({ name: "hv1", uid: 64321 }, exec)).toEqual({ ok: true, value: undefined });
        const link = JSON.parse((await node.exec(["ip", "-d", "-j", "link", "show", "hv1"])).stdout)[0];
        expect({ mtu: link.mtu, user: Number(link.linkinfo.info_data.user), up: link.flags.includes("UP") }).toEqual({
          mtu: 1500,
          user: 64321,
          up: true,
        });
        expect((await removeTap("hv1", exec)).ok).toBe(true);
        expect((await removeTap("hv1", exec)).ok).toBe(true);
        await node.exec(["ip", "link", "add", "hv1", "type", "veth", "peer", "name", "hv2"]);
        expect(await ensureTap({ name: "hv1" }, exec)).toMatchObject({ ok: false, error: { kind: "unsupported" } });
      },
      { stopped: true },
    );
  });
});
