/** Arrival times like those of published services, for when no trace is at hand: point processes fitted to the Azure LLM
 * inference traces of 2023 (Splitwise, ISCA 2024). */
import type { Random } from "../random.ts"

export interface BurstProcess {
  source: string
  /** Endless arrival times from a random moment on, ms. */
  times(random: Random): Generator<number, never, void>
}

/** Conversation: 5.6 requests/s whose rate wanders; gaps have a coefficient of variation of 1.07. */
const CHAT = { ratePerSec: 5.62, sigma: 0.19, memoryS: 300, stepS: 5 }

/** Code: an editor's fleet is silent, then busy. Times in s, lognormal (median, σ); requests come in little volleys of
 * the same few ms. */
const CODE = {
  onS: [13.6, 0.72],
  offS: [26.5, 0.99],
  volleysPerSec: 5.3,
  rateSigma: 0.3,
  volley: 1.52,
} as const
const VOLLEY_GAP_MS = 1.5

export const BURSTS: Readonly<Record<"chat" | "code", BurstProcess>> = {
  chat: { source: "synthetic bursts, fitted to Azure conversation 2023", times: chatTimes },
  code: { source: "synthetic bursts, fitted to Azure code 2023", times: codeTimes },
}

/** Poisson arrivals whose log rate is an Ornstein–Uhlenbeck process (mean rate unchanged). */
function* chatTimes(random: Random): Generator<number, never, void> {
  const { ratePerSec, sigma, memoryS, stepS } = CHAT
  const keep = Math.exp(-stepS / memoryS)
  let level = sigma * random.normal()
  for (let step = 0; ; step++) {
    const meanMs = 1000 / (ratePerSec * Math.exp(level - sigma ** 2 / 2))
    for (let at = random.exponential(meanMs); at < stepS * 1000; at += random.exponential(meanMs))
      yield step * stepS * 1000 + at
    level = keep * level + Math.sqrt(1 - keep ** 2) * sigma * random.normal()
  }
}

/** On and off by turns; while on, volleys of a geometric number of requests at a rate of the turn's own. */
function* codeTimes(random: Random): Generator<number, never, void> {
  const { onS, offS, volleysPerSec, rateSigma, volley } = CODE
  for (let at = 0; ; ) {
    const endMs = at + random.lognormal(...onS) * 1000
    const meanMs = 1000 / random.lognormal(volleysPerSec, rateSigma)
    let last = at
    while (at < endMs) {
      last = Math.max(last, at)
      do {
        yield last
        last += random.exponential(VOLLEY_GAP_MS)
      } while (random.uniform() < 1 - 1 / volley)
      at += random.exponential(meanMs)
    }
    at = Math.max(last, endMs) + random.lognormal(...offS) * 1000
  }
}

/** The process' first `least` arrivals and all of its first hour. */
export function burstTimes(process: BurstProcess, random: Random, least: number): number[] {
  const times: number[] = []
  for (const at of process.times(random)) {
    if (at > 3_600_000 && times.length >= least) return times
    times.push(at)
  }
  return times
}
