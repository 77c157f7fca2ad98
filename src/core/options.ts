/** What can be set of a policy, and the values where nothing is set. */

export interface PolicyOptions {
  /** Longest batch while any request has an SLO, µs: bounds how long an arrival waits for its first decision. */
  maxBatchUs: number
  /** Added to every predicted batch time (0.2 = 20%); null: what the scatter of steps calls for, learnt per kind of step. */
  margin: number | null
  /** Most tokens of a batch for the fixed-budget policies (vllm, vllm-prefill-first). */
  tokenBudget: number
  /** Longest batch that best-effort work may make while SLO work runs, µs. */
  bestEffortBatchUs: number
  /** When that has given best-effort work nothing for so long, µs, it gets a batch's whole slack. */
  bestEffortEveryUs: number
  /** Best-effort requests whose next token is overdue by so much, µs, get a share that no newcomer can take. */
  bestEffortPatienceUs: number
  /** `revocable`: a promise from the first token on. `firm`: from admission on; without a margin a
   * dynamic program chooses which. */
  admission: "revocable" | "firm"
  /** Share of the KV that the memory forecast may fill. */
  kvShare: number
  /** `on`: edf, edf-drop and slos-serve choose how many tokens each decode drafts, by what pays (docs/design.md,
   * Speculation). */
  speculation: "off" | "on"
  /** Most tokens verified per request and step, the sure one included. */
  maxSpeculation: number
  /** Probability that a drafted token is accepted, until it has been measured. */
  acceptancePrior: number
  /** Without speculation by choice: tokens that every decode drafts (vllm and sarathi too). */
  fixedDraft: number
  /** qoserve: weight of the remaining prefill time in its priority (0 = earliest deadline first). */
  hybridAlpha: number
}

/** Where the engine is fast; a slow one gets longer batches (replica.ts). Found by simulation and on a CPU. */
export const DEFAULT_OPTIONS: PolicyOptions = {
  maxBatchUs: 100_000,
  margin: null,
  tokenBudget: 512,
  bestEffortBatchUs: 20_000,
  bestEffortEveryUs: 5_000_000,
  bestEffortPatienceUs: 600_000_000,
  admission: "revocable",
  kvShare: 0.985,
  speculation: "off",
  maxSpeculation: 8,
  acceptancePrior: 0.7,
  fixedDraft: 0,
  hybridAlpha: 1,
}

/** Promises from admission on, by a timer without a margin: what is chosen can be planned to the token, and decodes
 * then wait until they are due. With a margin the fluid test holds as much, or more where KV is short. */
export function countsExactly({ admission, margin }: PolicyOptions): boolean {
  return admission === "firm" && margin === 0
}
