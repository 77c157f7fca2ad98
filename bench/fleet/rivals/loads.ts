/** What the rivals are asked (rivals.ts, and gateway-at-rate.ts on virtual time). */

/** Lengths divided, objectives, windows and rates as a model's speed has them (docs/first-results.md). */
export interface Load {
  scale: number
  classes: string
  durationSec: number
  ratesPerSec: readonly number[]
}

export const LOADS = {
  "smollm2-135m": {
    ...{ scale: 16, durationSec: 75, ratesPerSec: [0.7, 1, 1.41] },
    classes:
      "chat=ttft:4000,tpot:600;code=ttft:4000,tpot:400;summarize=ttft:8000,tpot:600;" +
      "reasoning=ttft:4000,tpot:600,thinking:400;tools=ttft:4000,tpot:400;tools_final=ttft:4000,tpot:600",
  },
  "tiny-bench": {
    ...{ scale: 8, durationSec: 40, ratesPerSec: [2.38, 4, 5.66] },
    classes:
      "chat=ttft:500,tpot:300;code=ttft:500,tpot:150;summarize=ttft:1000,tpot:300;" +
      "reasoning=ttft:500,tpot:300,thinking:150;tools=ttft:500,tpot:150;tools_final=ttft:500,tpot:300",
  },
} as const satisfies Record<string, Load>

export const BURSTINESS = 0.25
export const CONTEXT_TOKENS = 1024
