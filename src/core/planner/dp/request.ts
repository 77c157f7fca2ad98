/** A request as the dynamic program sees it. */

/** One request of an instance. */
export interface DpRequest {
  /** Absolute deadline of the prefill. */
  deadline: number
  /** Prompt tokens still to prefill (0 = decoding). */
  owed: number
  /** Index of its TPOT. */
  tier: number
  /** Memory for its whole life, in any unit; 0 for running ones, which hold theirs. */
  memory: number
  profit: number
  /** Running or promised: must be kept. */
  must: boolean
}
