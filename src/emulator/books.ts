/**
 * The books: what was asked, made, billed and fetched, kept apart from what the API shows, so that a caller's own
 * account of a batch can be audited against it. `GET /__audit` answers the totals, with `?predictions=1`, `?files=1` and
 * `?inputs=1` also the rows behind them; nothing in it is a secret. What somebody else bought on an account is counted
 * under `foreign`, and nowhere else in the totals.
 *
 * Money is integers of 10⁻⁹ dollars inside and a decimal string outside. What ended without ever running, as every
 * `aborted` prediction did, isn't billed; all else is billed by its run time, failed or not.
 */

import { byInput, type InputRow, type ServedFile } from "./books-by-input.ts";
import { isoMicros, isTerminal, type Prediction, predictMs, type Status } from "./prediction.ts";
import type { StrayToken, StrayTokens } from "./stray-tokens.ts";

/** How a request went: an HTTP status, or without an answer; `unheard`: the asker hung up before a late one. */
export type Outcome = number | "dropped" | "silent" | "unheard";

/** What predictions came to. */
type Tally = {
  readonly predictions: Readonly<Record<Status | "total" | "data_removed", number>>;
  readonly bills: { readonly predictions: number; readonly predict_seconds: string; readonly usd: string };
};

/** What leaves the process is in snake_case. */
export type Audit = Tally & {
  readonly seed: string;
  /** By `surface route`, then by HTTP status, `dropped`, `silent` or `unheard`. */
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly creates: {
    readonly total: number;
    readonly distinct_inputs: number;
    /** How many inputs were created more than once, */
    readonly repeated_inputs: number;
    /** how many creates those were beyond the first of each, */
    readonly surplus: number;
    /** and the first hundred of them. A digest is the SHA-256 of the canonical JSON of `{input, model}`. */
    readonly repeated: readonly { readonly digest: string; readonly creates: number }[];
  };
  /** Nobody cancels these but who takes them for its own. */
  readonly foreign: Tally;
  readonly files: {
    /** Files of which anything was fetched. */
    readonly fetched: number;
    /** Answers that held a whole file, and were sent to the end. */
    readonly complete: number;
    /** Answers that held a range, or broke off. */
    readonly partial: number;
    readonly complete_bytes: number;
  };
  readonly webhooks: Readonly<typeof NO_WEBHOOKS>;
  readonly tokens_out_of_place: readonly StrayToken[];
};

export type PredictionRow = {
  readonly id: string;
  readonly account: string;
  readonly model: string;
  readonly digest: string;
  /** Bought by somebody else. */
  readonly foreign: boolean;
  readonly status: Status;
  readonly created_at: string;
  /** Seconds; null until it ended, and if it never ran. */
  readonly predict_time: number | null;
  readonly usd: string;
};

export type FileRow = ServedFile & { readonly prediction: string };

type FileEntry = { -readonly [Field in keyof FileRow]: FileRow[Field] };

const REPEATED_SHOWN = 100;

/** Messages, except for `tries`. */
const NO_WEBHOOKS = {
  /** The true ones, each repetition by a fault counted. */
  sent: 0,
  /** Of those: answered with 2xx, */
  delivered: 0,
  /** or given up. */
  lost: 0,
  tries: 0,
  /** By faults: never sent, */
  dropped: 0,
  /** sent late, */
  late: 0,
  /** sent beyond the first, */
  repeated: 0,
  /** sent with a wrong signature; not among `sent`, nor `tries`, */
  forged: 0,
  /** and those of them that were answered with 2xx. */
  forged_taken: 0,
};

export class Books {
  readonly webhooks = { ...NO_WEBHOOKS };
  readonly #requests = new Map<string, Map<string, number>>();
  readonly #creates = new Map<string, number>();
  readonly #files = new Map<string, FileEntry>();
  readonly #seed: string;
  readonly #nanoUsdPerMs: number;
  readonly #strays: StrayTokens;
  readonly #predictions: () => Iterable<Prediction>;

  constructor(
    settings: { readonly seed: string; readonly usdPerSecond: number },
    strays: StrayTokens,
    predictions: () => Iterable<Prediction>,
  ) {
    this.#seed = settings.seed;
    this.#nanoUsdPerMs = Math.round(settings.usdPerSecond * 1_000_000);
    this.#strays = strays;
    this.#predictions = predictions;
  }

  answered(surface: string, route: string, outcome: Outcome): void {
    const name = `${surface} ${route}`;
    const outcomes = this.#requests.get(name) ?? new Map<string, number>();
    this.#requests.set(name, outcomes);
    outcomes.set(String(outcome), (outcomes.get(String(outcome)) ?? 0) + 1);
  }

  created(prediction: Prediction): void {
    this.#creates.set(prediction.digest, (this.#creates.get(prediction.digest) ?? 0) + 1);
  }

  /** How often an input was bought, by ourselves. */
  createsOf(digest: string): number {
    return this.#creates.get(digest) ?? 0;
  }

  /** `sha256` is given where the answer held the whole file and was sent to its end. */
  fetched(prediction: Prediction, name: string, bytes: number, sha256: string | null): void {
    const key = `${prediction.id}/${name}`;
    const entry = this.#files.get(key) ?? {
      prediction: prediction.id,
      name,
      bytes,
      sha256: null,
      complete: 0,
      partial: 0,
    };
    this.#files.set(key, entry);
    if (sha256 === null) {
      entry.partial++;
    } else {
      entry.complete++;
      entry.sha256 = sha256;
    }
  }

  audit(): Audit {
    const repeated = [...this.#creates].filter(([, creates]) => creates > 1);
    const files = [...this.#files.values()];
    const completeOf = (file: FileEntry): number => file.complete;
    return {
      seed: this.#seed,
      requests: Object.fromEntries([...this.#requests].map(([name, outcomes]) => [name, Object.fromEntries(outcomes)])),
      creates: {
        total: sum([...this.#creates.values()]),
        distinct_inputs: this.#creates.size,
        repeated_inputs: repeated.length,
        surplus: sum(repeated.map(([, creates]) => creates - 1)),
        repeated: repeated.slice(0, REPEATED_SHOWN).map(([digest, creates]) => ({ digest, creates })),
      },
      ...this.#tally(false),
      foreign: this.#tally(true),
      files: {
        fetched: files.length,
        complete: sum(files.map(completeOf)),
        partial: sum(files.map((file) => file.partial)),
        complete_bytes: sum(files.map((file) => file.complete * file.bytes)),
      },
      webhooks: { ...this.webhooks },
      tokens_out_of_place: this.#strays.all(),
    };
  }

  *predictionRows(): Generator<PredictionRow> {
    for (const prediction of this.#predictions()) {
      const runMs = predictMs(prediction);
      yield {
        id: prediction.id,
        account: prediction.account.name,
        model: prediction.model.fullName,
        digest: prediction.digest,
        foreign: prediction.foreign,
        status: prediction.status,
        created_at: isoMicros(prediction.createdAtUs),
        predict_time: runMs === null ? null : runMs / 1_000,
        usd: this.#usd(runMs ?? 0),
      };
    }
  }

  *fileRows(): Generator<FileRow> {
    yield* this.#files.values();
  }

  inputRows(): Generator<InputRow> {
    return byInput(this.#predictions(), this.#files.values(), (ms) => this.#usd(ms));
  }

  #tally(foreign: boolean): Tally {
    const predictions = {
      total: 0,
      starting: 0,
      processing: 0,
      succeeded: 0,
      failed: 0,
      canceled: 0,
      aborted: 0,
      data_removed: 0,
    };
    let billed = 0;
    let billedMs = 0;
    for (const prediction of this.#predictions()) {
      if (prediction.foreign !== foreign) continue;
      predictions.total++;
      predictions[prediction.status]++;
      if (prediction.dataRemoved) predictions.data_removed++;
      const runMs = isTerminal(prediction.status) ? predictMs(prediction) : null;
      if (runMs === null) continue;
      billed++;
      billedMs += runMs;
    }
    return {
      predictions,
      bills: { predictions: billed, predict_seconds: (billedMs / 1_000).toFixed(3), usd: this.#usd(billedMs) },
    };
  }

  #usd(ms: number): string {
    const nano = BigInt(ms) * BigInt(this.#nanoUsdPerMs);
    return `${nano / 1_000_000_000n}.${String(nano % 1_000_000_000n).padStart(9, "0")}`;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
