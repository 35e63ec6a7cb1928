/** DescribeDhcpOptions. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { DhcpOptionsRecord } from "../model/network.ts";
import type { Describe } from "../model/operation.ts";
import { dhcpOptions, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type { DescribeDhcpOptionsRequest, DescribeDhcpOptionsResult, DhcpOptions } from "../schema/ec2/types.ts";
import { allOwned, getOwned, type Scope } from "./owned.ts";

export const viewDhcpOptions = memoView(
  (set: DhcpOptionsRecord, tagsOf: TagsRecord | undefined): DhcpOptions => ({
    OwnerId: set.accountId,
    Tags: tagList(tagsOf),
    DhcpOptionsId: set.id,
    DhcpConfigurations: set.options.map(({ key, values }) => ({
      Key: key,
      Values: values.map((Value) => ({ Value })),
    })),
  }),
);

const view = (set: DhcpOptionsRecord, { state }: Scope): DhcpOptions => viewDhcpOptions(set, state.get(tags, set.id));

export const describeDhcpOptions: Describe<DescribeDhcpOptionsRequest, DescribeDhcpOptionsResult, DhcpOptions> = {
  kind: "describe",
  ids: {
    kind: "DhcpOptions",
    of: (input) => input.DhcpOptionsIds,
    idOf: (set) => set.DhcpOptionsId!,
    get(id, _input, call) {
      const set = getOwned(call, dhcpOptions, id);
      return set && view(set, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, dhcpOptions).map((set) => view(set, call))),
  filters: {
    key: (set) => set.DhcpConfigurations?.map((option) => option.Key),
    value: (set) => set.DhcpConfigurations?.flatMap((option) => option.Values?.map(({ Value }) => Value)),
  },
  page: { min: 5, max: 1000, key: (set) => set.DhcpOptionsId! },
  answer: (items) => ({ DhcpOptions: items }),
};
