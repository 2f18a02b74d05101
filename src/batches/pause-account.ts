/** Pauses an account that its provider refuses, and says so once, with what to do. Nothing more is bought for it then. */

import type { AccountName } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

export type PauseDeps = {
  readonly ledger: Pick<Ledger, "pauseAccount">;
  readonly tell: (fields: Readonly<Record<string, unknown>>, message: string) => void;
};

export async function pauseAccount(account: AccountName, reason: string, { ledger, tell }: PauseDeps): Promise<void> {
  if (!(await ledger.pauseAccount(account, reason))) return;
  tell(
    { account },
    `account ${account} is paused: ${reason}; when that is mended: outlast resume --account ${account}`,
  );
}
