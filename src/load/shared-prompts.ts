/** Chats behind system prompts that many of them share, a few of them most: what prefix caches and routers live from. No
 * published trace has lengths, turns and shared text together, so all of it is drawn. */
import { Random } from "../random.ts"
import type { PlannedRound } from "./plan.ts"
import type { PromptPrefix } from "./trace.ts"

const PROMPTS = 50
const PLACES = Array.from({ length: PROMPTS }, (_, place) => place)
const HARMONIC = PLACES.reduce((sum, place) => sum + 1 / (place + 1), 0)
/** Their lengths, log-uniform. */
const LEAST_TOKENS = 500
const MOST_TOKENS = 4000
const MOST_ROUNDS = 6
/** Chance that a chat goes on after a round: 2.5 rounds on average, given the most. */
const GOES_ON = 0.62
const TURN = { median: 60, sigma: 0.9 }
const ANSWER = { mean: 200, sigma: 0.8 }
const DELAY_MS = 5000

export interface SharedPrompts {
  source: string
  draw(random: Random): { rounds: PlannedRound[]; prefix: PromptPrefix }
}

/** The system prompts of one seed, and chats that begin with them. */
export function sharedPrompts(seed: number): SharedPrompts {
  const random = new Random(seed, "shared", "system prompts")
  const lengths = PLACES.map(() =>
    Math.round(LEAST_TOKENS * (MOST_TOKENS / LEAST_TOKENS) ** random.uniform()),
  )
  return {
    source: `synthetic (chats of 1 to ${MOST_ROUNDS} rounds behind ${PROMPTS} system prompts, Zipf)`,
    draw(chat) {
      const id = zipf(chat)
      const systemTokens = lengths[id]!
      // One block: the whole system prompt, to the token.
      return { rounds: drawChat(chat, systemTokens), prefix: { blockTokens: systemTokens, ids: [id] } }
    },
  }
}

/** A place, each as often as 1 / (place + 1). */
function zipf(random: Random): number {
  let left = random.uniform() * HARMONIC
  const found = PLACES.find((place) => {
    left -= 1 / (place + 1)
    return left < 0
  })
  return found ?? PROMPTS - 1
}

function drawChat(random: Random, systemTokens: number): PlannedRound[] {
  const rounds: PlannedRound[] = []
  do {
    const first = rounds.length === 0
    rounds.push({
      class: "chat",
      promptTokens: (first ? systemTokens : 0) + random.lognormal(TURN.median, TURN.sigma),
      outputTokens: random.lognormal(ANSWER.mean / Math.exp(ANSWER.sigma ** 2 / 2), ANSWER.sigma),
      thinkingTokens: 0,
      delayMs: first ? 0 : random.exponential(DELAY_MS),
    })
  } while (rounds.length < MOST_ROUNDS && random.uniform() < GOES_ON)
  return rounds
}
