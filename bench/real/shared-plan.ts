/** Plans of requests that are all alike and begin with one of a few system prompts, to the token: the simplest workload
 * on which a prefix cache decides. */
import { InvalidArgumentError } from "commander"
import { UserError } from "../../src/errors.ts"
import { type ArrivalName, arrivals, followsTrace } from "../../src/load/arrivals.ts"
import type { Plan } from "../../src/load/plan.ts"
import { Random } from "../../src/random.ts"

export interface SharedShape {
  /** Tokens of a system prompt. */
  sharedTokens: number
  /** What follows it in each prompt, and no other prompt has. */
  ownTokens: number
  outputTokens: number
  /** How many system prompts there are, each as likely. */
  prompts: number
}

/** "500,40,32" or "500,40,32,4": shared, own and output tokens, and the number of system prompts. */
export function parseShape(text: string): SharedShape {
  const counts = text.split(",").map(Number)
  const [sharedTokens = 0, ownTokens = 0, outputTokens = 0, prompts = 1] = counts
  const whole = counts.every((count) => Number.isInteger(count) && count >= 1 && count <= 1e6)
  if (whole && (counts.length === 3 || counts.length === 4))
    return { sharedTokens, ownTokens, outputTokens, prompts }
  throw new InvalidArgumentError(
    "It must be shared,own,output tokens and perhaps the number of system prompts, for example 500,40,32,4.",
  )
}

/** The workload's name in results. */
export function nameOfShape({ sharedTokens, ownTokens, outputTokens, prompts }: SharedShape): string {
  const behind = prompts === 1 ? "one system prompt" : `${prompts} system prompts`
  return `shared: ${sharedTokens} tokens of ${behind} + ${ownTokens}, ${outputTokens} out`
}

/** Equal for all runs: a server may know the system prompts from earlier ones, as in daily use. */
export const SHARED_NONCE = "system prompts"

export interface SharedLoad {
  ratePerSec: number
  durationMs: number
  seed: number
  arrivals: ArrivalName
  burstiness: number
}

export function sharedPlan(shape: SharedShape, load: SharedLoad): Plan {
  const { ratePerSec, durationMs, seed, burstiness } = load
  if (followsTrace(load.arrivals))
    throw new UserError("--shared has no trace to follow: give --arrivals poisson or gamma")
  const { sharedTokens, ownTokens, outputTokens, prompts } = shape
  const count = Math.max(1, Math.round((ratePerSec * durationMs) / 1000))
  const random = new Random(seed, "shared", "arrivals")
  const times = arrivals(load.arrivals, { count, spanMs: durationMs, burstiness, trace: undefined, random })
  const chosen = new Random(seed, "shared", "system prompts")
  return {
    header: {
      plan: 1,
      scenario: nameOfShape(shape),
      seed,
      ratePerSec,
      durationMs,
      scale: 1,
      arrivals: load.arrivals,
      burstiness: load.arrivals === "gamma" ? burstiness : null,
      sources: { shared: "fixed lengths" },
    },
    requests: times.map(({ atMs }) => ({
      atMs: Math.round(atMs * 1000) / 1000,
      app: "shared",
      session: null,
      rounds: [
        {
          class: "chat",
          promptTokens: sharedTokens + ownTokens,
          outputTokens,
          thinkingTokens: 0,
          delayMs: 0,
        },
      ],
      prefix: { blockTokens: sharedTokens, ids: [chosen.integer(0, prompts)] },
    })),
  }
}
