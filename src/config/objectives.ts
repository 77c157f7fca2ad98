/** Latency objectives as they are written: durations with units, multiples of the unloaded prefill time, and bounds. */
import { z } from "zod"

/** Bounds on objectives: outside them a value is a slip (seconds for milliseconds), not a wish. */
export const SLO_BOUNDS = {
  ttftUs: { min: 1_000, max: 3_600_000_000, text: "between 1 ms and 1 h" },
  tpotUs: { min: 10, max: 3_600_000_000, text: "between 0.01 ms and 1 h" },
  maxGapUs: { min: 1_000, max: 3_600_000_000, text: "between 1 ms and 1 h" },
  slowdown: { min: 1, max: 10_000, text: "between 1 and 10000 times the unloaded prefill time" },
} as const

const UNIT_US: Record<string, number> = { us: 1, ms: 1_000, s: 1_000_000, m: 60_000_000 }

/** "100ms" → 100000. Throws a message without a place; callers add it. */
function durationUs(text: string, bounds: { min: number; max: number; text: string }): number {
  const match = /^(\d+(?:\.\d+)?)\s*(us|ms|s|m)$/.exec(text.trim())
  if (match === null)
    throw new Error(`"${text}" is not a duration: write a number and a unit, as 100ms or 1.5s`)
  const us = Number(match[1]) * UNIT_US[match[2]!]!
  if (us < bounds.min || us > bounds.max) throw new Error(`"${text}" must be ${bounds.text}`)
  return us
}

function objective<T>(parse: (text: string) => T) {
  const written = z.union([z.string(), z.number()], { error: "must be a duration, as 100ms or 1.5s" })
  return written.transform((value, context): T => {
    try {
      return parse(String(value))
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message })
      return z.NEVER
    }
  })
}

export const tpot = objective((text) => durationUs(text, SLO_BOUNDS.tpotUs))
export const maxGap = objective((text) => durationUs(text, SLO_BOUNDS.maxGapUs))
export const ttft = objective((text) => {
  const times = /^(\d+(?:\.\d+)?)\s*x$/.exec(text.trim())
  if (times === null) return { ttftUs: durationUs(text, SLO_BOUNDS.ttftUs), ttftSlowdown: 0 }
  const slowdown = Number(times[1])
  const bounds = SLO_BOUNDS.slowdown
  if (slowdown < bounds.min || slowdown > bounds.max) throw new Error(`"${text}" must be ${bounds.text}`)
  return { ttftUs: Number.POSITIVE_INFINITY, ttftSlowdown: slowdown }
})
/** A TTFT that is a time, µs. */
export const ttftTime = objective((text) => durationUs(text, SLO_BOUNDS.ttftUs))
