/** Fills in what is not known of arrivals: the answers of requests that still run, and the prompts of requests that were
 * refused. What is guessed comes from requests like them. */
import type { Arrival } from "./arrival.ts"

/** Tokens where no request has ended. */
const UNKNOWN_TOKENS = 256

/** All of the arrivals, with their lengths. */
export function completed(arrivals: readonly Arrival[], nowUs: number): Arrival[] {
  const all = arrivals.filter(({ end }) => end === "done")
  const byApp = Map.groupBy(all, ({ app }) => app)
  return arrivals.map((arrival, at) =>
    arrival.end === "done" ? arrival : withLengths(arrival, byApp.get(arrival.app) ?? all, nowUs, at),
  )
}

/** As long as one of its class that took no less time than this one has so far: those that still run are longer than most.
 * `turn` chooses among them. */
function withLengths(arrival: Arrival, ended: readonly Arrival[], nowUs: number, turn: number): Arrival {
  const { atUs, endUs, promptTokens, outputTokens, maxOutputTokens, thinking } = arrival
  // One that was given up, or that failed, would have gone on; for how long is not known either.
  const ageUs = arrival.end === "refused" ? 0 : (endUs || nowUs) - atUs
  const longer = ended.filter((other) => other.endUs - other.atUs >= ageUs)
  const like = longer.length > 0 ? longer[turn % longer.length] : longest(ended)
  const most = maxOutputTokens || Number.POSITIVE_INFINITY
  const output = Math.max(1, Math.min(most, Math.max(outputTokens, like?.outputTokens ?? UNKNOWN_TOKENS)))
  return {
    ...arrival,
    promptTokens: promptTokens || like?.promptTokens || UNKNOWN_TOKENS,
    cachedTokens: promptTokens > 0 ? arrival.cachedTokens : (like?.cachedTokens ?? 0),
    outputTokens: output,
    thinkingTokens: thinking ? Math.min(output - 1, like?.thinkingTokens ?? 0) : 0,
  }
}

function longest(ended: readonly Arrival[]): Arrival | undefined {
  let most: Arrival | undefined
  for (const one of ended) if (most === undefined || one.outputTokens > most.outputTokens) most = one
  return most
}
