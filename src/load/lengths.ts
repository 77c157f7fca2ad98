/** Lengths when no trace is at hand: generators fitted to published statistics. */
import type { Random } from "../random.ts"

/** Longer requests (prompt + output, unscaled) are not drawn: the context of the models of the evaluation
 * (docs/design.md, Workloads). */
const SEQUENCE_LIMIT_TOKENS = 8192

export interface Lengths {
  promptTokens: number
  outputTokens: number
}

/** Draws the lengths of one request, unscaled. `source` says where they come from, for the report. */
export interface LengthSource {
  source: string
  draw(random: Random): Lengths
}

/** Cumulative probabilities of the quantile tables below. */
const LEVELS = [0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1] as const

/** Quantiles at LEVELS of published traces: Azure LLM inference trace 2023 (conversation, code), and arXiv
 * summarization as processed for the Vidur simulator. */
const PUBLISHED = {
  chat: {
    name: "Azure conversation 2023",
    prompt: [2, 39, 311, 398, 1033, 1207, 4076, 4123, 14050],
    output: [7, 16, 49, 80, 133, 396, 427, 609, 1000],
  },
  code: {
    name: "Azure code 2023",
    prompt: [3, 17, 147, 578, 1469, 2744, 5186, 7436, 7437],
    output: [6, 6, 7, 9, 13, 24, 55, 249, 1899],
  },
  summarize: {
    name: "arXiv summarization",
    prompt: [1, 59, 1180, 1953, 2713, 3363, 3702, 3929, 4046],
    output: [5, 36, 78, 114, 166, 243, 380, 3337, 4056],
  },
} as const
export type PublishedName = keyof typeof PUBLISHED

/** Quantile function: log-linear between the table's points. */
export function quantile(table: readonly number[], u: number): number {
  let i = 1
  while (i < LEVELS.length - 1 && u > LEVELS[i]!) i++
  const share = (u - LEVELS[i - 1]!) / (LEVELS[i]! - LEVELS[i - 1]!)
  return table[i - 1]! * (table[i]! / table[i - 1]!) ** Math.min(1, Math.max(0, share))
}

export function published(name: PublishedName): LengthSource {
  const { name: title, prompt, output } = PUBLISHED[name]
  return {
    source: `synthetic, fitted to quantiles of ${title}`,
    draw(random) {
      for (;;) {
        const lengths = {
          promptTokens: quantile(prompt, random.uniform()),
          outputTokens: quantile(output, random.uniform()),
        }
        if (lengths.promptTokens + lengths.outputTokens <= SEQUENCE_LIMIT_TOKENS) return lengths
      }
    },
  }
}
