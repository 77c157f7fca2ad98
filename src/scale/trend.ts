/** Whether load rises: by how much it will have grown when a new replica is ready. */
import type { Arrival } from "./arrival.ts"

/** Parts of the window that a line is laid through. */
const PARTS = 6
/** A slope must be so many of its standard errors to be believed, and is then taken for one of them less: bursts look like
 * slopes. */
const SURE = 2.5
/** No window foretells more than this. */
const MOST_GROWTH = 2

/** Expected load `aheadUs` after the window, against its mean over the window; 1 where it does not clearly rise. Load is
 * tokens: of prompts, without those cached, and of answers. */
export function growth(
  arrivals: readonly Pick<Arrival, "atUs" | "promptTokens" | "cachedTokens" | "outputTokens">[],
  fromUs: number,
  toUs: number,
  aheadUs: number,
): number {
  const partUs = (toUs - fromUs) / PARTS
  if (!(partUs > 0) || arrivals.length === 0) return 1
  const load = new Array<number>(PARTS).fill(0)
  for (const { atUs, promptTokens, cachedTokens, outputTokens } of arrivals) {
    const part = Math.floor((atUs - fromUs) / partUs)
    if (part >= 0 && part < PARTS) load[part]! += promptTokens - cachedTokens + outputTokens
  }
  const { mean, slope, slopeError } = lineThrough(load)
  if (mean <= 0 || slope <= SURE * slopeError) return 1
  const ahead = (PARTS - 1) / 2 + 0.5 + aheadUs / partUs
  return Math.min(MOST_GROWTH, 1 + ((slope - slopeError) * ahead) / mean)
}

/** Least squares over 0, 1, 2 …; the slope with its standard error. */
function lineThrough(values: readonly number[]): { mean: number; slope: number; slopeError: number } {
  const n = values.length
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  const middle = (n - 1) / 2
  let across = 0
  let spread = 0
  for (const [x, y] of values.entries()) {
    across += (x - middle) * (y - mean)
    spread += (x - middle) ** 2
  }
  const slope = across / spread
  let rest = 0
  for (const [x, y] of values.entries()) rest += (y - mean - slope * (x - middle)) ** 2
  return { mean, slope, slopeError: Math.sqrt(rest / (n - 2) / spread) }
}
