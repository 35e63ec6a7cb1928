import type { ImageRecord } from "../model/image.ts";

/** Whether this account may see and launch an image: its own, a public one, or one that is shared with it. */
export const mayLaunch = (image: ImageRecord, accountId: string): boolean =>
  image.public || image.ownerId === accountId || image.launchAccounts.some((account) => account === accountId);
